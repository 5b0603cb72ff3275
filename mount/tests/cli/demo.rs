//! The tour that a newcomer takes first. It must end well everywhere, and leave nothing behind.

use crate::process::{Process, eventually};
use crate::tree::{walk, write_noise};
use crate::world::World;
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;

const PROMPTLY: Duration = Duration::from_secs(15);

#[test]
fn the_tour_with_its_own_sample() {
    let Some(world) = World::with_fuse() else { return };
    let ended = world.run("nobody", &["demo"]).went_well();
    let process = Process::start(world.farshore("nobody", &["demo"]));
    eventually("it begins with its sample", || fs::read_dir(world.path("tmp")).unwrap().next().is_some());
    process.stop(Signal::INT).has_code(INTERRUPTED).within(PROMPTLY);
    assert!(fs::read_dir(world.path("tmp")).unwrap().next().is_none());
    for step in ["1. ", "2. ", "3. ", "4. ", "5. ", "6. ", "7. ", "done: "] {
        assert!(ended.text().lines().any(|line| line.starts_with(step)), "no step {step:?}: {}", ended.text());
    }
}

#[test]
fn the_tour_with_somebodys_folder_changes_nothing_in_it() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::create_dir(folder.join("dir")).unwrap();
    write_noise(&folder.join("dir/large"), 1, 8 * 1024 * 1024);
    fs::write(folder.join("small"), "small").unwrap();
    let before = walk(&folder).unwrap();
    let ended = world.run("nobody", &["demo", folder.to_str().unwrap()]).went_well();
    assert!(ended.text().contains("done: "), "{}", ended.text());
    assert_eq!(walk(&folder).unwrap(), before);
}

#[test]
fn the_tour_with_little_or_nothing() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    world.run("nobody", &["demo", folder.to_str().unwrap()]).went_well();
    fs::write(folder.join("empty"), "").unwrap();
    world.run("nobody", &["demo", folder.to_str().unwrap()]).went_well();
    let missing = world.path("missing");
    let ended = world.run("nobody", &["demo", missing.to_str().unwrap()]).has_code(2);
    ended.only_says(&[missing.to_str().unwrap()]);
}

#[test]
fn the_tour_can_be_left_at_any_step() {
    let Some(world) = World::with_fuse() else { return };
    let process = Process::start(world.farshore("nobody", &["demo"]));
    eventually("it begins with its sample", || fs::read_dir(world.path("tmp")).unwrap().next().is_some());
    process.stop(Signal::INT).has_code(INTERRUPTED).within(PROMPTLY);
    assert!(fs::read_dir(world.path("tmp")).unwrap().next().is_none());
    for step in ["1. ", "2. ", "3. ", "5. ", "   its checksum", "6. "] {
        let process = Process::start(world.farshore("nobody", &["demo"]));
        process.prints(step);
        let ended = process.stop(Signal::INT).within(PROMPTLY);
        let code = ended.status.code();
        assert!(code == Some(INTERRUPTED) || code == Some(0) && ended.text().contains("done: "), "{step:?}: {ended:?}");
        assert!(!ended.stderr.contains("ERROR") && !ended.stderr.contains("panicked"), "{step:?}: {ended:?}");
        let left: Vec<_> = fs::read_dir(world.path("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{step:?}: {left:?}");
    }
}

#[test]
fn who_stays_may_play_and_ends_it_with_ctrl_c() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("hello"), "hello").unwrap();
    let process = Process::start(world.farshore("nobody", &["demo", "--stay", folder.to_str().unwrap()]));
    let line = process.prints("mounted on ");
    let mountpoint = line.trim_start().strip_prefix("mounted on ").unwrap().split("; ").next().unwrap();
    assert_eq!(fs::read(Path::new(mountpoint).join("hello")).unwrap(), b"hello");
    process.stop(Signal::INT).went_well().within(PROMPTLY);
}
