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

fn inside(text: &[u8]) -> RelPath {
    RelPath::parse(text).unwrap()
}

#[test]
fn what_is_unshared_is_remembered_with_every_share_that_holds_it() {
    let place = Place::new();
    fs::create_dir_all(place.folder.join("films/new")).unwrap();
    let outer = place.state.share_for(&place.folder).unwrap();
    let inner = place.state.share_for(&place.folder.join("films")).unwrap();
    let found = place.state.unshare(&place.folder.join("films/new/../new/a")).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].share, &found[0].path), (outer.share, &inside(b"films/new/a")));
    assert_eq!((found[1].share, &found[1].path), (inner.share, &inside(b"new/a")));
    let strange = place.folder.join(std::ffi::OsStr::from_bytes(b"b\xff"));
    place.state.unshare(&strange).unwrap();
    place.state.unshare(&strange).unwrap();
    let again = State::open(Some(place.state.dir().to_owned())).unwrap();
    let unshared = BTreeSet::from([inside(b"b\xff"), inside(b"films/new/a")]);
    assert_eq!(again.unshared_of(outer.share).unwrap(), unshared);
    assert_eq!(again.renew_ticket(&place.folder).unwrap().unshared, unshared, "a new ticket changes nothing of it");
    again.share_again(&strange).unwrap();
    assert_eq!(again.share_for(&place.folder).unwrap().unshared, BTreeSet::from([inside(b"films/new/a")]));
    assert!(matches!(again.unshared_of(ShareId([9; 16])), Err(StateError::UnknownShare(_))));
}

#[test]
fn a_path_is_unshared_where_it_really_is() {
    let place = Place::new();
    fs::create_dir(place.folder.join("d")).unwrap();
    std::os::unix::fs::symlink(place.folder.join("d"), place.dir.path().join("way")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.folder.join("link")).unwrap();
    place.state.share_for(&place.folder).unwrap();
    let unshare = |path: PathBuf| place.state.unshare(&path).map(|found| found[0].path.clone());
    assert_eq!(unshare(place.dir.path().join("way/a")).unwrap(), inside(b"d/a"));
    assert_eq!(unshare(place.folder.join("link")).unwrap(), inside(b"link"), "a symlink is shared as what it is");
    assert_eq!(unshare(place.folder.join("not/yet/there")).unwrap(), inside(b"not/yet/there"));
}

#[test]
fn what_cannot_be_unshared_says_why() {
    let place = Place::new();
    let none = place.state.unshare(&place.folder.join("a")).unwrap_err();
    assert!(matches!(none, StateError::NoShareHolds { .. }), "{none}");
    place.state.share_for(&place.folder).unwrap();
    let whole = place.state.unshare(&place.folder).unwrap_err();
    assert!(matches!(whole, StateError::WholeShare { .. }), "{whole}");
    place.state.unshare(&place.folder.join("d")).unwrap();
    let below = place.state.share_again(&place.folder.join("d/a")).unwrap_err();
    assert!(below.to_string().contains(&format!("because {} is not", place.folder.join("d").display())), "{below}");
    let never = place.state.share_again(&place.folder.join("a")).unwrap_err();
    assert!(never.to_string().ends_with("was not unshared"), "{never}");
    let fill = |shares: &mut Vec<ShareEntry>| {
        shares[0].unshared = (0..UNSHARED_MAX).map(|number| inside(format!("{number}").as_bytes())).collect();
        Ok(())
    };
    place.state.update(fill).unwrap();
    let full = place.state.unshare(&place.folder.join("one more")).unwrap_err();
    assert!(matches!(full, StateError::TooManyUnshared { .. }), "{full}");
    place.state.unshare(&place.folder.join("7")).unwrap();
}

#[test]
fn a_damaged_list_of_unshared_paths_is_refused() {
    let place = Place::new();
    place.state.share_for(&place.folder).unwrap();
    place.state.unshare(&place.folder.join("secret")).unwrap();
    let good = fs::read_to_string(place.shares_file()).unwrap();
    for bad in ["\"\"", "\"/secret\"", "\"a/../b\"", "{\"hex\": \"2g\"}", "7"] {
        let text = good.replace("\"secret\"\n", &format!("{bad}\n"));
        assert_ne!(text, good);
        fs::write(place.shares_file(), text).unwrap();
        // Whoever went on without the list would offer what must not be offered.
        let error = place.state.share_for(&place.folder).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{bad}: {error}");
    }
}
