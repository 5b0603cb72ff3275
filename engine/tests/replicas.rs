//! Devices that all write, with much that can go wrong between them. Whatever happens, all hold the same in the end, and nothing
//! that was written is lost.
//!
//! `PROPTEST_CASES` sets how many lists of operations are tried by the test that looks for more.

use farshore_engine::testing::{ReplicaOp, play_replicas};
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

fn any_ops() -> impl Strategy<Value = Vec<ReplicaOp>> {
    proptest::collection::vec(any::<[u8; ReplicaOp::BYTES]>().prop_map(ReplicaOp::decode), 0..60)
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
