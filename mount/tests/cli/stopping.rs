//! How the commands end: when told to, when they cannot go on, and when they cannot begin.

use crate::process::{Process, eventually};
use crate::tree::write_noise;
use crate::world::{World, is_mounted, processes_about, take_down};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, set_child_subreaper, waitpid};
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const PROMPTLY: Duration = Duration::from_secs(10);

/// Ctrl-C, a polite kill, and the end of the terminal.
const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// The exit code after Ctrl-C in the middle of a piece of work.
const INTERRUPTED: i32 = 130;

#[test]
fn sharing_and_mounting_end_well_when_told_to() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_noise(&folder.join("file"), 1, 3_000_000);
    for signal in SIGNALS {
        let share = world.share(&folder);
        let mount = world.mount(&share, &[]);
        fs::read(mount.path("file")).unwrap();
        // One that ends alone, and one whose peer is gone.
        let share_first = signal == Signal::TERM;
        if share_first {
            let ended = share.process.stop(signal).went_well().within(PROMPTLY);
            assert_eq!(ended.text(), format!("{}\n", share.ticket), "only the ticket is data");
            mount.stop_by(signal).went_well().within(PROMPTLY);
        } else {
            let ended = mount.stop_by(signal).went_well().within(PROMPTLY);
            assert!(!ended.stderr.contains("lost"), "nothing was lost: {}", ended.stderr);
            share.process.stop(signal).went_well().within(PROMPTLY);
        }
    }
}

#[test]
fn who_still_waits_for_the_owner_can_be_told_to_stop() {
    let world = World::new();
    let share = world.share(&world.new_dir("folder"));
    let (ticket, address) = (share.ticket.clone(), share.address.clone());
    share.process.stop(Signal::INT).went_well();
    // Somebody takes the calls there, but never says a word.
    let silent = TcpListener::bind(address).unwrap();
    let (mnt, out) = (world.new_dir("mnt"), world.path("out"));
    let commands = [
        vec!["ls", &ticket],
        vec!["get", &ticket, "-o", out.to_str().unwrap()],
        vec!["mount", &ticket, mnt.to_str().unwrap()],
    ];
    for arguments in commands {
        for signal in [Signal::INT, Signal::TERM] {
            let process = Process::start(world.farshore("reader", &arguments));
            let called = silent.accept().unwrap();
            let ended = process.stop(signal).has_code(INTERRUPTED).within(PROMPTLY);
            ended.only_says(&["interrupted"]);
            drop(called);
        }
    }
    assert!(!is_mounted(&mnt));
}

#[test]
fn sharing_ends_when_the_folder_is_gone() {
    for renamed in [false, true] {
        let world = World::new();
        let folder = world.new_dir("folder");
        fs::write(folder.join("file"), "file").unwrap();
        let mut share = world.share(&folder);
        // That is what it is about.
        share.process.may_log_errors();
        match renamed {
            true => fs::rename(&folder, world.path("elsewhere")).unwrap(),
            false => fs::remove_dir_all(&folder).unwrap(),
        }
        let name = folder.to_str().unwrap();
        share.process.end().has_code(1).within(PROMPTLY).also_says(&[name, "gone"]);
    }
}

