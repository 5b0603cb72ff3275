//! The state directory, on a real disk.

use super::*;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Barrier};

/// A state directory and a folder to share, both gone at the end.
struct Place {
    dir: tempfile::TempDir,
    state: State,
    folder: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        Place { state: State::open(Some(dir.path().join("state"))).unwrap(), folder, dir }
    }

    fn shares_file(&self) -> PathBuf {
        self.state.dir().join(SHARES_FILE)
    }
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

#[test]
fn it_is_found_where_the_user_says_or_else_where_the_system_says() {
    let all = |name: &str| match name {
        "FARSHORE_STATE" => Some("/env".into()),
        "XDG_STATE_HOME" => Some("/xdg".into()),
        "HOME" => Some("/home/u".into()),
        _ => None,
    };
    let without =
        |missing: &'static [&'static str]| move |name: &str| if missing.contains(&name) { None } else { all(name) };
    assert_eq!(locate(Some("/given".into()), all).unwrap(), Path::new("/given"));
    assert_eq!(locate(None, all).unwrap(), Path::new("/env"));
    assert_eq!(locate(None, without(&["FARSHORE_STATE"])).unwrap(), Path::new("/xdg/farshore"));
    let home_only = without(&["FARSHORE_STATE", "XDG_STATE_HOME"]);
    assert_eq!(locate(None, home_only).unwrap(), Path::new("/home/u/.local/state/farshore"));
    let empty = |name: &str| if name == "HOME" { Some("/home/u".into()) } else { Some("".into()) };
    assert_eq!(locate(None, empty).unwrap(), Path::new("/home/u/.local/state/farshore"));
    let relative = |name: &str| all(name).filter(|_| name != "FARSHORE_STATE").map(|_| "relative".into());
    assert_eq!(locate(None, relative).unwrap(), Path::new("relative/.local/state/farshore"));
    let error = locate(None, |_| None).unwrap_err();
    assert!(error.to_string().contains("HOME") && error.to_string().contains("--state"), "{error}");
}

