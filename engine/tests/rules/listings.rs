//! A follower hears the whole tree once, then what changes; when it missed too much, it hears the whole tree again.

use core::time::Duration;
use farshore_engine::testing::{Hand, Pair, dir_record, file_record, path, removed, renamed};
use farshore_engine::*;

fn names(hand: &Hand) -> Vec<String> {
    let mut names: Vec<String> = hand.engine.view().tree().map(|(path, _)| path.to_string()).collect();
    names.sort();
    names
}

fn begin(epoch: u64, seq: u64) -> TreeUpdate {
    TreeUpdate::Begin { position: Position { epoch, seq } }
}

fn watched_from(out: &[Output]) -> Option<Position> {
    out.iter().find_map(|output| match output {
        Output::Effect(_, Effect::Watch { position, .. }) => Some(*position),
        _ => None,
    })
}

#[test]
fn what_a_whole_listing_does_not_name_is_gone() {
    let mut hand = Hand::following(Config::default(), &[("a", 1), ("b", 1)]);
    let a = hand.ino("a");
    let out = hand.list(&[("b", 1), ("c", 1)]);
    assert_eq!(names(&hand), ["b", "c"]);
    assert!(Hand::notices(&out).contains(&&Notice::Listed { peer: Hand::PEER }));
    assert!(hand.ino("c") > a, "a new entry has a new number");
}

#[test]
fn what_is_named_again_stays_the_same_entry() {
    let mut hand = Hand::following(Config::default(), &[("a", 1)]);
    let before = hand.ino("a");
    hand.open("a");
    let out = hand.list(&[("a", 1)]);
    assert_eq!(hand.ino("a"), before);
    assert!(!Hand::notices(&out).iter().any(|n| matches!(n, Notice::InvalidateInode { .. })), "{out:?}");
}

#[test]
fn half_a_listing_removes_nothing_and_begins_anew() {
    let mut hand = Hand::following(Config::default(), &[("a", 1), ("b", 1)]);
    hand.tell(vec![begin(2, 5), Hand::entry("c", file_record(1, 1))]);
    hand.lose_link(&[]);
    assert_eq!(names(&hand), ["a", "b", "c"]);
    let out = hand.pass(Duration::from_millis(500));
    let out = hand.connect(&out);
    assert_eq!(watched_from(&out), Some(Position { epoch: 1, seq: 0 }), "it stands where it stood");
    hand.tell(vec![begin(2, 6), Hand::entry("a", file_record(1, 1)), TreeUpdate::End { settled: 6 }]);
    assert_eq!(names(&hand), ["a"]);
}

#[test]
fn a_listing_may_begin_anew_before_it_has_ended() {
    let mut hand = Hand::following(Config::default(), &[]);
    let first = [begin(1, 0), Hand::entry("a", file_record(1, 1)), Hand::entry("b", file_record(1, 1))];
    let second = [begin(1, 3), Hand::entry("b", file_record(1, 1)), TreeUpdate::End { settled: 3 }];
    hand.tell(first.into_iter().chain(second).collect());
    assert_eq!(names(&hand), ["b"]);
    hand.seq = 3;
    hand.put("c", file_record(1, 1), false);
    assert_eq!(names(&hand), ["b", "c"]);
}

#[test]
fn events_go_on_where_they_stopped() {
    let mut pair = Pair::new(&[("a", 1)]);
    pair.notices();
    pair.cut();
    pair.drive_for(Duration::from_secs(1));
    pair.create("b", 1);
    pair.remove("a");
    pair.drive_for(Duration::from_secs(1));
    pair.heal();
    pair.drive_for(Duration::from_secs(6));
    pair.check_converged();
    let listed = pair.notices().iter().any(|notice| matches!(notice, Notice::Listed { .. }));
    assert!(!listed, "two events are cheaper than a listing");
}

#[test]
fn who_is_too_far_behind_hears_everything_again() {
    let mut pair = Pair::with(Config { event_log: 5, ..Config::default() }, &[("a", 1)]);
    pair.notices();
    pair.cut();
    for name in 0..8 {
        pair.create(&format!("f{name}"), 1);
    }
    pair.drive_for(Duration::from_secs(1));
    pair.heal();
    pair.drive_for(Duration::from_secs(6));
    pair.check_converged();
    assert!(pair.notices().iter().any(|notice| matches!(notice, Notice::Listed { .. })));
}

#[test]
fn a_new_life_of_the_owner_is_listed_anew() {
    let mut pair = Pair::new(&[("a", 1), ("b", 1)]);
    pair.notices();
    pair.change(|folder| folder.remove(&path("a")));
    pair.restart_owner(Pair::OWNER);
    pair.drive_for(Duration::from_secs(6));
    pair.check_converged();
    assert!(pair.notices().iter().any(|notice| matches!(notice, Notice::Listed { .. })));
    assert!(pair.lookup(Pair::FOLLOWER, &path("a")).is_err());
}

