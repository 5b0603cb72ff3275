//! Who has joined is known, and can be thrown out for good.

use crate::process::eventually;
use crate::world::World;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

/// The exit code for what is no good on the command line.
const USAGE: i32 = 2;

fn peers(world: &World) -> Vec<Value> {
    let ended = world.run("owner", &["peers", "--json"]).went_well();
    serde_json::from_str(ended.text()).unwrap()
}

fn id(world: &World, device: &str) -> String {
    world.run(device, &["id"]).went_well().text().trim().to_owned()
}

#[test]
fn who_has_joined_is_listed() {
    let world = World::new();
    let folder = world.new_dir("folder");
    let share = world.share(&folder);
    assert!(peers(&world).is_empty());
    let ended = world.run("owner", &["peers"]).went_well();
    assert!(ended.stdout.is_empty() && ended.stderr.contains("no device has joined"), "{ended:?}");
    world.run("friend", &["ls", &share.ticket]).went_well();
    let all = peers(&world);
    assert_eq!(all.len(), 1, "whoever joins is remembered");
    assert_eq!((&all[0]["id"], &all[0]["folder"]), (&id(&world, "friend").into(), &folder.to_str().unwrap().into()));
    assert!(all[0]["first_seen_unix_seconds"].as_u64().unwrap() > 1_700_000_000);
    eventually("it has left", || peers(&world)[0]["connected"] == false);
    share.process.stop(Signal::INT).went_well();
    assert_eq!(peers(&world).len(), 1, "also when nothing is shared now");
    let text = world.run("owner", &["peers"]).went_well();
    assert!(text.text().contains(&id(&world, "friend")) && text.text().contains("away"), "{}", text.text());
}

#[test]
fn a_revoked_device_is_cut_off_at_once_and_does_not_come_back() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    fs::write(folder.join("file"), "content").unwrap();
    let share = world.share(&folder);
    let mut mount = world.mount(&share, &["--on-disconnect", "fail"]);
    world.run("friend", &["ls", &share.ticket]).went_well();
    assert!(peers(&world).iter().any(|peer| peer["connected"] == true && peer["id"] == id(&world, "reader")));

    let reader = id(&world, "reader");
    let ended = world.run("owner", &["peers", "revoke", &reader[..12]]).went_well();
    assert!(ended.stderr.contains("closed 1 of its connections"), "{}", ended.stderr);
    let ticket = ended.text().trim().to_owned();
    assert!(ticket.starts_with("farshore:") && ticket != share.ticket);
    // It tries to come back, and is told what it is told that has no business there.
    mount.process_mut().says("does not let us in any more");
    fs::write(folder.join("later"), "later").unwrap();
    fs::read(mount.path("file")).unwrap_err();
    assert!(peers(&world).iter().all(|peer| peer["id"] != reader));
    let refused = |ticket: &str| {
        world.run("reader", &["ls", ticket]).has_code(USAGE).only_says(&["does not accept this ticket"]);
    };
    refused(&share.ticket);
    // A stranger with the old ticket is as the revoked device would be that has made itself a new key.
    world.run("stranger", &["ls", &share.ticket]).has_code(USAGE);
    world.run("friend", &["ls", &share.ticket]).went_well();
    world.run("newcomer", &["ls", &ticket]).went_well();

    share.process.stop(Signal::INT).went_well();
    let again = world.share_at(&folder, &share.address, &[]);
    assert_eq!(again.ticket, ticket);
    refused(&share.ticket);
    assert!(!mount.path("later").exists(), "it has heard of nothing since");
    mount.stop();
}

#[test]
fn whom_to_revoke_must_be_clear() {
    let world = World::new();
    let share = world.share(&world.new_dir("folder"));
    world.run("friend", &["ls", &share.ticket]).went_well();
    share.process.stop(Signal::INT).went_well();
    for wrong in ["", "0000000000000000", "hello"] {
        world.run("owner", &["peers", "revoke", wrong]).has_code(USAGE).only_says(&["`farshore peers`"]);
    }
    assert_eq!(peers(&world).len(), 1);
    // Also when no process runs.
    world.run("owner", &["peers", "revoke", &id(&world, "friend")]).went_well();
    assert!(peers(&world).is_empty());
}
