//! Two devices that change one share, each in a folder of its own: in the end both folders are the same, and nothing that was
//! done in either is lost.

use crate::process::{Process, eventually};
use crate::status::only_process;
use crate::tree::{noise, set_mode, set_modified, shared, shared_difference, write_noise, write_zoo};
use crate::world::{Mount, Share, World, files_below};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

/// An owner who lets others write, and a guest who does.
pub(crate) struct Both {
    pub(crate) mount: Option<Mount>,
    pub(crate) share: Option<Share>,
    /// Where the owner listens, once it has.
    address: String,
    pub(crate) folder: PathBuf,
    pub(crate) copy: PathBuf,
    pub(crate) world: World,
}

impl Both {
    /// The guest's folder is `copy`; it has everything that the owner has.
    pub(crate) fn new() -> Option<Both> {
        Both::with(|_| {}, |_| {})
    }

    /// With something in both folders already.
    pub(crate) fn with(fill: impl FnOnce(&Path), fill_copy: impl FnOnce(&Path)) -> Option<Both> {
        let world = World::with_fuse()?;
        let (folder, copy) = (world.new_dir("folder"), world.new_dir("copy"));
        fill(&folder);
        fill_copy(&copy);
        let mut both = Both { mount: None, share: None, address: "127.0.0.1:0".into(), folder, copy, world };
        both.start_owner();
        both.start_guest();
        Some(both)
    }

    pub(crate) fn start_owner(&mut self) {
        let share = self.world.share_at(&self.folder, &self.address, &[]);
        // The same one each time: the guest knows it from the ticket.
        self.address = share.address.clone();
        self.share = Some(share);
    }

    pub(crate) fn start_guest(&mut self) {
        let mount = self.world.join(self.share.as_ref().unwrap(), &self.options());
        self.mount = Some(mount);
        self.pin();
    }

    /// Files come when they are read, and here without being read.
    fn pin(&self) {
        let mut pin = self.world.farshore("reader", &["pin"]);
        pin.arg(self.world.path("mnt"));
        Process::run(pin).went_well();
    }

    fn options(&self) -> [&str; 2] {
        ["--store", self.copy.to_str().unwrap()]
    }

    pub(crate) fn stop_owner(&mut self) {
        self.share.take().unwrap().process.stop(Signal::INT).went_well();
    }

    pub(crate) fn stop_guest(&mut self) {
        self.mount.take().unwrap().stop();
    }