#[test]
fn what_it_holds_is_for_its_owner_only() {
    let place = Place::new();
    place.state.share_for(&place.folder).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(place.state.dir()), 0o700);
    assert_eq!(mode(&place.shares_file()), 0o600);
    assert_eq!(mode(&place.state.dir().join(LOCK_FILE)), 0o600);
    fs::set_permissions(place.state.dir(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = State::open(Some(place.state.dir().to_owned())).unwrap_err();
    assert!(matches!(error, StateError::Exposed { mode: 0o770, .. }), "{error}");
}

#[test]
fn a_share_keeps_its_id_secret_and_devices_over_restarts() {
    let place = Place::new();
    let first = place.state.share_for(&place.folder).unwrap();
    place.state.remember(first.share, peer(1)).unwrap();
    let again = State::open(Some(place.state.dir().to_owned())).unwrap();
    let second = again.share_for(&place.folder.join("../folder")).unwrap();
    assert_eq!((second.share, second.secret), (first.share, first.secret));
    assert_eq!(second.devices.keys().copied().collect::<Vec<_>>(), [peer(1)]);
    let now = seconds_now().unwrap();
    assert!(second.devices[&peer(1)].is_some_and(|seen| seen <= now && now - seen < 3600));
    assert!(again.is_trusted(first.share, peer(1)).unwrap());
    assert!(!again.is_trusted(first.share, peer(2)).unwrap());
    assert!(!again.is_trusted(ShareId([9; 16]), peer(1)).unwrap());
    let other = place.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let third = again.share_for(&other).unwrap();
    assert!(third.share != first.share && third.secret != first.secret && third.devices.is_empty());
    assert_eq!(again.shares().unwrap(), [second, third]);
}

#[test]
fn paths_need_not_be_utf8() {
    let place = Place::new();
    let odd = place.dir.path().join(std::ffi::OsStr::from_bytes(b"\xff odd"));
    fs::create_dir(&odd).unwrap();
    let entry = place.state.share_for(&odd).unwrap();
    assert_eq!(place.state.shares().unwrap(), std::slice::from_ref(&entry));
    assert_eq!(place.state.share_for(&odd).unwrap(), entry);
}

#[test]
fn only_a_folder_can_be_shared() {
    let place = Place::new();
    let file = place.dir.path().join("file");
    fs::write(&file, "").unwrap();
    for wrong in [file, place.dir.path().join("missing")] {
        let error = place.state.share_for(&wrong).unwrap_err();
        assert!(matches!(&error, StateError::Folder { path, .. } if *path == wrong), "{error}");
    }
    assert!(!place.shares_file().exists());
}

#[test]
fn the_door_opens_to_the_secret_once_and_to_the_device_ever_after() {
    let place = Place::new();
    let entry = place.state.share_for(&place.folder).unwrap();
    let admit = |asked, secret: &[u8], who| place.state.admit(entry.share, asked, secret, who);
    let wrong = [&[][..], &[0; 16], &entry.secret.0[..15], &[entry.secret.0, entry.secret.0].concat()];
    for secret in wrong {
        assert!(!admit(entry.share, secret, peer(1)));
    }
    assert!(!admit(ShareId([9; 16]), &entry.secret.0, peer(1)), "another share");
    assert!(!place.state.admit(ShareId([9; 16]), ShareId([9; 16]), &entry.secret.0, peer(1)), "no such share");
    assert!(!place.state.is_trusted(entry.share, peer(1)).unwrap(), "a refused device is not remembered");
    assert!(admit(entry.share, &entry.secret.0, peer(1)));
    assert!(place.state.is_trusted(entry.share, peer(1)).unwrap());
    assert!(admit(entry.share, &[], peer(1)), "it is known now");
    assert!(!admit(ShareId([9; 16]), &[], peer(1)), "but not for another share");
    assert!(!admit(entry.share, &[], peer(2)), "and nobody else is");
}

#[test]
fn a_renewed_ticket_revokes_the_old_ones_and_the_devices() {
    let place = Place::new();
    let old = place.state.share_for(&place.folder).unwrap();
    assert!(place.state.admit(old.share, old.share, &old.secret.0, peer(1)));
    // As another process would do it: nothing that the first one remembers may keep the door open.
    let new = State::open(Some(place.state.dir().to_owned())).unwrap().renew_ticket(&place.folder).unwrap();
    assert_eq!(new.share, old.share);
    assert_ne!(new.secret, old.secret);
    assert!(!place.state.admit(old.share, old.share, &old.secret.0, peer(1)));
    assert!(!place.state.admit(old.share, old.share, &old.secret.0, peer(2)));
    assert!(place.state.admit(old.share, old.share, &new.secret.0, peer(1)));
}

#[test]
fn a_revoked_device_cannot_come_back_and_the_others_stay() {
    let place = Place::new();
    let old = place.state.share_for(&place.folder).unwrap();
    for number in [1, 2] {
        assert!(place.state.admit(old.share, old.share, &old.secret.0, peer(number)));
    }
    let changed = place.state.revoke(peer(1)).unwrap();
    assert_eq!(changed, place.state.shares().unwrap());
    assert!(!place.state.admit(old.share, old.share, &old.secret.0, peer(1)));
    assert!(place.state.admit(old.share, old.share, &[], peer(2)));
    assert_eq!(place.state.revoke(peer(9)).unwrap(), []);
    assert_eq!(place.state.shares().unwrap(), changed);
}

#[test]
fn a_share_has_room_for_so_many_devices() {
    let place = Place::new();
    let mut entry = place.state.share_for(&place.folder).unwrap();
    entry.devices = (0..DEVICES_MAX)
        .map(|number| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(number as u64).to_le_bytes());
            (PeerId(id), None)
        })
        .collect();
    let known = *entry.devices.keys().next().unwrap();
    file::save(&place.shares_file(), &[entry.clone()]).unwrap();
    assert!(!place.state.admit(entry.share, entry.share, &entry.secret.0, peer(0xff)));
    assert!(place.state.admit(entry.share, entry.share, &[], known));
    place.state.remember(entry.share, known).unwrap();
    let error = place.state.remember(entry.share, peer(0xff)).unwrap_err();
    assert!(matches!(error, StateError::TooManyDevices { .. }), "{error}");
}

