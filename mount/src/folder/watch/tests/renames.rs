//! Renames: told as such where it is certain, and in any case leading to what is there.

use super::{Rig, path};
use farshore_engine::Observation;
use std::fs;

#[test]
fn a_renamed_file_is_told_as_renamed() {
    let rig = Rig::with(|rig| {
        rig.mkdir("d");
        rig.write("a", b"bytes");
    });
    rig.rename("a", "b");
    rig.settle();
    rig.rename("b", "d/c");
    rig.settle();
    assert_eq!(rig.moves(), [(path("a"), path("b")), (path("b"), path("d/c"))]);
}

#[test]
fn a_renamed_directory_takes_its_children_along_without_a_scan() {
    let rig = Rig::with(|rig| {
        rig.mkdir("d/sub/deep");
        rig.write("d/sub/deep/f", b"f");
        rig.mkdir("e");
    });
    let before = rig.log().len();
    rig.rename("d", "e/d2");
    rig.settle();
    assert_eq!(rig.moves(), [(path("d"), path("e/d2"))]);
    rig.write("e/d2/sub/deep/f", b"edited under the new name");
    rig.write("e/d2/sub/g", b"");
    rig.settle();
    rig.rename("e/d2/sub", "sub");
    rig.write("sub/deep/h", b"");
    rig.settle();
    assert_eq!(rig.moves().len(), 2);
    let log = rig.log();
    let scans = log[before..].iter().filter(|told| matches!(told, Observation::ScanBegin { .. }));
    assert_eq!(scans.count(), 0);
}

#[test]
fn an_edit_right_before_a_rename_is_not_lost() {
    let rig = Rig::with(|rig| {
        rig.mkdir("d/sub");
        rig.write("d/sub/f", b"1");
        rig.write("a", b"1");
    });
    rig.write("d/sub/f", b"22");
    rig.write("d/sub/new", b"new");
    rig.rename("d", "e");
    rig.write("e/sub/f2", b"333");
    rig.write("a", b"22");
    rig.rename("a", "b");
    rig.settle();
}

#[test]
fn an_editor_that_saves_by_renaming_is_one_new_file() {
    let rig = Rig::with(|rig| rig.write("text", b"old"));
    for round in 0..5 {
        rig.write("text.tmp", format!("new {round}").as_bytes());
        rig.rename("text.tmp", "text");
        rig.settle();
    }
    for round in 0..5 {
        rig.rename("text", "text~");
        rig.write("text", format!("newer {round}").as_bytes());
        rig.settle();
    }
}

#[test]
fn what_moves_in_and_out_comes_and_goes_whole() {
    let rig = Rig::with(|rig| {
        fs::create_dir_all(rig.outside("tree/sub")).unwrap();
        fs::write(rig.outside("tree/sub/f"), b"f").unwrap();
        fs::write(rig.outside("file"), b"file").unwrap();
        rig.mkdir("d");
    });
    fs::rename(rig.outside("tree"), rig.at("d/tree")).unwrap();
    fs::rename(rig.outside("file"), rig.at("file")).unwrap();
    rig.settle();
    rig.write("d/tree/sub/g", b"it is watched");
    rig.settle();
    fs::rename(rig.at("d/tree"), rig.outside("back")).unwrap();
    fs::rename(rig.at("file"), rig.outside("file")).unwrap();
    rig.settle();
    fs::write(rig.outside("back/sub/not ours"), b"").unwrap();
    fs::rename(rig.outside("back"), rig.at("other")).unwrap();
    rig.settle();
    fs::write(rig.at("other/sub/f"), b"edited").unwrap();
    rig.settle();
    assert!(rig.moves().is_empty());
}

#[test]
fn chains_swaps_and_cycles_of_directories_end_up_right() {
    let rig = Rig::with(|rig| {
        for name in ["a", "b", "c"] {
            rig.mkdir(&format!("{name}/sub"));
            rig.write(&format!("{name}/sub/{name}"), name.as_bytes());
        }
    });
    let swap = |from: &str, to: &str| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, rig.at(from), CWD, rig.at(to), RenameFlags::EXCHANGE).unwrap();
    };
    swap("a", "b");
    rig.settle();
    rig.rename("a", "t");
    rig.rename("b", "a");
    rig.rename("c", "b");
    rig.rename("t", "c");
    rig.settle();
    swap("a/sub", "b");
    swap("c/sub", "a");
    rig.settle();
    for name in ["a", "b", "c"] {
        rig.write(&format!("{name}/still watched"), b"");
    }
    rig.settle();
    fs::remove_dir_all(rig.at("b")).unwrap();
    rig.rename("c", "b");
    rig.mkdir("c/new");
    rig.settle();
    rig.write("c/new/f", b"");
    rig.write("b/f", b"");
    rig.settle();
}
