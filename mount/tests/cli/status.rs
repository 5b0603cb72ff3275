//! What runs can be asked how it is doing, and leaves nothing behind.

use crate::process::{Process, eventually};
use crate::tree::write_noise;
use crate::valve::Valve;
use crate::world::{World, files_below, take_down};
use farshore_engine::chunk::CHUNK_SIZE;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::thread;

/// What `farshore status --json` of a device says.
fn status(world: &World, device: &str) -> Value {
    serde_json::from_str(world.run(device, &["status", "--json"]).went_well().text()).unwrap()
}

/// The only process of a device.
#[track_caller]
pub(crate) fn only_process(world: &World, device: &str) -> Value {
    let mut status = status(world, device);
    assert_eq!(status["unanswered"], Value::Array(Vec::new()));
    let processes = status["processes"].as_array_mut().unwrap();
    assert_eq!(processes.len(), 1, "{processes:#?}");
    processes.remove(0)
}

fn sockets(world: &World, device: &str) -> Vec<PathBuf> {
    files_below(&world.path(&format!("state of {device}/run")))
}

/// What the threads of a process do, as one letter each.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).unwrap_or_default();
    let state = |stat: String| Some(stat.rsplit(')').next()?.split_whitespace().next()?.to_owned());
    tasks.flatten().map(stat).filter_map(state).collect()
}

#[test]
fn when_nothing_runs_it_says_so() {
    let world = World::new();
    let ended = world.run("nobody", &["status"]).went_well();
    assert!(ended.text().contains("nothing runs"), "{}", ended.text());
    let all = status(&world, "nobody");
    assert_eq!((&all["processes"], &all["unanswered"]), (&Value::Array(Vec::new()), &Value::Array(Vec::new())));
    let metrics = world.run("nobody", &["status", "--prometheus"]).went_well();
    assert!(metrics.text().lines().all(|line| line.starts_with("# ")), "heads alone: {}", metrics.text());
}

#[test]
fn a_file_on_its_way_is_shown_with_who_waits_for_it() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    let chunks = 8;
    write_noise(&folder.join("large"), 1, chunks * CHUNK_SIZE as usize);
    fs::write(folder.join("small"), "small").unwrap();
    let share = world.share(&folder);
    // Enough for the listing, and for some of the file.
    let valve = Valve::new(&share.address, CHUNK_SIZE);
    let mount = world.mount_on(&world.path("mnt"), &valve.ticket(&share.ticket), &[]);
    let path = mount.path("large");
    let open = File::open(&path).unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        (&open).read_to_end(&mut bytes).map(|_| bytes.len())
    });
    eventually("the reader waits", || {
        let report = only_process(&world, "reader");
        let fetching = report["fetching"].as_array().unwrap();
        if !valve.is_shut() || fetching.is_empty() || fetching[0]["waiters"] == 0 {
            return Err(format!("{report:#?}"));
        }
        assert_eq!(fetching[0]["path"], "large");
        assert_eq!(fetching[0]["total_chunks"], chunks);
        assert!(fetching[0]["have_chunks"].as_u64().unwrap() < chunks as u64);
        assert_eq!((&report["mount"]["link"]["state"], &report["entries"]), (&"up".into(), &2.into()));
        assert_eq!(report["mountpoint"], mount.root().to_str().unwrap());
        assert_eq!((&report["pid"], &report["open_handles"]), (&mount.process().pid().into(), &1.into()));
        assert_eq!(report["open_files"], serde_json::json!([{"path": "large", "opens": 1}]));
        Ok(())
    });
    let text = world.run("reader", &["status"]).went_well();
    for word in ["mount of", mount.root().to_str().unwrap(), "large", "waiting", "/8 chunks", "link"] {
        assert!(text.text().contains(word), "{word}: {}", text.text());
    }
    let owner = only_process(&world, "owner");
    assert_eq!((&owner["share"]["folder"], &owner["entries"]), (&folder.to_str().unwrap().into(), &2.into()));
    assert_eq!(owner["share"]["listening"], share.address);
    let id = world.run("reader", &["id"]).text().trim().to_owned();
    assert_eq!(owner["share"]["peers"][0]["id"], id);

    valve.open();
    assert_eq!(reader.join().unwrap().unwrap(), chunks * CHUNK_SIZE as usize);
    fs::metadata(mount.path("no such file")).unwrap_err();
    eventually("all of it is here", || {
        let report = only_process(&world, "reader");
        let size_bytes = chunks as u64 * CHUNK_SIZE;
        report["cache_bytes"] == size_bytes && report["fuse"]["read_bytes"] == size_bytes && report["open_handles"] == 0
    });
    let report = only_process(&world, "reader");
    assert!(report["totals"]["fetched_bytes"].as_u64().unwrap() >= chunks as u64 * CHUNK_SIZE);
    let metrics = world.run("reader", &["status", "--prometheus"]).went_well();
    let value = |name: &str, label: &str| {
        let line = metrics.text().lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        let line = line.unwrap_or_else(|| panic!("no {name}: {}", metrics.text()));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("farshore_fuse_operations_total", "operation=\"read\"") >= 1.0);
    assert!(value("farshore_fuse_operation_seconds_total", "operation=\"read\"") > 0.0);
    assert!(value("farshore_fuse_operations_total", "operation=\"open\"") >= 1.0);
    assert!(value("farshore_fuse_operations_total", "operation=\"lookup\"") >= 2.0);
    assert!(
        (value("farshore_fuse_operation_errors_total", "operation=\"lookup\"")).abs() < 0.5,
        "not there: an answer"
    );
    assert!((value("farshore_link_up", "role=\"mount\"") - 1.0).abs() < 0.5);
    mount.stop();
    share.process.stop(Signal::INT).went_well();
    for device in ["owner", "reader"] {
        assert!(sockets(&world, device).is_empty(), "the socket of the {device} stays behind");
    }
}

