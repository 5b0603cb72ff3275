//! What is wrong with a machine is told, with what to do about it.

use crate::process::eventually;
use crate::world::{World, is_mounted};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

fn checks(text: &str, name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(text).unwrap();
    all["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name).cloned().collect()
}

#[test]
fn what_a_dead_process_left_is_found_and_can_be_mended_as_told() {
    let Some(world) = World::with_fuse() else { return };
    let share = world.share(&world.new_dir("folder"));
    let mut mount = world.mount(&share, &[]);
    let mnt = mount.root().to_owned();
    let about = |text: &str| {
        let mut found = checks(text, "mounts");
        found.retain(|check| check["found"].as_str().unwrap().contains(mnt.to_str().unwrap()));
        found
    };
    let alive = about(world.run("reader", &["doctor", "--json"]).went_well().text());
    assert_eq!(alive[0]["level"], "ok");
    mount.process_mut().kill();
    eventually("its mount is stale", || {
        let ended = world.run("reader", &["doctor", "--json"]).went_well();
        let stale = about(ended.text());
        assert!(is_mounted(&mnt));
        stale[0]["level"] == "warn" && stale[0]["advice"].as_str().unwrap().starts_with("farshore unmount")
    });
    world.run("reader", &["unmount", mnt.to_str().unwrap()]).went_well();
    assert!(about(world.run("reader", &["doctor", "--json"]).went_well().text()).is_empty());
}

#[test]
fn a_state_directory_that_cannot_be_used_is_bad() {
    let world = World::new();
    let well = world.run("reader", &["doctor", "--json"]);
    let state = checks(well.text(), "state directory");
    assert_eq!((&state[0]["level"], &state[0]["advice"]), (&"ok".into(), &Value::Null));
    fs::set_permissions(world.path("state of reader"), Permissions::from_mode(0o777)).unwrap();
    let ended = world.run("reader", &["doctor"]).has_code(1);
    assert!(ended.text().contains("BAD   state directory"), "{}", ended.text());
    assert!(ended.text().contains("chmod 700"), "{}", ended.text());
    assert!(ended.stderr.is_empty(), "all is said already: {}", ended.stderr);
}