    /// In the owner's folder.
    pub(crate) fn theirs(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// In the guest's folder.
    pub(crate) fn ours(&self, below: &str) -> PathBuf {
        self.copy.join(below)
    }

    /// Waits until both folders are the same.
    #[track_caller]
    pub(crate) fn become_same(&self) {
        eventually("both folders are the same", || shared_difference(&self.folder, &self.copy));
    }

    /// The same, and all that was told of that has been dealt with: something that came after it has gone both ways.
    #[track_caller]
    pub(crate) fn come_to_rest(&self) {
        self.become_same();
        for (at, there) in [(&self.copy, &self.folder), (&self.folder, &self.copy)] {
            fs::write(at.join("last"), "last").unwrap();
            eventually("it is there", || there.join("last").exists());
            fs::remove_file(at.join("last")).unwrap();
            eventually("it is gone", || !there.join("last").exists());
        }
        self.become_same();
    }
}

pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The files of a folder that have lost their names in a conflict.
pub(crate) fn copies(folder: &Path) -> Vec<PathBuf> {
    let mut found = files_below(folder);
    found.retain(|file| file.to_string_lossy().contains(".conflict-"));
    found
}

#[test]
fn what_is_done_in_either_folder_is_done_in_the_other() {
    let fill = |folder: &Path| write_zoo(folder, &[512 << 10, 1 << 20]);
    let Some(both) = Both::with(fill, |copy| write_zoo(&copy.join("mine"), &[1 << 16])) else { return };
    both.become_same();
    for (side, folder) in [("theirs", &both.folder), ("ours", &both.copy)] {
        let at = |below: &str| folder.join(format!("{side}{below}"));
        fs::create_dir_all(at("/dir/inner")).unwrap();
        write_noise(&at("/dir/file"), 1, 700_000);
        set_modified(&at("/dir/file"), 1_234_567_890, 123_456_789);
        set_mode(&at("/dir/file"), 0o751);
        symlink("../dir/file", at("/dir/inner/link")).unwrap();
        both.become_same();
        fs::write(at("/dir/file"), "edited").unwrap();
        set_mode(&at("/dir/inner"), 0o711);
        fs::remove_file(at("/dir/inner/link")).unwrap();
        symlink("elsewhere", at("/dir/inner/link")).unwrap();
        both.become_same();
        fs::write(at("/dir/other"), "put in its place").unwrap();
        fs::rename(at("/dir/other"), at("/dir/file")).unwrap();
        both.become_same();
        fs::remove_dir_all(at("/dir")).unwrap();
        fs::write(at("/dir"), "a file now").unwrap();
        both.become_same();
    }
    assert!(copies(&both.folder).is_empty());
}

#[test]
fn a_directory_that_is_renamed_moves_no_bytes() {
    let fill = |folder: &Path| {
        fs::create_dir_all(folder.join("before/inner")).unwrap();
        (0..20).for_each(|number| _ = write_noise(&folder.join(format!("before/inner/{number}")), number, 5_000));
    };
    let Some(both) = Both::with(fill, |_| {}) else { return };
    both.become_same();
    for (from, to, at, there) in
        [("before", "between", &both.folder, &both.copy), ("between", "after", &both.copy, &both.folder)]
    {
        let inodes = |dir: &str| -> Vec<u64> {
            (0..20).map(|number| there.join(format!("{dir}/inner/{number}")).metadata().unwrap().ino()).collect()
        };
        both.come_to_rest();
        let before = inodes(from);
        fs::rename(at.join(from), at.join(to)).unwrap();
        both.become_same();
        assert_eq!(inodes(to), before, "the very same files");
    }
}

#[test]
fn a_third_device_has_what_the_others_do_and_they_have_what_it_does() {
    let Some(mut both) = Both::new() else { return };
    let third = both.world.new_dir("third copy");
    let more = ["--store", third.to_str().unwrap()];
    let ticket = both.share.as_ref().unwrap().ticket.clone();
    let visitor = both.world.join_as("visitor", &both.world.path("third"), &ticket, &more);
    let mut pin = both.world.farshore("visitor", &["pin"]);
    pin.arg(visitor.root());
    Process::run(pin).went_well();
    let folders = [both.folder.clone(), both.copy.clone(), third];
    let are_same = || {
        eventually("all folders are the same", || {
            shared_difference(&folders[0], &folders[1]).and_then(|()| shared_difference(&folders[1], &folders[2]))
        });
    };
    for (number, folder) in folders.iter().enumerate() {
        let at = |name: &str| folder.join(format!("{name} {number}"));
        fs::create_dir(at("dir")).unwrap();
        write_noise(&at("dir").join("file"), number as u64, 100_000);
        are_same();
        fs::rename(at("dir"), at("renamed")).unwrap();
        fs::write(at("renamed").join("file"), "edited").unwrap();
        are_same();
        assert!(!at("dir").exists());
    }
    // None of them knows what the others do meanwhile.
    both.share.as_mut().unwrap().process.kill();
    both.share = None;
    folders.iter().enumerate().for_each(|(number, at)| fs::write(at.join("file"), format!("by {number}")).unwrap());
    both.start_owner();
    are_same();
    let all: Vec<String> = files_below(&folders[2]).iter().map(|file| text(file)).collect();
    assert!((0..3).all(|number| all.contains(&format!("by {number}"))), "{all:?}");
    visitor.stop();
}

/// More than is done at once. If the time of a directory in which something is done for a peer were taken for a change, the
/// directory would live on.
#[test]
fn a_large_tree_that_is_renamed_or_removed_does_not_come_back() {
    let Some(both) = Both::new() else { return };
    for (at, there) in [(&both.copy, &both.folder), (&both.folder, &both.copy)] {
        for number in 0..1_000u64 {
            let dir = at.join(format!("before/{}", number % 20));
            fs::create_dir_all(&dir).unwrap();
            write_noise(&dir.join(number.to_string()), number, 500);
        }
        eventually("the last ones are there", || there.join("before/19/999").exists());
        fs::rename(at.join("before"), at.join("after")).unwrap();
        both.become_same();
        eventually("it has left its name", || !there.join("before").exists());
        both.become_same();
        assert!(!at.join("before").exists());
        fs::remove_dir_all(at.join("after")).unwrap();
        eventually("it is gone", || !there.join("after").exists());
        both.come_to_rest();
        assert!(!at.join("after").exists());
    }
}

/// What is published, made or set is seen by whoever watches the folder. If that were taken for a change, it would be told
/// back, and done again.
#[test]
fn what_is_done_for_a_peer_is_no_change_of_ones_own() {
    let Some(both) = Both::new() else { return };
    fs::create_dir(both.ours("dir")).unwrap();
    (0..50).for_each(|number| _ = write_noise(&both.ours(&format!("dir/{number}")), number, 3_000));
    both.become_same();
    let facts = |folder: &Path| -> Vec<(u64, i64, i64)> {
        let metas = files_below(&folder.join("dir")).into_iter().map(|file| file.metadata().unwrap());
        metas.map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec())).collect()
    };
    let made = both.ours("dir").metadata().unwrap().modified().unwrap();
    assert_eq!(both.theirs("dir").metadata().unwrap().modified().unwrap(), made);
    let before = (facts(&both.folder), facts(&both.copy));
    both.come_to_rest();
    assert_eq!((facts(&both.folder), facts(&both.copy)), before);
}