#[test]
fn what_cannot_be_shared_is_said() {
    let world = World::new();
    let folder = world.new_dir("folder");
    fs::write(world.path("file"), "file").unwrap();
    let share = |path: &Path, listen: &str| {
        let mut command = world.farshore("owner", &["share", "--listen", listen]);
        command.arg(path);
        Process::run(command)
    };
    for (name, reason) in [("file", "ot a directory"), ("missing", "No such file")] {
        let path = world.path(name);
        share(&path, "127.0.0.1:0").has_code(2).only_says(&["cannot share", path.to_str().unwrap(), reason]);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let _listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let holder = TcpListener::bind(&taken);
    share(&folder, &taken).has_code(1).only_says(&[&taken, "in use", "--listen"]);
    drop(holder);
    for wrong in ["127.0.0.1", "192.0.2.1:0", "nonsense:port"] {
        let ended = share(&folder, wrong);
        assert!(!ended.status.success() && ended.stdout.is_empty() && ended.stderr.contains(wrong), "{ended:?}");
    }
}

#[test]
fn in_the_background_it_goes_on_until_it_is_unmounted() {
    let Some(world) = World::with_fuse() else { return };
    // So that the background process becomes our child when its parent has ended, and its end can be seen.
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "content").unwrap();
    let share = world.share(&folder);
    for by_signal in [false, true] {
        let mnt = world.path("mnt");
        fs::create_dir_all(&mnt).unwrap();
        let ended = world.run("reader", &["mount", &share.ticket, mnt.to_str().unwrap(), "--daemon"]).went_well();
        assert!(ended.stdout.is_empty(), "{ended:?}");
        assert!(is_mounted(&mnt), "it returns when it is mounted");
        assert_eq!(fs::read(mnt.join("file")).unwrap(), b"content");
        let [pid] = processes_about(&mnt)[..] else { panic!("not one process serves it") };
        match by_signal {
            true => kill_process(pid, Signal::TERM).unwrap(),
            false => drop(world.run("reader", &["unmount", mnt.to_str().unwrap()]).went_well()),
        }
        eventually("the background process ends well", || match waitpid(Some(pid), WaitOptions::NOHANG).unwrap() {
            Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
            Some((_, status)) => panic!("it ended with {status:?}"),
            None => Err("it still runs".to_owned()),
        });
        assert!(!is_mounted(&mnt));
    }
}

#[test]
fn ctrl_c_before_it_is_ready_ends_the_background_process_too() {
    let world = World::new();
    let share = world.share(&world.new_dir("folder"));
    let (ticket, address) = (share.ticket.clone(), share.address.clone());
    share.process.stop(Signal::INT).went_well();
    let silent = TcpListener::bind(address).unwrap();
    let mnt = world.new_dir("mnt");
    let mut command = world.farshore("reader", &["mount", &ticket, mnt.to_str().unwrap(), "--daemon"]);
    // As a shell does with what it runs in the foreground.
    command.process_group(0);
    let process = Process::start(command);
    let _called = silent.accept().unwrap();
    kill_process_group(Pid::from_raw(process.pid().cast_signed()).unwrap(), Signal::INT).unwrap();
    // Its end is seen when nobody holds its outputs open any more: that is the end of both.
    let ended = process.end();
    assert!(!ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
    assert!(!is_mounted(&mnt));
}

#[test]
fn the_background_process_outlives_the_terminal() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "content").unwrap();
    let mut share = world.share(&folder);
    let mnt = world.new_dir("mnt");
    let mut command = world.farshore("reader", &["mount", &share.ticket, mnt.to_str().unwrap(), "--daemon"]);
    // Its output goes to somebody who then goes away.
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    drop(child);
    // It has something to say now, and nobody hears it.
    share.process.kill();
    let again = world.share_at(&folder, &share.address, &[]);
    fs::write(folder.join("later"), "later").unwrap();
    eventually("the mount lives", || fs::read(mnt.join("later")).is_ok_and(|bytes| bytes == b"later"));
    drop(again);
    world.run("reader", &["unmount", mnt.to_str().unwrap()]).went_well();
    eventually("it has ended", || processes_about(&mnt).is_empty());
}

#[test]
fn in_the_foreground_too_it_goes_on_when_nobody_listens_any_more() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    let mut share = world.share(&folder);
    let mnt = world.new_dir("mnt");
    let mut command = world.farshore("reader", &["mount", &share.ticket, mnt.to_str().unwrap()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    eventually("it is mounted", || is_mounted(&mnt));
    share.process.kill();
    let again = world.share_at(&folder, &share.address, &[]);
    fs::write(folder.join("later"), "later").unwrap();
    let lives = catch_unwind(AssertUnwindSafe(|| {
        eventually("the mount lives", || fs::read(mnt.join("later")).is_ok_and(|bytes| bytes == b"later"));
    }));
    // Whatever came of it, nothing stays behind.
    child.kill().unwrap();
    child.wait().unwrap();
    take_down(&mnt);
    drop(again);
    lives.unwrap();
}
