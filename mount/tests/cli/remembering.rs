//! Whoever is killed knows in its next life what it has told, and what it has done for its peers.

use crate::process::eventually;
use crate::together::{Both, copies, text};
use crate::world::take_down;
use rustix::process::Signal;
use std::fs;

/// Kills the guest's process. Nothing of it is mounted after that.
fn kill_guest(both: &mut Both) {
    both.mount.take().unwrap().kill_and_leave();
    take_down(&both.world.path("mnt"));
}

#[test]
fn what_was_made_and_removed_in_one_life_does_not_come_back_after_a_kill() {
    let Some(mut both) = Both::new() else { return };
    let names: Vec<String> = (0..20).map(|number| format!("file{number}")).collect();
    for name in &names {
        fs::write(both.ours(name), name).unwrap();
    }
    eventually("the owner has them", || names.iter().all(|name| text(&both.theirs(name)) == *name));
    // It hears no more.
    both.share.as_ref().unwrap().process.signal(Signal::STOP);
    for name in &names {
        fs::remove_file(both.ours(name)).unwrap();
    }
    kill_guest(&mut both);
    both.share.as_ref().unwrap().process.signal(Signal::CONT);
    both.start_guest();
    both.come_to_rest();
    for name in &names {
        assert!(!both.theirs(name).exists() && !both.ours(name).exists(), "{name} is back");
    }
    both.stop_guest();
    both.stop_owner();
}

#[test]
fn what_a_peer_wrote_is_no_change_of_ones_own_after_a_kill() {
    let Some(mut both) = Both::new() else { return };
    fs::write(both.theirs("file"), "one").unwrap();
    eventually("the guest has it", || text(&both.ours("file")) == "one");
    fs::write(both.theirs("file"), "the second").unwrap();
    eventually("the guest has that", || text(&both.ours("file")) == "the second");
    // What was done in the folder is noted before anything later is told.
    both.come_to_rest();
    fs::write(both.ours("later"), "later").unwrap();
    eventually("it is told", || text(&both.theirs("later")) == "later");
    kill_guest(&mut both);
    fs::write(both.theirs("file"), "and the third one").unwrap();
    both.start_guest();
    both.come_to_rest();
    assert_eq!(text(&both.ours("file")), "and the third one");
    assert_eq!(copies(&both.ours("")), Vec::<std::path::PathBuf>::new());
    both.stop_guest();
    both.stop_owner();
}