#[test]
fn what_both_changed_while_they_were_apart_lives_on_in_both() {
    let fill = |folder: &Path| {
        (0..20).for_each(|number| _ = write_noise(&folder.join(format!("file {number}.txt")), number, 2_000));
        fs::write(folder.join("ours to edit"), "before").unwrap();
        fs::write(folder.join("theirs to edit"), "before").unwrap();
    };
    let Some(mut both) = Both::with(fill, |_| {}) else { return };
    both.become_same();
    // The guest goes on: it remembers what it had.
    both.share.as_mut().unwrap().process.kill();
    both.share = None;
    for number in 0..20 {
        fs::write(both.theirs(&format!("file {number}.txt")), format!("theirs {number}")).unwrap();
        fs::write(both.ours(&format!("file {number}.txt")), format!("ours {number}")).unwrap();
    }
    fs::write(both.ours("ours to edit"), "after").unwrap();
    fs::write(both.theirs("theirs to edit"), "after").unwrap();
    fs::write(both.ours("new"), "ours").unwrap();
    both.start_owner();
    both.become_same();
    for folder in [&both.folder, &both.copy] {
        let all: Vec<String> = files_below(folder).iter().map(|file| text(file)).collect();
        for wanted in (0..20).flat_map(|number| [format!("theirs {number}"), format!("ours {number}")]) {
            assert!(all.contains(&wanted), "{wanted} is not in {}", folder.display());
        }
        assert!(copies(folder).len() >= 20);
        assert_eq!(text(&folder.join("new")), "ours");
    }
}

/// Nothing is remembered of the share but what both folders hold.
#[test]
fn who_begins_anew_finds_that_nothing_has_changed() {
    let fill = |folder: &Path| write_zoo(folder, &[512 << 10]);
    let Some(mut both) = Both::with(fill, |_| {}) else { return };
    both.become_same();
    let before = shared(&both.folder).unwrap();
    for round in 0..3 {
        let is_owner = round != 1;
        if round != 0 {
            both.stop_guest();
        }
        if is_owner {
            both.stop_owner();
            both.start_owner();
        }
        if round != 0 {
            both.start_guest();
        }
        let name = format!("round {round}");
        fs::write(both.ours(&name), "done").unwrap();
        eventually("it is there", || both.theirs(&name).exists());
        both.become_same();
        assert!(copies(&both.folder).is_empty(), "{round}: {:?}", copies(&both.folder));
        let mut now = shared(&both.folder).unwrap();
        now.retain(|path, _| before.contains_key(path) && path != Path::new(""));
        assert!(now.iter().all(|(path, sight)| before.get(path) == Some(sight)), "{round}");
    }
}

