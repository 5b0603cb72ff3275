//! `ls` and `get`: what a share holds, and having it, without a mount.

use crate::process::{Process, eventually};
use crate::tree::{Sight, assert_same, hash, hash_file, offered, set_mode, walk, write_noise, write_zoo};
use crate::valve::Valve;
use crate::world::{World, files_below};
use farshore_engine::chunk::CHUNK_SIZE;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Large enough to be stopped in the middle of.
const LARGE_BYTES: usize = 24 * 1024 * 1024;

/// How much of it passes before the valve shuts.
const FIRST_BYTES: u64 = 10 * 1024 * 1024;

fn get(world: &World, ticket: &str, paths: &[&str]) -> Command {
    let mut command = world.farshore("reader", &["get", ticket, "-o", "out"]);
    command.args(paths);
    command
}

/// What `get` left in a folder, without the folder itself and what `get` keeps there for itself.
fn fetched(out: &Path) -> BTreeMap<PathBuf, Sight> {
    let mut found = walk(out).unwrap();
    found.retain(|path, _| !path.starts_with(".farshore") && !path.as_os_str().is_empty());
    found
}

/// The files that `get` has in the middle.
fn partial_files(out: &Path) -> Vec<PathBuf> {
    files_below(&out.join(".farshore/partial"))
}

fn zoo(world: &World) -> PathBuf {
    let folder = world.new_dir("folder");
    write_zoo(&folder, &[CHUNK_SIZE as usize, 3 * CHUNK_SIZE as usize]);
    set_mode(&folder.join("closed"), 0o500);
    folder
}

#[test]
fn a_listing_says_what_is_there() {
    let world = World::new();
    let folder = zoo(&world);
    let share = world.share(&folder);
    let ticket = &*share.ticket;
    let ls = |arguments: &[&str]| {
        let ended = world.run("reader", &[&["ls", ticket], arguments].concat()).went_well();
        String::from_utf8_lossy(&ended.stdout).into_owned()
    };
    let names = |text: &str| -> Vec<String> {
        let names = text.lines().filter(|line| line.contains("Z "));
        names.map(|line| line.split_once("Z ").unwrap().1.to_owned()).collect()
    };
    assert_eq!(names(&ls(&["deep"])), ["deep", "deep/er"], "the directory itself, and what it holds");
    assert_eq!(names(&ls(&["/deep/er/and deeper/"])).len(), 2);
    assert_eq!(names(&ls(&["a link"])), ["a link -> deep/er/4096"]);
    let program = ls(&["program"]);
    assert_eq!(program, "-rwxr-xr-x              7 2009-02-13T23:31:30Z program\n");
    assert!(names(&ls(&[])).iter().any(|name| name == "dangling -> no/such/thing"));
    assert!(!ls(&[]).contains("deep/er/4097"), "one level only");
    assert!(names(&ls(&["-R"])).iter().any(|name| name == "deep/er/4097"));
    assert_eq!(ls(&["empty", "-R"]).lines().count(), 2);
    world.run("reader", &["ls", ticket, "missing/thing"]).has_code(1).only_says(&["missing/thing"]);
    world.run("reader", &["ls", ticket, "a/../b"]).has_code(2).only_says(&["no path"]);
}

#[test]
fn a_listing_for_programs_says_it_exactly() {
    let world = World::new();
    let folder = zoo(&world);
    let share = world.share(&folder);
    let ended = world.run("reader", &["ls", &share.ticket, "-R", "--json"]).went_well();
    let lines: Vec<Value> = ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let there = offered(&folder);
    assert_eq!(lines.len(), there.len());
    for (path, sight) in there {
        let Some(path) = path.to_str() else { continue };
        let line = lines.iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("{path} is not listed"));
        let said = |name: &str| line[name].as_i64().unwrap();
        let (kind, mode, modified) = match sight {
            Sight::File { mode, modified, size_bytes, .. } => {
                assert_eq!(line["size_bytes"], size_bytes, "{path}");
                ("file", Some(mode), modified)
            }
            Sight::Dir { mode, modified, .. } => ("directory", Some(mode), modified),
            Sight::Symlink { modified, target, .. } => {
                assert_eq!(line["target"], String::from_utf8_lossy(&target).into_owned(), "{path}");
                ("symlink", None, modified)
            }
            Sight::ClosedDir { .. } | Sight::Other => unreachable!("there is none"),
        };
        assert_eq!(
            (&line["kind"], (said("modified_seconds"), said("modified_nanos"))),
            (&kind.into(), modified),
            "{path}"
        );
        assert!(mode.is_none_or(|mode| line["mode"] == format!("{mode:04o}")), "{path}: {mode:?}, not {line}");
    }
}