#[test]
fn a_lost_owner_and_failed_reads_are_told() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_noise(&folder.join("file"), 1, 1000);
    let mut share = world.share(&folder);
    let mount = world.mount(&share, &["--on-disconnect", "fail"]);
    share.process.kill();
    eventually("the link is down", || {
        let report = only_process(&world, "reader");
        report["mount"]["link"]["state"] != "up" && report["mount"]["link"]["down_since_unix_seconds"].is_u64()
    });
    fs::read(mount.path("file")).unwrap_err();
    let report = only_process(&world, "reader");
    let kinds: Vec<_> = report["events"].as_array().unwrap().iter().map(|event| &event["kind"]).collect();
    assert!(kinds.contains(&&"link_down".into()), "{kinds:?}");
    let read = report["fuse"]["operations"].as_array().unwrap().iter().find(|row| row["operation"] == "read").unwrap();
    assert!(read["errors"].as_u64().unwrap() >= 1, "{read}");
    let text = world.run("reader", &["status"]).went_well();
    assert!(text.text().contains("down since") && text.text().contains("lost the connection"), "{}", text.text());
    // What the killed owner has left is not taken for a process, and is removed.
    assert_eq!(sockets(&world, "owner").len(), 1);
    assert_eq!(status(&world, "owner")["processes"], Value::Array(Vec::new()));
    assert!(sockets(&world, "owner").is_empty());
    mount.stop();
}

#[test]
fn several_processes_of_a_device_are_all_asked_and_a_stopped_one_holds_up_none() {
    let Some(world) = World::with_fuse() else { return };
    let (one, two) = (world.new_dir("one"), world.new_dir("two"));
    let first = world.share(&one);
    let own = world.new_dir("own");
    let second = world.share_at(&two, "127.0.0.1:0", &["--mount", own.to_str().unwrap()]);
    let all = status(&world, "owner");
    let shown: Vec<_> = all["processes"].as_array().unwrap().iter().map(|known| &known["share"]["folder"]).collect();
    assert!(shown.contains(&&one.to_str().unwrap().into()) && shown.contains(&&two.to_str().unwrap().into()));
    let mounted = all["processes"].as_array().unwrap().iter().find(|known| !known["mountpoint"].is_null()).unwrap();
    assert_eq!(mounted["mountpoint"], own.to_str().unwrap());
    first.process.signal(Signal::STOP);
    // A stop takes hold of one thread after the other.
    eventually("all of it is stopped", || threads(first.process.pid()).iter().all(|state| state == "T"));
    let all = status(&world, "owner");
    assert_eq!(all["processes"].as_array().unwrap().len(), 1);
    assert!(all["unanswered"][0]["reason"].as_str().unwrap().contains("does not answer"), "{all:#?}");
    assert_eq!(sockets(&world, "owner").len(), 2, "its socket is not stale");
    first.process.signal(Signal::CONT);
    first.process.stop(Signal::TERM).went_well();
    second.process.stop(Signal::TERM).went_well();
    assert!(sockets(&world, "owner").is_empty());
    take_down(&own);
}

#[test]
fn watching_goes_on_until_it_is_stopped() {
    let world = World::new();
    let share = world.share(&world.new_dir("folder"));
    let watching = Process::start(world.farshore("owner", &["status", "--watch", "--json"]));
    // The first look knows no rates, the next one does.
    let line = watching.prints("fetched_bytes_per_second");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["processes"][0]["rates"]["fetched_bytes_per_second"], 0);
    let ended = watching.stop(Signal::INT).went_well();
    let first: Value = serde_json::from_str(ended.text().lines().next().unwrap()).unwrap();
    assert!(first["processes"][0]["rates"].is_null());
    share.process.stop(Signal::INT).went_well();
}

#[test]
fn a_deep_state_directory_will_do() {
    let world = World::new();
    // An address of a socket has room for 107 bytes.
    let device = "deep".repeat(50);
    let folder = world.new_dir("folder");
    let folder = folder.to_str().unwrap();
    let share = Process::start(world.farshore(&device, &["share", folder, "--listen", "127.0.0.1:0"]));
    share.first_line();
    assert_eq!(only_process(&world, &device)["share"]["folder"], folder);
    share.stop(Signal::INT).went_well();
    assert!(sockets(&world, &device).is_empty());
}
