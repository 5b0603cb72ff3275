//! Real programs work on the mount of one's own folder, while a peer looks on, who then has the same.

use crate::own::{Own, shown};
use crate::process::eventually;
use crate::tree::{assert_same, noise};
use crate::world::{World, skipped};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a program to its end, which must be a good one. Says what it printed, or nothing if there is no such program.
pub(crate) fn run(dir: &Path, words: &[&str]) -> Option<String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(dir).stdin(Stdio::null());
    // What is in the environment of whoever runs the tests is theirs.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for (name, value) in [("NAME", "tester"), ("EMAIL", "tester@localhost")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    let Ok(output) = command.output() else {
        skipped(&format!("no {}", words[0]));
        return None;
    };
    assert!(output.status.success(), "{words:?}: {output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Has a peer look on while `work` works on the mount; in the end all three are the same.
fn watched_by_a_peer(work: impl FnOnce(&Own)) {
    let Some(own) = Own::new() else { return };
    let peer = own.world.mount(own.share(), &[]);
    work(&own);
    assert_same(own.folder(), own.root());
    eventually("the peer has the same", || shown(own.folder(), peer.root()));
    peer.stop();
    own.stop();
}

#[test]
fn git_works_on_it() {
    watched_by_a_peer(|own| work_with_git(&own.world, own.root()));
}

/// Clones a repository, edits it, and cleans it up.
pub(crate) fn work_with_git(world: &World, root: &Path) {
    let origin = world.new_dir("origin");
    for number in 0..50 {
        fs::write(origin.join(format!("file{number}")), noise(number, 3_000)).unwrap();
    }
    let git = |dir: &Path, words: &[&str]| run(dir, &[&["git"], words].concat());
    if git(&origin, &["init", "-q"]).is_none() {
        return;
    }
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "-qm", "All of it"]);
    git(root, &["clone", "-q", origin.to_str().unwrap(), "clone"]);
    let clone = root.join("clone");
    git(&clone, &["fsck", "--strict"]);
    assert_eq!(git(&clone, &["status", "--short"]).unwrap(), "");
    fs::remove_file(clone.join("file1")).unwrap();
    fs::write(clone.join("file2"), "edited").unwrap();
    assert_eq!(git(&clone, &["status", "--short"]).unwrap(), " D file1\n M file2\n");
    git(&clone, &["checkout", "-q", "-b", "other"]);
    git(&clone, &["commit", "-qam", "An edit"]);
    git(&clone, &["checkout", "-q", "-"]);
    git(&clone, &["gc", "-q"]);
    git(&clone, &["fsck", "--strict"]);
}

/// Adds rows, one at a time, and says each one that is safe.
const ADD_ROWS: &str = "
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute('pragma journal_mode=' + sys.argv[2])
base.execute('create table if not exists rows (number integer, text text)')
for number in range(100000):
    base.execute('insert into rows values (?, ?)', (number, 'x' * 300))
    base.commit()
    print(number, flush=True)
";

/// Says how many rows there are, if all is well.
const COUNT_ROWS: &str = "
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
assert base.execute('pragma integrity_check').fetchone()[0] == 'ok'
print(base.execute('select count(*) from rows').fetchone()[0])
";

/// Adds rows until forty are safe, does `kill`, and counts them in `there`: all are still there.
pub(crate) fn a_kill_loses_no_row(base: &Path, mode: &str, there: &Path, kill: impl FnOnce(&mut std::process::Child)) {
    let mut adding = Command::new("python3");
    adding.args(["-c", ADD_ROWS]).arg(base).arg(mode).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut adding = adding.spawn().unwrap();
    let mut lines = BufReader::new(adding.stdout.take().unwrap()).lines();
    let safe: usize = lines.nth(40).unwrap().unwrap().parse().unwrap();
    kill(&mut adding);
    // Some more may have become safe meanwhile.
    let safe = lines.map_while(Result::ok).filter_map(|line| line.parse().ok()).last().unwrap_or(safe);
    adding.wait().unwrap();
    let counted = rows_of(there);
    assert!(counted > safe, "{counted} rows are left, and row {safe} was safe");
}

/// The rows of a database in which all is well.
pub(crate) fn rows_of(base: &Path) -> usize {
    let counted = run(Path::new("/"), &["python3", "-c", COUNT_ROWS, base.to_str().unwrap()]).unwrap();
    counted.trim().parse().unwrap()
}