#[test]
fn whoever_has_read_enough_of_a_listing_may_go() {
    let world = World::new();
    let folder = world.new_dir("folder");
    // More than a pipe holds.
    for number in 0..500 {
        fs::write(folder.join(format!("{number}{}", "x".repeat(200))), "").unwrap();
    }
    let share = world.share(&folder);
    let mut command = world.farshore("reader", &["ls", &share.ticket]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}

#[test]
fn everything_is_fetched_once() {
    let world = World::new();
    let folder = zoo(&world);
    let share = world.share(&folder);
    let files = offered(&folder).values().filter(|sight| matches!(sight, Sight::File { .. })).count();
    let out = world.path("out");
    for expected in [format!("fetched {files} files"), format!("fetched 0 files into {}; {files} were", out.display())]
    {
        let ended = Process::run(get(&world, &share.ticket, &[])).went_well();
        assert!(ended.stderr.contains(&expected), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
        assert!(!ended.stderr.contains(['\x1b', '\r']), "no bar where no terminal is: {ended:?}");
        assert_eq!(fetched(&out), offered(&folder));
        assert!(partial_files(&out).is_empty());
    }
    // What was deleted here is fetched again, and no more than that.
    fs::remove_file(out.join("program")).unwrap();
    let ended = Process::run(get(&world, &share.ticket, &[])).went_well();
    assert!(ended.stderr.contains("fetched 1 files"), "{ended:?}");
    assert_eq!(fetched(&out), offered(&folder));
}

#[test]
fn parts_are_fetched_to_where_they_belong() {
    let world = World::new();
    let folder = zoo(&world);
    let share = world.share(&folder);
    let out = world.path("out");
    Process::run(get(&world, &share.ticket, &["deep/er/4096"])).went_well();
    let expected = |is_wanted: &dyn Fn(&Path) -> bool| -> Vec<PathBuf> {
        offered(&folder).into_keys().filter(|path| is_wanted(path)).collect()
    };
    let here = || -> Vec<PathBuf> { fetched(&out).into_keys().collect() };
    assert_eq!(here(), ["deep", "deep/er", "deep/er/4096"].map(PathBuf::from));
    assert_eq!(fetched(&out)[Path::new("deep/er/4096")], offered(&folder)[Path::new("deep/er/4096")]);
    Process::run(get(&world, &share.ticket, &["/deep/er/and deeper/", "a link"])).went_well();
    let is_wanted = |path: &Path| {
        path.starts_with("deep/er/and deeper")
            || Path::new("deep/er/4096").starts_with(path)
            || path == Path::new("a link")
    };
    assert_eq!(here(), expected(&is_wanted));
    Process::run(get(&world, &share.ticket, &["program", "no such thing"])).has_code(1).only_says(&["no such thing"]);
    assert_eq!(here(), expected(&is_wanted), "nothing was fetched then");
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    let world = World::new();
    let folder = world.new_dir("folder");
    for name in ["changed", "a dir here", "dir/inner", "a link here", "fine", "led away/inner"] {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), format!("shared {name}")).unwrap();
    }
    fs::create_dir(folder.join("led away/deeper")).unwrap();
    set_mode(&folder.join("led away/deeper"), 0o777);
    set_mode(&folder.join("fine"), 0o4755);
    let share = world.share(&folder);
    let (out, outside) = (world.new_dir("out"), world.new_dir("outside"));
    fs::create_dir(outside.join("deeper")).unwrap();
    set_mode(&outside.join("deeper"), 0o700);
    fs::write(out.join("changed"), "mine").unwrap();
    fs::create_dir(out.join("a dir here")).unwrap();
    fs::write(out.join("dir"), "a file here").unwrap();
    fs::write(outside.join("target"), "not yours").unwrap();
    symlink(outside.join("target"), out.join("a link here")).unwrap();
    symlink(&outside, out.join("led away")).unwrap();
    let ended = Process::run(get(&world, &share.ticket, &[])).has_code(1);
    assert!(ended.stdout.is_empty());
    let ended = ended.also_says(&["changed", "left alone"]).also_says(&["a dir here", "left alone"]);
    ended.also_says(&["dir: ", "left alone"]).also_says(&["a link here"]).also_says(&["led away"]);
    assert_eq!(fs::read(out.join("fine")).unwrap(), b"shared fine");
    assert_eq!(fs::read(out.join("changed")).unwrap(), b"mine");
    assert_eq!(fs::read(out.join("dir")).unwrap(), b"a file here");
    assert!(fs::read_dir(out.join("a dir here")).unwrap().next().is_none());
    assert_eq!(fs::read(outside.join("target")).unwrap(), b"not yours");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2, "something was written outside of the folder");
    assert_eq!(mode(&outside.join("deeper")), 0o700, "something outside of the folder was changed");
    assert_eq!(mode(&out.join("fine")), 0o755, "what a peer sent runs with the rights of whoever fetched it");
}