#[test]
fn files_keep_their_bytes_over_a_restart_of_their_owner() {
    let mut pair = Pair::new(&[("a", 100)]);
    let handle = pair.open("a");
    pair.read_now(handle, 0, 100).unwrap();
    pair.drive();
    pair.restart_owner(Pair::OWNER);
    pair.drive_for(Duration::from_secs(6));
    pair.cut();
    assert!(pair.read_now(handle, 0, 100).unwrap() == pair.owner_bytes("a"), "they are here and still the same");
}

#[test]
fn a_listing_that_is_told_while_the_folder_changes_ends_up_right() {
    let files: Vec<String> = (0..40).map(|name| format!("d{}/f{name:02}", name % 4)).collect();
    let files: Vec<(&str, u64)> = files.iter().map(|name| (name.as_str(), 1)).collect();
    for seed in 0..10_u64 {
        let config = Config { watch_batch: 3, ..Config::default() };
        let mut pair = Pair::with(config, &files);
        pair.restart_owner(Pair::OWNER);
        let steps = ["d1/f01", "d3/f03", "d0/f00", "d2/f38"];
        for (step, file) in steps.iter().enumerate() {
            pair.drive_for(Duration::from_millis(3 + seed * 2));
            match (step as u64 + seed) % 4 {
                0 => pair.remove(file),
                1 => pair.rename(file, "d0/moved"),
                2 => {
                    pair.remove(file);
                    pair.create(&format!("{file}/inside"), 1);
                }
                _ => pair.rename(&file[..2], &format!("renamed{step}")),
            }
        }
        pair.drive_for(Duration::from_secs(10));
        pair.settle();
        assert!(!pair.notices().iter().any(|notice| matches!(notice, Notice::PeerFault { .. })), "seed {seed}");
    }
}

#[test]
fn events_that_are_told_again_after_a_listing_may_name_what_is_gone() {
    let mut hand = Hand::following(Config::default(), &[]);
    hand.tell(vec![begin(1, 10), Hand::entry("a", file_record(1, 1)), TreeUpdate::End { settled: 13 }]);
    hand.seq = 10;
    // While the listing was made: a file was made in `d`, `a` was moved there, and `d` was removed.
    hand.put("d/x", file_record(1, 1), false);
    hand.event(renamed("a", "d/a", file_record(1, 1)));
    assert_eq!(names(&hand), Vec::<String>::new(), "`a` is not where it was");
    hand.event(removed("d"));
    // From here on nothing is told for the second time.
    let out = hand.put("d/y", file_record(1, 1), false);
    let fault = Notice::PeerFault { peer: Hand::PEER, fault: PeerFault::NoParent };
    assert!(Hand::notices(&out).contains(&&fault));
}

#[test]
fn events_of_a_connection_that_is_gone_are_not_applied() {
    let mut hand = Hand::following(Config::default(), &[("a", 1)]);
    let old = hand.link;
    hand.lose_link(&[]);
    let stale = |seq| {
        let updates = vec![TreeUpdate::Event { seq, change: removed("a") }];
        Input::Peer(Hand::PEER, PeerEvent::Tree { link: old, updates })
    };
    assert!(hand.give(stale(1)).is_empty());
    let out = hand.pass(Duration::from_millis(500));
    hand.connect(&out);
    assert!(hand.give(stale(1)).is_empty());
    assert_eq!(names(&hand), ["a"]);
    let down = Input::Peer(Hand::PEER, PeerEvent::LinkDown { link: old });
    assert!(hand.give(down).is_empty(), "nor is its end");
}

#[test]
fn a_file_renamed_that_was_never_heard_of_comes_with_the_event() {
    let mut hand = Hand::following(Config::default(), &[]);
    hand.event(renamed("a", "b", file_record(7, 1)));
    assert_eq!(names(&hand), ["b"]);
}

#[test]
fn a_renamed_directory_keeps_its_entries_and_their_numbers() {
    let mut hand = Hand::following(Config::default(), &[]);
    hand.put("d", dir_record(), false);
    hand.put("d/e", dir_record(), false);
    hand.put("d/e/f", file_record(1, 1), false);
    let file = hand.ino("d/e/f");
    hand.event(renamed("d", "g", dir_record()));
    assert_eq!(names(&hand), ["g", "g/e", "g/e/f"]);
    assert_eq!(hand.ino("g/e/f"), file);
}

#[test]
fn what_a_rename_pushes_beyond_the_longest_path_is_let_go_of() {
    let long = "x".repeat(200);
    let mut hand = Hand::following(Config::default(), &[]);
    let mut deep = String::from("a");
    hand.put("a", dir_record(), false);
    for _ in 0..10 {
        deep = format!("{deep}/{long}");
        hand.put(&deep, dir_record(), false);
    }
    let mut there = String::from("b");
    hand.put("b", dir_record(), false);
    for _ in 0..12 {
        there = format!("{there}/{long}");
        hand.put(&there, dir_record(), false);
    }
    let before = hand.engine.view().tree().count();
    let to = path(&format!("{there}/a"));
    hand.event(renamed("a", &to.to_string(), dir_record()));
    let after = hand.engine.view().tree().count();
    assert!(after < before && after > before - 10, "{before} {after}");
}