pub(crate) fn has_sqlite() -> bool {
    let has = Command::new("python3").args(["-c", "import sqlite3"]).status().is_ok_and(|status| status.success());
    if !has {
        skipped("no python3 with sqlite3");
    }
    has
}

#[test]
fn a_database_survives_the_end_of_its_program() {
    if !has_sqlite() {
        return;
    }
    watched_by_a_peer(|own| {
        for mode in ["delete", "wal"] {
            let base = own.here(mode);
            a_kill_loses_no_row(&base, mode, &base, |program| program.kill().unwrap());
        }
    });
}

#[test]
fn a_database_survives_the_end_of_the_mount() {
    if !has_sqlite() {
        return;
    }
    for mode in ["delete", "wal"] {
        let Some(mut own) = Own::new() else { return };
        let (base, there) = (own.here("base"), own.there("base"));
        a_kill_loses_no_row(&base, mode, &there, |program| {
            own.kill();
            program.kill().unwrap();
        });
    }
}

#[test]
fn archives_are_unpacked() {
    watched_by_a_peer(|own| unpack_and_copy(&own.world, own.root()));
}

/// Unpacks an archive of a thousand files, copies them by rsync, twice, and by cp, and removes some.
pub(crate) fn unpack_and_copy(world: &World, root: &Path) {
    let origin = world.new_dir("origin");
    for dir in 0..20 {
        fs::create_dir_all(origin.join(format!("dir{dir}/inner"))).unwrap();
        for file in 0..50 {
            fs::write(origin.join(format!("dir{dir}/inner/file{file}")), noise(file, 500)).unwrap();
        }
    }
    std::os::unix::fs::symlink("dir1/inner", origin.join("link")).unwrap();
    let archive = world.path("archive.tar");
    run(&origin, &["tar", "--format=posix", "-cf", archive.to_str().unwrap(), "."]);
    if run(root, &["tar", "-xpf", archive.to_str().unwrap()]).is_none() {
        return;
    }
    assert_same(&origin, root);
    // The second time there is nothing left to do.
    let copy = root.join("copy");
    let sync = ["rsync", "-a", "--delete", "--itemize-changes", "--exclude=copy", "./", copy.to_str().unwrap()];
    if run(&origin, &sync).is_some() {
        assert_eq!(run(&origin, &sync).unwrap(), "");
    }
    run(root, &["cp", "-a", "dir1", "again"]);
    run(root, &["rm", "-r", "dir2", "again"]);
}

#[test]
fn an_editor_saves_by_renaming() {
    watched_by_a_peer(|own| save_by_renaming(own.root()));
}

pub(crate) fn save_by_renaming(root: &Path) {
    let (file, swap, backup) = (root.join("text"), root.join(".text.swp"), root.join("text~"));
    for round in 0..30 {
        fs::write(&swap, format!("version {round}")).unwrap();
        if round > 0 {
            fs::rename(&file, &backup).unwrap();
        }
        fs::rename(&swap, &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("version {round}"));
    }
    assert_eq!(fs::read_to_string(&backup).unwrap(), "version 28");
}

#[test]
fn a_program_is_built_and_run() {
    watched_by_a_peer(|own| build_and_run(own.root()));
}

pub(crate) fn build_and_run(root: &Path) {
    let cargo = env!("CARGO");
    let (tiny, target) = (root.join("tiny"), root.join("tiny/target"));
    fs::create_dir_all(tiny.join("src")).unwrap();
    fs::write(tiny.join("Cargo.toml"), "[package]\nname = 'tiny'\nedition = '2021'\n[workspace]\n").unwrap();
    fs::write(tiny.join("src/main.rs"), "fn main() { println!(\"built here\") }").unwrap();
    let build = [cargo, "build", "-q", "--offline", "--target-dir", target.to_str().unwrap()];
    run(&tiny, &build);
    assert_eq!(run(&tiny, &[target.join("debug/tiny").to_str().unwrap()]).unwrap(), "built here\n");
    fs::write(tiny.join("src/main.rs"), "fn main() { println!(\"built again\") }").unwrap();
    run(&tiny, &build);
    assert_eq!(run(&tiny, &[target.join("debug/tiny").to_str().unwrap()]).unwrap(), "built again\n");
}