/// What a peer names like that must not end up among the downloads that are under way, where it would be believed.
#[test]
fn the_place_of_the_downloads_is_nobody_elses() {
    let world = World::new();
    let folder = world.new_dir("folder");
    fs::create_dir_all(folder.join(".farshore/partial")).unwrap();
    for name in [".farshore/clean", ".farshore/partial/1.kdbitmap", "a.kdbitmap", "fine"] {
        fs::write(folder.join(name), name).unwrap();
    }
    let share = world.share_at(&folder, "127.0.0.1:0", &["--read-only"]);
    let out = world.new_dir("out");
    let ended = Process::run(get(&world, &share.ticket, &[])).has_code(1);
    ended.also_says(&[".farshore/clean", "left out"]).also_says(&[".farshore/partial/1.kdbitmap", "left out"]);
    let mut left = files_below(&out);
    left.sort();
    assert_eq!(left, [out.join("a.kdbitmap"), out.join("fine")]);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let world = World::new();
    let share = world.share(&world.new_dir("folder"));
    fs::write(world.path("file"), "").unwrap();
    for out in ["file", "file/below"] {
        let out: OsString = world.path(out).into();
        let ended = world.run("reader", &["get", &share.ticket, "-o", out.to_str().unwrap()]);
        ended.has_code(1).only_says(&[out.to_str().unwrap()]);
    }
}

#[test]
fn a_download_survives_the_death_and_return_of_the_owner() {
    let world = World::new();
    let folder = world.new_dir("folder");
    let bytes = write_noise(&folder.join("large"), 1, LARGE_BYTES);
    fs::write(folder.join("small"), "small").unwrap();
    let mut share = world.share(&folder);
    let valve = Valve::new(&share.address, FIRST_BYTES);
    let out = world.path("out");
    let process = Process::start(get(&world, &valve.ticket(&share.ticket), &[]));
    eventually("a part has come", || valve.is_shut() && !partial_files(&out).is_empty());
    assert!(!out.join("large").exists(), "what is not whole does not stand under its name");
    share.process.kill();
    valve.open();
    process.says("lost the connection");
    let _again = world.share_at(&folder, &share.address, &[]);
    process.end().went_well();
    assert_eq!(hash_file(&out.join("large")).unwrap(), hash(&bytes));
    assert!(partial_files(&out).is_empty());
}

#[test]
fn an_interrupted_download_goes_on_where_it_stood() {
    let world = World::new();
    let folder = world.new_dir("folder");
    write_noise(&folder.join("large"), 1, LARGE_BYTES);
    fs::write(folder.join("small"), "small").unwrap();
    fs::create_dir_all(folder.join("private/within")).unwrap();
    set_mode(&folder.join("private"), 0o700);
    let share = world.share(&folder);
    let out = world.path("out");
    for signal in [Signal::INT, Signal::TERM] {
        let valve = Valve::new(&share.address, FIRST_BYTES);
        let process = Process::start(get(&world, &valve.ticket(&share.ticket), &[]));
        eventually("a part has come", || valve.is_shut() && !partial_files(&out).is_empty());
        let ended = process.stop(signal).has_code(130).within(Duration::from_secs(10));
        let ended = ended.also_says(&["interrupted"]);
        assert!(ended.stdout.is_empty(), "{ended:?}");
        assert!(!out.join("large").exists());
        assert!(!partial_files(&out).is_empty(), "what has come is kept for the next time");
        valve.open();
    }
    Process::run(get(&world, &share.ticket, &[])).went_well();
    assert_eq!(fetched(&out), offered(&folder));
    assert!(!out.join(".farshore").exists(), "nothing is left when all is whole");
}

#[test]
fn a_fetched_folder_can_be_shared_again() {
    let Some(world) = World::with_fuse() else { return };
    let folder = zoo(&world);
    let share = world.share(&folder);
    Process::run(get(&world, &share.ticket, &[])).went_well();
    let again = world.share(&world.path("out"));
    let mount = world.mount(&again, &[]);
    assert_same(&world.path("out"), mount.root());
    mount.stop();
}