#[test]
fn what_is_done_while_nobody_runs_is_done_on_the_other_side_later() {
    let fill = |folder: &Path| {
        for name in ["kept", "edited here", "edited there", "removed here", "removed there", "renamed here"] {
            fs::write(folder.join(name), name).unwrap();
        }
        fs::create_dir_all(folder.join("dir/inner")).unwrap();
        fs::write(folder.join("dir/inner/file"), "inner").unwrap();
    };
    let Some(mut both) = Both::with(fill, |_| {}) else { return };
    both.come_to_rest();
    for round in 0..2 {
        both.stop_guest();
        both.stop_owner();
        // On both sides, and nobody sees it happen.
        match round {
            0 => {
                fs::write(both.ours("edited here"), "by the guest").unwrap();
                fs::write(both.theirs("edited there"), "by the owner").unwrap();
                fs::remove_file(both.ours("removed here")).unwrap();
                fs::remove_file(both.theirs("removed there")).unwrap();
                fs::rename(both.ours("renamed here"), both.ours("renamed")).unwrap();
                fs::write(both.theirs("made there"), "made").unwrap();
            }
            _ => fs::remove_dir_all(both.theirs("dir")).unwrap(),
        }
        both.start_owner();
        both.start_guest();
        both.come_to_rest();
        assert_eq!(text(&both.theirs("edited here")), "by the guest", "round {round}");
        assert_eq!(text(&both.ours("edited there")), "by the owner", "round {round}");
        assert_eq!(text(&both.theirs("renamed")), "renamed here", "round {round}");
        assert_eq!(text(&both.ours("made there")), "made", "round {round}");
        assert_eq!(text(&both.ours("kept")), "kept", "round {round}");
        for gone in ["removed here", "removed there", "renamed here"] {
            assert!(!both.ours(gone).exists() && !both.theirs(gone).exists(), "{gone} is back in round {round}");
        }
        assert!(copies(&both.folder).is_empty(), "{:?}", copies(&both.folder));
    }
    assert!(!both.ours("dir").exists(), "a directory is back");
}

#[test]
fn nothing_can_be_left_out_of_what_others_hold_too() {
    let Some(mut both) = Both::with(|folder| fs::write(folder.join("file"), "kept").unwrap(), |_| {}) else { return };
    both.become_same();
    let mut unshare = both.world.farshore("owner", &["unshare"]);
    unshare.arg(both.theirs("file"));
    let refused = Process::run(unshare);
    assert!(!refused.status.success() && refused.stderr.contains("the others hold it too"), "{refused:?}");
    assert_eq!(text(&both.ours("file")), "kept");
    both.stop_guest();
    both.stop_owner();
    // What was refused is not written down either, but what nobody refuses is.
    both.start_owner();
    both.stop_owner();
    let mut unshare = both.world.farshore("owner", &["unshare"]);
    unshare.arg(both.theirs("file"));
    Process::run(unshare).went_well();
    let mut share = both.world.farshore("owner", &["share", "--listen", "127.0.0.1:0"]);
    share.arg(&both.folder);
    let refused = Process::run(share);
    assert!(!refused.status.success() && refused.stderr.contains("farshore unshare --undo"), "{refused:?}");
}

#[test]
fn who_has_been_there_before_begins_while_the_owner_is_away() {
    let Some(mut both) = Both::with(|folder| fs::write(folder.join("file"), "theirs").unwrap(), |_| {}) else { return };
    both.become_same();
    let ticket = both.share.as_ref().unwrap().ticket.clone();
    both.stop_guest();
    both.stop_owner();
    both.mount = Some(both.world.join_as("reader", &both.world.path("mnt"), &ticket, &both.options()));
    both.mount.as_ref().unwrap().process().says("cannot be reached; showing what");
    assert_eq!(text(&both.world.path("mnt/file")), "theirs");
    fs::write(both.ours("made alone"), "ours").unwrap();
    eventually("it is shown", || text(&both.world.path("mnt/made alone")) == "ours");
    both.start_owner();
    both.become_same();
    // Elsewhere it was never.
    both.stop_guest();
    both.stop_owner();
    let other = both.world.new_dir("other copy");
    let mut command = both.world.farshore("reader", &["mount", &ticket, "--store"]);
    command.arg(other).arg(both.world.path("mnt"));
    Process::run(command).has_code(1).only_says(&["cannot reach the owner"]);
}

