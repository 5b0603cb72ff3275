//! Devices that all write, with much that can go wrong between them. Whatever happens, all hold the same in the end, and nothing
//! that was written is lost.
//!
//! `PROPTEST_CASES` sets how many lists of operations are tried by the test that looks for more.

use core::time::Duration;
use farshore_engine::testing::{Age, ReplicaOp, Replicas, path, play_replicas};
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

/// Operations that follow from nothing but their number.
fn ops(seed: u64, count: u64) -> Vec<ReplicaOp> {
    (0..count)
        .map(|index| {
            let [tag, at, a, b, c, ..] = xxh3_64(&(seed << 32 | index).to_le_bytes()).to_le_bytes();
            ReplicaOp::decode([tag, at, a, b, c])
        })
        .collect()
}

#[test]
fn devices_that_all_write_come_to_hold_the_same_and_lose_nothing() {
    for seed in 0..120 {
        let devices = 2 + seed as usize % 4;
        let _replicas = play_replicas(seed, devices, &ops(seed, 10 + seed % 40));
    }
}

/// The same where all that is renamed and removed is so on a mount, where what is away is removed too.
#[test]
fn what_is_done_on_mounts_comes_to_the_same_everywhere() {
    for seed in 0..120 {
        let list: Vec<ReplicaOp> = ops(seed, 20 + seed % 40).into_iter().map(ReplicaOp::on_mount).collect();
        let _replicas = play_replicas(seed, 2 + seed as usize % 4, &list);
    }
}

/// Lists that once did not end well, each for a reason of its own.
#[test]
fn what_once_went_wrong_does_not_again() {
    for seed in [
        36, 53, 173, 383, 459, 463, 473, 683, 686, 755, 806, 879, 998, 1343, 1586, 2272, 2663, 2699, 2985, 2990, 3321,
        18_121, 19_840, 25_284,
    ] {
        let _replicas = play_replicas(seed, 2 + seed as usize % 4, &ops(seed, 10 + seed % 60));
    }
}

/// Two devices that hold the same.
fn two() -> Replicas {
    let mut replicas = Replicas::new(1, 2);
    quiet(&mut replicas);
    replicas
}

/// All hear of all, and time enough passes for what waits for nothing more to come.
fn quiet(replicas: &mut Replicas) {
    replicas.world.drive_for(Duration::from_secs(20));
}

/// The names in a device's folder.
fn names(replicas: &Replicas, at: usize) -> Vec<String> {
    replicas.world.hosts[at].folder.paths().map(ToString::to_string).collect()
}

/// A file is made and told, and removed while nobody is there to be told; then the process is killed.
fn after_a_kill_of_whoever_removed(age: Age) -> Vec<String> {
    let mut replicas = two();
    // What is older than the file is remembered.
    replicas.play(ReplicaOp::Run(0));
    replicas.change(0, |folder| folder.create(&path("f"), 700));
    quiet(&mut replicas);
    assert_eq!(names(&replicas, 1), ["f"]);
    replicas.world.cut(0, 1);
    replicas.change(0, |folder| folder.remove(&path("f")));
    replicas.restart(0, age);
    replicas.settle();
    names(&replicas, 0)
}

#[test]
fn what_was_made_and_removed_between_two_looks_does_not_come_back_after_a_kill() {
    assert_eq!(after_a_kill_of_whoever_removed(Age::Told), [""; 0]);
    assert_eq!(after_a_kill_of_whoever_removed(Age::Old), ["f"], "of what was lost nobody knows that it was removed");
}

/// A peer edits a file; the process that has put the edit into its folder is killed; the peer, which it cannot reach, edits it
/// again.
fn after_a_kill_of_whoever_put_it_there(age: Age) -> Vec<String> {
    let mut replicas = two();
    replicas.change(1, |folder| folder.create(&path("f"), 700));
    quiet(&mut replicas);
    replicas.play(ReplicaOp::Run(0));
    replicas.change(1, |folder| folder.edit(&path("f"), 600_000, false));
    quiet(&mut replicas);
    replicas.world.cut(0, 1);
    replicas.change(1, |folder| folder.edit(&path("f"), 701, false));
    replicas.restart(0, age);
    replicas.settle();
    names(&replicas, 0)
}

#[test]
fn what_a_peer_wrote_is_not_taken_for_ones_own_after_a_kill() {
    assert_eq!(after_a_kill_of_whoever_put_it_there(Age::Told), ["f"]);
    assert_eq!(after_a_kill_of_whoever_put_it_there(Age::Old).len(), 2, "what was lost looks like a change of its own");
}

/// What became of a path in a rename was told before the rename, as what is so by now: the rename was then taken to be known.
#[test]
fn what_a_directory_was_renamed_over_is_not_told_before_what_was_in_it() {
    use ReplicaOp::{Create, Cut, MakeDir, Remove, Rename, Run, Symlink};
    let ops = [
        Run(3),
        MakeDir(235, 0, 34),
        Symlink(76, 30, 129),
        Create(115, 89, 57, 0),
        Cut(66, 97),
        Create(95, 0, 220, 0),
        Run(36),
        Run(91),
        Remove(11, 0),
        Run(40),
        Create(53, 0, 0, 0),
        Cut(109, 29),
        Rename(175, 31, 134, 12),
        Run(82),
        Create(29, 71, 0, 0),
    ];
    let _replicas = play_replicas(19_362, 3, &ops);
}

fn any_ops() -> impl Strategy<Value = Vec<ReplicaOp>> {
    let any_op = any::<[u8; ReplicaOp::BYTES]>().prop_map(ReplicaOp::decode);
    let any_list = proptest::collection::vec(any_op, 0..60);
    (any_list, any::<bool>()).prop_map(|(list, on_mount)| match on_mount {
        true => list.into_iter().map(ReplicaOp::on_mount).collect(),
        false => list,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_devices_do_to_each_other_all_hold_the_same_and_nothing_is_lost(
        seed in any::<u16>(),
        devices in 2..6_usize,
        ops in any_ops(),
    ) {
        let _replicas = play_replicas(u64::from(seed), devices, &ops);
    }
}
