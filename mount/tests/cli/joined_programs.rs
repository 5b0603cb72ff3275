//! Real programs work on the mount of a share that all change; in the end the owner has the same.

use crate::joined::Joined;
use crate::own_programs::{
    a_kill_loses_no_row, build_and_run, has_sqlite, rows_of, run, save_by_renaming, unpack_and_copy, work_with_git,
};
use std::path::Path;

/// Does `work` on the mount. In the end both sides are the same, and rsync, which reads every byte, finds so as well.
fn together(work: impl FnOnce(&mut Joined)) {
    let Some(mut joined) = Joined::new(|_| {}) else { return };
    work(&mut joined);
    joined.agree();
    let (here, theirs) = (joined.here(""), joined.theirs(""));
    let compare = ["rsync", "-naic", "--delete", "--omit-dir-times", "--exclude=/.farshore"];
    let sides = [here.to_str().unwrap(), theirs.to_str().unwrap()];
    if let Some(differs) = run(Path::new("/"), &[&compare[..], &sides].concat()) {
        assert_eq!(differs, "");
    }
    joined.stop();
}

#[test]
fn git_works_on_it() {
    together(|joined| work_with_git(&joined.world, joined.root()));
}

#[test]
fn archives_are_unpacked_and_copied() {
    together(|joined| unpack_and_copy(&joined.world, joined.root()));
}

#[test]
fn an_editor_saves_by_renaming() {
    together(|joined| save_by_renaming(joined.root()));
}

#[test]
fn a_program_is_built_and_run() {
    together(|joined| build_and_run(joined.root()));
}

#[test]
fn a_database_survives_the_end_of_its_program_on_both_sides() {
    if !has_sqlite() {
        return;
    }
    together(|joined| {
        for mode in ["delete", "wal"] {
            let base = joined.here(mode);
            a_kill_loses_no_row(&base, mode, &base, |program| program.kill().unwrap());
            joined.agree();
            assert_eq!(rows_of(&joined.theirs(mode)), rows_of(&base), "{mode}");
        }
    });
}

#[test]
fn a_database_survives_the_end_of_the_mount_whose_peer_has_seen_it() {
    if !has_sqlite() {
        return;
    }
    for mode in ["delete", "wal"] {
        together(|joined| {
            let base = joined.here("base");
            a_kill_loses_no_row(&base, mode, &base, |program| {
                joined.kill_and_mount_again(|| program.kill().unwrap());
            });
            joined.agree();
            assert_eq!(rows_of(&joined.theirs("base")), rows_of(&base), "{mode}");
        });
    }
}