#[test]
fn whoever_is_killed_goes_on_where_it_was() {
    let Some(mut both) = Both::new() else { return };
    let mut expected = 0;
    for round in 0..6u64 {
        let at = if round % 2 == 0 { both.theirs("") } else { both.ours("") };
        let dir = at.join(format!("round {round}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..150u64 {
            write_noise(&dir.join(number.to_string()), round * 1_000 + number, 20_000);
        }
        expected += 150;
        let there = if round % 2 == 0 { both.ours("") } else { both.theirs("") };
        // In the middle of it.
        let seen = |folder: &Path| files_below(&folder.join(format!("round {round}"))).len();
        eventually("some are there", || seen(&there) > 10);
        if round % 3 == 0 {
            both.share.as_mut().unwrap().process.kill();
            both.share = None;
            both.start_owner();
        } else {
            both.mount.take().unwrap().kill_and_leave();
            crate::world::take_down(&both.world.path("mnt"));
            both.start_guest();
        }
    }
    both.become_same();
    let files = files_below(&both.folder);
    let shared = files.iter().filter(|file| !file.starts_with(both.theirs(".farshore"))).count();
    assert_eq!(shared, expected, "no more and no less");
    both.stop_guest();
    both.stop_owner();
    for folder in [&both.folder, &both.copy] {
        assert_eq!(files_below(&folder.join(".farshore/applying")), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_the_disk_has_no_room_for_comes_when_there_is_room() {
    let Some(world) = World::with_fuse() else { return };
    let small = world.new_dir("small");
    let made = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&small).status();
    if !made.is_ok_and(|status| status.success()) {
        return crate::world::skipped("this user may not mount a small disk");
    }
    let (folder, copy) = (world.new_dir("folder"), small.join("copy"));
    write_noise(&folder.join("large"), 1, 3 << 20);
    fs::create_dir(&copy).unwrap();
    write_noise(&small.join("ballast"), 2, 6 << 20);
    let mut both = Both { mount: None, share: None, address: "127.0.0.1:0".into(), folder, copy: copy.clone(), world };
    both.start_owner();
    both.start_guest();
    fs::write(both.theirs("small"), "small").unwrap();
    eventually("what there is room for is there", || text(&copy.join("small")) == "small");
    assert!(!copy.join("large").exists());
    fs::remove_file(small.join("ballast")).unwrap();
    both.become_same();
    both.stop_guest();
    crate::world::take_down(&small);
}

#[test]
fn a_share_that_is_not_writable_is_mounted_and_that_is_said() {
    let Some(world) = World::with_fuse() else { return };
    let (folder, copy) = (world.new_dir("folder"), world.new_dir("copy"));
    fs::write(folder.join("file"), "theirs").unwrap();
    let share = world.share_at(&folder, "127.0.0.1:0", &["--read-only"]);
    fs::write(copy.join("mine"), "mine").unwrap();
    let mount = world.join(&share, &["--store", copy.to_str().unwrap()]);
    mount.process().says("the owner shares this read-only");
    assert_eq!(text(&mount.path("file")), "theirs");
    assert!(!mount.path("mine").exists());
    mount.stop();
    assert_eq!(files_below(&folder), [folder.join("file")]);
}

#[test]
fn one_device_changes_a_share_once() {
    let Some(both) = Both::new() else { return };
    let share = both.share.as_ref().unwrap();
    let (second, other) = (both.world.new_dir("second"), both.world.new_dir("other copy"));
    let mut again = both.world.farshore("reader", &["mount", &share.ticket, "--store"]);
    again.arg(&other).arg(&second);
    let kept = both.copy.to_str().unwrap();
    Process::run(again).has_code(1).only_says(&["already", kept, "--read-only"]);
    // Another device may look at it, and hears of everybody's changes.
    let looking = both.world.mount_as("visitor", &second, &share.ticket, &[]);
    fs::write(both.ours("file"), "ours").unwrap();
    eventually("it is shown", || text(&looking.path("file")) == "ours");
    looking.stop();
    let mut own = both.world.farshore("owner", &["mount", &share.ticket]);
    own.arg(&second);
    Process::run(own).has_code(2).only_says(&["shares that folder itself", "--mount", "--read-only"]);
}

#[test]
fn the_private_place_is_nobody_elses() {
    let Some(both) = Both::new() else { return };
    fs::write(both.theirs(".farshore/secret"), "secret").unwrap();
    fs::write(both.ours(".farshore/secret of the guest"), "secret").unwrap();
    fs::create_dir(both.ours("dir")).unwrap();
    fs::write(both.ours("dir/.farshore"), "a name like any other").unwrap();
    both.become_same();
    assert!(both.theirs("dir/.farshore").exists());
    assert!(!both.ours(".farshore/secret").exists() && !both.theirs(".farshore/secret of the guest").exists());
    assert!(!both.world.path("mnt/.farshore").exists());
    fs::remove_file(both.theirs(".farshore/secret")).unwrap();
    fs::remove_file(both.ours(".farshore/secret of the guest")).unwrap();
}

#[test]
fn set_id_bits_are_each_devices_own() {
    let Some(both) = Both::new() else { return };
    fs::write(both.theirs("program"), "bytes").unwrap();
    set_mode(&both.theirs("program"), 0o4755);
    let mode = |path: PathBuf| path.metadata().map(|meta| meta.permissions().mode() & 0o7777).unwrap_or_default();
    eventually("it is there", || mode(both.ours("program")) == 0o755);
    set_mode(&both.ours("program"), 0o700);
    eventually("it is set", || mode(both.theirs("program")) == 0o4700);
}

/// The owner is not root, whom nothing would stop.
#[test]
fn directories_that_their_owner_may_not_write_in_are_changed_all_the_same() {
    const NOBODY: u32 = 65_534;
    let Some(world) = World::with_fuse() else { return };
    let (folder, copy) = (world.new_dir("folder"), world.new_dir("copy"));
    let mut command = world.farshore("owner", &["share", "--listen", "127.0.0.1:0"]);
    command.arg(&folder);
    if rustix::process::geteuid().is_root() {
        set_mode(&world.path(""), 0o711);
        for mine in [folder.clone(), world.path("state of owner"), world.path("tmp")] {
            chown(mine, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let process = Process::start(command);
    let ticket = process.first_line();
    let mut both = Both { mount: None, share: None, address: String::new(), folder, copy, world };
    both.mount = Some(both.world.join_as("reader", &both.world.path("mnt"), &ticket, &both.options()));
    fs::create_dir_all(both.ours("closed/inner")).unwrap();
    fs::write(both.ours("closed/inner/file"), "bytes").unwrap();
    fs::write(both.ours("closed/other"), "bytes").unwrap();
    ["closed/inner/file", "closed/inner", "closed"].iter().for_each(|name| set_mode(&both.ours(name), 0o555));
    both.become_same();
    fs::rename(both.ours("closed/inner/file"), both.ours("closed/renamed")).unwrap();
    fs::remove_dir(both.ours("closed/inner")).unwrap();
    fs::write(both.ours("closed/other"), "edited").unwrap();
    both.become_same();
    both.stop_guest();
    process.stop(Signal::INT).went_well();
    // For whoever removes all of it.
    [&both.folder, &both.copy].iter().for_each(|folder| set_mode(&folder.join("closed"), 0o755));
}

#[test]
fn a_large_file_is_published_as_it_came() {
    let Some(both) = Both::new() else { return };
    let bytes = noise(7, (5 << 20) + 17);
    fs::write(both.theirs("large"), &bytes).unwrap();
    both.become_same();
    fs::rename(both.ours("large"), both.ours("renamed")).unwrap();
    let mut edited = bytes;
    edited[3 << 20] ^= 1;
    fs::write(both.theirs("another"), &edited).unwrap();
    both.become_same();
    assert_eq!(files_below(&both.ours(".farshore/partial")), Vec::<PathBuf>::new(), "nothing is kept twice");
}

#[test]
fn of_a_large_file_that_was_edited_only_what_changed_is_fetched() {
    let Some(both) = Both::new() else { return };
    let bytes = noise(8, 6 << 20);
    fs::write(both.theirs("large"), &bytes).unwrap();
    both.become_same();
    let fetched = |device: &str| only_process(&both.world, device)["totals"]["fetched_bytes"].as_u64().unwrap();
    let before = fetched("reader");
    fs::File::options().write(true).open(both.theirs("large")).unwrap().write_all_at(b"edited", 3 << 20).unwrap();
    both.become_same();
    assert_eq!(fetched("reader") - before, 512 * 1024, "one chunk");
    // And in the other direction, where it has become longer, too.
    let before = fetched("owner");
    let ours = fs::File::options().write(true).open(both.ours("large")).unwrap();
    ours.write_all_at(b"edited", 0).unwrap();
    ours.write_all_at(b"longer", 6 << 20).unwrap();
    both.become_same();
    assert!(fetched("owner") - before < 2 << 20, "{} bytes", fetched("owner") - before);
}