#[test]
fn many_at_once_lose_nothing() {
    let place = Place::new();
    let share = place.state.share_for(&place.folder).unwrap().share;
    let start = Arc::new(Barrier::new(8));
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let start = Arc::clone(&start);
            // Each has opened the directory by itself, as processes do.
            let state = State::open(Some(place.state.dir().to_owned())).unwrap();
            scope.spawn(move || {
                start.wait();
                (0..10).for_each(|number| state.remember(share, peer(thread * 10 + number)).unwrap());
            });
        }
    });
    let devices = place.state.share_for(&place.folder).unwrap().devices;
    assert_eq!(devices.into_keys().collect::<Vec<_>>(), (0..80).map(peer).collect::<Vec<_>>());
    let mut names: Vec<_> = fs::read_dir(place.state.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [SHARES_FILE, LOCK_FILE], "no temporary file is left behind");
}

#[test]
fn a_damaged_list_is_refused_and_left_alone() {
    let place = Place::new();
    let entry = place.state.share_for(&place.folder).unwrap();
    place.state.remember(entry.share, peer(1)).unwrap();
    let good = fs::read_to_string(place.shares_file()).unwrap();
    let share = entry.share.to_string();
    let once = good[good.find("    {").unwrap()..=good.rfind("    }").unwrap() + 4].to_owned();
    let damaged = [
        String::new(),
        "null".into(),
        good[..good.len() / 2].into(),
        format!("{good}{good}"),
        good.replace("\"version\": 1", "\"version\": 0"),
        good.replace("\"devices\"", "\"gadgets\""),
        good.replace("\"devices\"", "\"more\": 1, \"devices\""),
        good.replace(&share, &share[1..]),
        good.replace(&share, &share.replace(|_| true, "g")),
        good.replace(&peer(1).to_string(), "01"),
        good.replace(&format!("\"{}\"", entry.path.display()), "\"folder\""),
        good.replace(&format!("\"{}\"", entry.path.display()), "{\"hex\": \"2g\"}"),
        good.replace(&once, &format!("{once},\n{once}")),
    ];
    for (number, text) in damaged.iter().enumerate() {
        assert_ne!(*text, good, "number {number} is not damaged at all");
        fs::write(place.shares_file(), text).unwrap();
        let error = place.state.share_for(&place.folder).expect_err("it was taken");
        assert!(matches!(error, StateError::Damaged { .. }), "number {number}: {error}");
        assert!(error.to_string().contains(place.shares_file().to_str().unwrap()));
        assert!(place.state.remember(entry.share, peer(2)).is_err());
        assert!(place.state.renew_ticket(&place.folder).is_err());
        assert!(!place.state.admit(entry.share, entry.share, &entry.secret.0, peer(1)));
        assert_eq!(fs::read_to_string(place.shares_file()).unwrap(), *text);
    }
    fs::write(place.shares_file(), r#"{"version": 2, "anything": []}"#).unwrap();
    assert!(matches!(place.state.shares().unwrap_err(), StateError::Newer { .. }));
    fs::write(place.shares_file(), &good).unwrap();
    assert!(place.state.is_trusted(entry.share, peer(1)).unwrap());
}

#[test]
fn debugging_shows_no_secret() {
    let place = Place::new();
    let entry = place.state.share_for(&place.folder).unwrap();
    assert!(format!("{entry:?}").contains("Secret(..)"));
}

#[test]
fn a_device_of_which_only_the_id_was_kept_is_still_trusted() {
    let place = Place::new();
    let mut entry = place.state.share_for(&place.folder).unwrap();
    entry.devices = BTreeMap::from([(peer(1), None), (peer(2), Some(1_700_000_000))]);
    file::save(&place.shares_file(), &[entry.clone()]).unwrap();
    assert_eq!(place.state.shares().unwrap(), [entry]);
}
