//! The mount of one's own folder is a file system like any other: what is done there is done in the folder, at once.

use crate::mapping::Mapping;
use crate::process::{Process, eventually, within};
use crate::status::only_process;
use crate::tree::{assert_same, difference, noise, set_modified};
use crate::world::{Share, World, skipped, take_down};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, RenameFlags, SeekFrom, XattrFlags, fallocate, flock,
    getxattr, listxattr, makedev, mknodat, removexattr, renameat_with, seek, setxattr, statat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long something that was done in the folder, past the mount, may take to show there.
const NOTICED: Duration = Duration::from_secs(5);

/// A folder that is shared and mounted by its owner.
pub(crate) struct Own {
    share: Option<Share>,
    root: PathBuf,
    folder: PathBuf,
    pub(crate) world: World,
}

impl Own {
    pub(crate) fn new() -> Option<Own> {
        Own::with(&[], |_| {})
    }

    /// With more on the command line, and a folder that `fill` has filled.
    pub(crate) fn with(more: &[&str], fill: impl FnOnce(&Path)) -> Option<Own> {
        let world = World::with_fuse()?;
        let (folder, root) = (world.new_dir("folder"), world.new_dir("own"));
        fill(&folder);
        let mut own = Own { share: None, root, folder, world };
        own.start(more);
        Some(own)
    }

    fn start(&mut self, more: &[&str]) {
        let mount = [&["--mount", self.root.to_str().unwrap()], more].concat();
        self.share = Some(self.world.share_at(&self.folder, "127.0.0.1:0", &mount));
    }

    pub(crate) fn share(&self) -> &Share {
        self.share.as_ref().unwrap()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// On the mount.
    pub(crate) fn here(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// In the folder.
    pub(crate) fn there(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// Both sides say the same of a path, down to the last attribute.
    #[track_caller]
    fn agrees(&self, below: &str) {
        let all = |path: PathBuf| {
            let seen = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
            seen.map(|seen| {
                let times = [(seen.st_mtime, seen.st_mtime_nsec), (seen.st_ctime, seen.st_ctime_nsec)];
                let owner = (seen.st_uid, seen.st_gid, seen.st_mode);
                ((seen.st_ino, seen.st_nlink, seen.st_size, seen.st_blocks, seen.st_rdev), owner, times)
            })
        };
        assert_eq!(all(self.here(below)), all(self.there(below)), "{below}");
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(mut self) {
        self.stop_share();
    }

    /// Kills it so that it can do nothing about it.
    pub(crate) fn kill(&mut self) {
        self.share.as_mut().unwrap().process.kill();
    }

    fn stop_share(&mut self) {
        let share = self.share.take().unwrap();
        share.process.stop(Signal::INT).went_well();
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.share.take());
        take_down(&self.root);
    }
}

/// Makes a file or replaces it.
fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn as_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped("needs root");
    }
    is_root
}

/// An error with the first thing of a folder that a peer does not show as it is.
pub(crate) fn shown(folder: &Path, peer: &Path) -> Result<(), String> {
    match difference(folder, peer) {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(found),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_is_done_on_the_mount_is_in_the_folder_at_once_and_seen_by_peers() {
    let Some(own) = Own::with(&[], |folder| put(&folder.join("before"), "before")) else { return };
    let peer = own.world.mount(own.share(), &[]);
    put(&own.here("file"), "text");
    own.agrees("file");
    assert_eq!(text(&own.there("file")), "text");
    fs::create_dir_all(own.here("dir/inner")).unwrap();
    own.agrees("dir/inner");
    own.agrees("dir");
    symlink("../file", own.here("dir/link")).unwrap();
    own.agrees("dir/link");
    assert_eq!(text(&own.here("dir/link")), "text");
    fs::hard_link(own.here("file"), own.here("dir/hard")).unwrap();
    own.agrees("dir/hard");
    own.agrees("file");
    assert_eq!(fs::metadata(own.here("file")).unwrap().nlink(), 2);
    fs::set_permissions(own.here("file"), PermissionsExt::from_mode(0o640)).unwrap();
    set_modified(&own.here("file"), -5, 7);
    own.agrees("file");
    assert_eq!(fs::metadata(own.there("file")).unwrap().mtime_nsec(), 7);
    OpenOptions::new().write(true).open(own.here("file")).unwrap().set_len(2).unwrap();
    own.agrees("file");
    fs::rename(own.here("dir"), own.here("moved")).unwrap();
    own.agrees("moved/hard");
    fs::rename(own.here("before"), own.here("moved/inner/after")).unwrap();
    own.agrees("moved/inner/after");
    fs::remove_file(own.here("moved/link")).unwrap();
    assert!(fs::symlink_metadata(own.there("moved/link")).is_err());
    own.agrees("moved");
    eventually("peers see it all", || shown(own.folder(), peer.root()));
    fs::remove_dir_all(own.here("moved")).unwrap();
    eventually("peers see that it is gone", || shown(own.folder(), peer.root()));
    assert_same(own.folder(), own.root());
    peer.stop();
    own.stop();
}

#[test]
fn an_open_file_outlives_its_name_and_its_successor() {
    let Some(own) = Own::new() else { return };
    put(&own.here("gone"), "gone");
    put(&own.here("over"), "over");
    let open = |name: &str| OpenOptions::new().read(true).write(true).open(own.here(name)).unwrap();
    let (gone, over) = (open("gone"), open("over"));
    fs::remove_file(own.here("gone")).unwrap();
    put(&own.here("new"), "new");
    fs::rename(own.here("new"), own.here("over")).unwrap();
    for (file, text) in [(&gone, "gone"), (&over, "over")] {
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all_at(b"!", 4).unwrap();
        let mut read = [0; 5];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, format!("{text}!").as_bytes());
        file.set_len(1).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1);
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(text(&own.here("over")), "new");
    let dir = own.here("dir");
    fs::create_dir(&dir).unwrap();
    let open_dir = File::open(&dir).unwrap();
    fs::remove_dir(&dir).unwrap();
    assert_eq!(open_dir.metadata().unwrap().nlink(), 0);
    drop((gone, over, open_dir));
    own.stop();
}

#[test]
fn a_rename_replaces_or_not_or_exchanges_as_it_is_told() {
    let Some(own) = Own::new() else { return };
    put(&own.here("a"), "a");
    put(&own.here("b"), "b");
    fs::create_dir_all(own.here("d/e")).unwrap();
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, own.here(from), CWD, own.here(to), flags);
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename("a", "c", RenameFlags::NOREPLACE), Ok(()));
    assert_eq!(rename("c", "b", RenameFlags::EXCHANGE), Ok(()));
    assert_eq!((text(&own.here("b")), text(&own.here("c"))), ("a".into(), "b".into()));
    assert_eq!(rename("c", "d", RenameFlags::EXCHANGE), Ok(()));
    assert_eq!(text(&own.here("d")), "b");
    own.agrees("c/e");
    assert_eq!(rename("c", "c/e/f", RenameFlags::empty()), Err(Errno::INVAL));
    assert_eq!(rename("b", "c", RenameFlags::empty()), Err(Errno::ISDIR));
    assert_eq!(rename("b", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    fs::hard_link(own.here("b"), own.here("same")).unwrap();
    assert_eq!(rename("b", "same", RenameFlags::empty()), Ok(()));
    own.agrees("b");
    own.agrees("same");
    assert_same(own.folder(), own.root());
    own.stop();
}

#[test]
fn what_cannot_be_done_fails_as_it_does_in_the_folder() {
    let Some(own) = Own::new() else { return };
    fs::create_dir_all(own.here("full/inner")).unwrap();
    put(&own.here("file"), "text");
    let code = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    for base in [own.root(), own.folder()] {
        let at = |below: &str| base.join(below);
        assert_eq!(code(fs::remove_dir(at("full"))), libc_number(Errno::NOTEMPTY));
        assert_eq!(code(fs::create_dir(at("full"))), libc_number(Errno::EXIST));
        assert_eq!(code(fs::remove_file(at("nothing"))), libc_number(Errno::NOENT));
        assert_eq!(code(fs::write(at("file/below"), "")), libc_number(Errno::NOTDIR));
        assert_eq!(code(fs::write(at(&"n".repeat(256)), "")), libc_number(Errno::NAMETOOLONG));
        let anew = OpenOptions::new().write(true).create_new(true).open(at("file")).map(drop);
        assert_eq!(code(anew), libc_number(Errno::EXIST));
        assert_eq!(code(File::open(at("file")).unwrap().set_len(0)), libc_number(Errno::INVAL));
    }
    let unnamed =
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::TMPFILE.bits() as i32).open(own.root());
    assert_eq!(code(unnamed.map(drop)), libc_number(Errno::OPNOTSUPP));
    let long = "n".repeat(255);
    put(&own.here(&long), "long");
    assert_eq!(text(&own.there(&long)), "long");
    own.stop();
}

fn libc_number(error: Errno) -> i32 {
    error.raw_os_error()
}

/// Bytes that a disk can take directly from a program.
#[repr(align(4096))]
struct Aligned([u8; 4096]);

#[test]
fn bytes_are_written_where_they_belong() {
    let Some(own) = Own::new() else { return };
    let path = own.here("file");
    let append = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut one, mut other) = (append(), append());
    for round in 0..50 {
        write!(one, "{round},").unwrap();
        write!(other, "{round};").unwrap();
    }
    let mut past = OpenOptions::new().append(true).open(own.there("file")).unwrap();
    past.write_all(b"past").unwrap();
    one.write_all(b"end").unwrap();
    let expected: String = (0..50).map(|round| format!("{round},{round};")).collect();
    assert_eq!(text(&own.there("file")), expected + "pastend");
    let direct =
        OpenOptions::new().read(true).write(true).custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32).open(&path);
    direct.unwrap().write_all_at(&Aligned([b'x'; 4096]).0, 4096).unwrap();
    assert_eq!(fs::read(own.there("file")).unwrap()[4096..], [b'x'; 4096]);
    let synced =
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::SYNC.bits() as i32).open(&path).unwrap();
    synced.write_all_at(b"0", 0).unwrap();
    synced.sync_all().unwrap();
    synced.sync_data().unwrap();
    File::open(own.root()).unwrap().sync_all().unwrap();
    // A new file in its place begins empty, and one that is cut when it is opened too.
    OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    own.agrees("file");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    own.stop();
}

#[test]
fn holes_stay_holes_and_large_files_are_large() {
    const FAR: u64 = (4 << 30) + 12_345;
    let Some(own) = Own::new() else { return };
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(own.here("large")).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"far", FAR).unwrap();
    assert_eq!(file.metadata().unwrap().len(), FAR + 3);
    own.agrees("large");
    assert!(fs::metadata(own.here("large")).unwrap().blocks() < 1_000);
    let data = seek(&file, SeekFrom::Data(1 << 20)).unwrap();
    assert!(data > 4 << 30 && data <= FAR, "data at {data}");
    let hole = seek(&file, SeekFrom::Hole(0)).unwrap();
    assert!((5..=1 << 20).contains(&hole), "a hole at {hole}");
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    own.agrees("large");
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4096).unwrap();
    let mut read = [1; 5];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, [0; 5]);
    let copy = OpenOptions::new().read(true).write(true).create_new(true).open(own.here("copy")).unwrap();
    let (mut from, mut to) = (FAR - 1, 10);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 100).unwrap();
    assert_eq!((copied, text(&own.there("copy")).as_str()), (4, "\0\0\0\0\0\0\0\0\0\0\0far"));
    drop((file, copy));
    own.stop();
}

#[test]
fn extended_attributes_are_kept_with_the_file() {
    let Some(own) = Own::new() else { return };
    put(&own.here("file"), "text");
    let (here, there) = (own.here("file"), own.there("file"));
    if setxattr(&there, "user.probe", b"1", XattrFlags::empty()).is_err() {
        return skipped("the disk keeps no extended attributes");
    }
    removexattr(&there, "user.probe").unwrap();
    let value = noise(1, 2_000);
    assert_eq!(setxattr(&here, "user.a", &value, XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(setxattr(&here, "user.a", &value, XattrFlags::CREATE), Ok(()));
    assert_eq!(setxattr(&here, "user.a", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&here, "user.b", b"", XattrFlags::empty()), Ok(()));
    let mut buffer = vec![0; 4_000];
    for path in [&here, &there] {
        assert_eq!(getxattr(path, "user.a", &mut buffer[..]), Ok(value.len()));
        assert_eq!(&buffer[..value.len()], value);
        let len = listxattr(path, &mut buffer[..]).unwrap();
        let mut names: Vec<&[u8]> = buffer[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        assert_eq!(names, [b"user.a", b"user.b"]);
    }
    assert_eq!(getxattr(&here, "user.a", &mut buffer[..10]), Err(Errno::RANGE));
    assert_eq!(removexattr(&here, "user.a"), Ok(()));
    assert_eq!(getxattr(&there, "user.a", &mut buffer[..]), Err(Errno::NODATA));
    let list = "system.posix_acl_access";
    assert_eq!(getxattr(&here, list, &mut buffer[..]), Err(Errno::OPNOTSUPP));
    // Where SELinux is at work the kernel answers by itself.
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        let label = "security.selinux";
        assert_eq!(getxattr(&here, label, &mut buffer[..]), Err(Errno::OPNOTSUPP));
        if as_root() {
            setxattr(&here, label, b"label", XattrFlags::CREATE).unwrap();
            assert_eq!([&here, &there].map(|path| getxattr(path, label, &mut buffer[..])), [Ok(5); 2]);
        }
    }
    own.stop();
}

#[test]
fn locks_hold_among_the_programs_of_this_machine() {
    let Some(own) = Own::new() else { return };
    put(&own.here("file"), "text");
    let open = || OpenOptions::new().read(true).write(true).open(own.here("file")).unwrap();
    let (one, other) = (open(), open());
    flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(flock(&other, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    flock(&one, FlockOperation::Unlock).unwrap();
    flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
    let lock = "
import fcntl, os, sys
file = open(sys.argv[1], 'r+')
fcntl.lockf(file, fcntl.LOCK_EX, 2, 1)
if os.fork() == 0:
    other = open(sys.argv[1], 'r+')
    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    try:
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2)
    except BlockingIOError:
        os._exit(7)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
";
    match Command::new("python3").args(["-c", lock]).arg(own.here("file")).status() {
        Ok(status) => assert_eq!(status.code(), Some(7)),
        Err(_) => skipped("no python3 to lock ranges with"),
    }
    drop((one, other));
    own.stop();
}

#[test]
fn a_mapped_file_is_written() {
    let map = "
import mmap, sys
with open(sys.argv[1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[4000:4200] = b'y' * 200
    mapped.flush()
    assert open(sys.argv[1], 'rb').read()[4000:4200] == b'y' * 200
";
    let Some(own) = Own::new() else { return };
    fs::write(own.here("file"), vec![b'x'; 10_000]).unwrap();
    match Command::new("python3").args(["-c", map]).arg(own.here("file")).status() {
        Ok(status) => assert!(status.success()),
        Err(_) => return skipped("no python3 to map files with"),
    }
    let expected = [vec![b'x'; 4000], vec![b'y'; 200], vec![b'x'; 5800]].concat();
    assert!(fs::read(own.there("file")).unwrap() == expected);
    own.stop();
}

#[test]
fn what_is_written_through_a_map_shows_when_the_map_is_gone() {
    let Some(own) = Own::with(&[], |folder| put(&folder.join("file"), &"x".repeat(10_000))) else { return };
    let peer = own.world.mount(own.share(), &[]);
    let file = OpenOptions::new().read(true).write(true).open(own.here("file")).unwrap();
    let mut mapping = Mapping::to_write(&file, 10_000);
    mapping.write(4000, b"while it is open");
    mapping.sync();
    within(NOTICED, "a peer sees what is written", || text(&peer.path("file"))[4000..].starts_with("while it is open"));
    drop(file);
    let changed = |path| fs::metadata(path).unwrap().modified().unwrap();
    let time_shows = || within(NOTICED, "the time shows", || changed(own.here("file")) == changed(own.there("file")));
    time_shows();
    mapping.write(4000, b"when it is shut!");
    mapping.sync();
    drop(mapping);
    within(NOTICED, "a peer sees what was written", || {
        text(&peer.path("file"))[4000..].starts_with("when it is shut!")
    });
    time_shows();
    peer.stop();
    own.stop();
}

/// Something else that is mounted on a folder, in layers. Dropping it unmounts.
struct Overlay(PathBuf);

impl Overlay {
    /// With its layers beside the folder; `None` if this kernel has none of that kind.
    fn mount(folder: &Path) -> Option<Overlay> {
        let layer = |name: &str| {
            let path = folder.with_file_name(name);
            fs::create_dir(&path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let options = format!("lowerdir={},upperdir={},workdir={}", layer("lower"), layer("upper"), layer("work"));
        let options = std::ffi::CString::new(options).unwrap();
        match mount("overlay", folder, "overlay", MountFlags::empty(), Some(options.as_c_str())) {
            Ok(()) => Some(Overlay(folder.to_owned())),
            Err(Errno::NODEV) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_folder_in_layers_is_read_and_written_through_the_process() {
    if !as_root() {
        return;
    }
    let mut overlay = None;
    let Some(mut own) = Own::with(&[], |folder| overlay = Overlay::mount(folder)) else { return };
    // It is taken down before what it is mounted on is removed, and when nobody shares it any more.
    let Some(overlay) = overlay else { return skipped("this kernel has no overlayfs") };
    let bytes = noise(1, 1_000_000);
    fs::write(own.here("file"), &bytes).unwrap();
    own.agrees("file");
    let file = OpenOptions::new().read(true).write(true).open(own.here("file")).unwrap();
    file.write_all_at(b"new", 500_000).unwrap();
    own.agrees("file");
    assert_eq!(fs::read(own.here("file")).unwrap()[499_990..500_003], [&bytes[499_990..500_000], b"new"].concat());
    assert_eq!(only_process(&own.world, "owner")["fuse"]["passthrough_opens"], 0);
    drop(file);
    own.stop_share();
    drop(overlay);
}

#[test]
fn pipes_sockets_and_devices_are_local_and_work() {
    let Some(own) = Own::with(&["-o", "dev"], |_| {}) else { return };
    mknodat(CWD, own.here("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    own.agrees("pipe");
    let pipe = own.here("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    put(&own.here("pipe"), "through");
    assert_eq!(reader.join().unwrap(), "through");
    let _listening = std::os::unix::net::UnixListener::bind(own.here("socket")).unwrap();
    assert!(std::os::unix::net::UnixStream::connect(own.here("socket")).is_ok());
    own.agrees("socket");
    if as_root() {
        mknodat(CWD, own.here("null"), FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(1, 3)).unwrap();
        own.agrees("null");
        put(&own.here("null"), "nothing");
        assert_eq!(text(&own.here("null")), "");
    }
    let peer = own.world.mount(own.share(), &[]);
    assert_eq!(fs::read_dir(peer.root()).unwrap().count(), 0, "they are not shared");
    peer.stop();
    own.stop();
}

#[test]
fn what_is_done_behind_the_mount_shows() {
    let Some(own) = Own::new() else { return };
    fs::create_dir(own.here("dir")).unwrap();
    for name in ["edited", "removed", "renamed", "replaced", "dir/leaf"] {
        put(&own.here(name), "before");
        assert_eq!(text(&own.here(name)), "before");
    }
    symlink("before", own.here("link")).unwrap();
    assert!(fs::metadata(own.here("new")).is_err() && fs::read_link(own.here("link")).is_ok());
    let open = File::open(own.here("edited")).unwrap();
    put(&own.there("edited"), "after the edit");
    fs::remove_file(own.there("removed")).unwrap();
    fs::rename(own.there("renamed"), own.there("elsewhere")).unwrap();
    fs::rename(own.there("dir"), own.there("moved")).unwrap();
    put(&own.there("new"), "new");
    put(&own.there("tmp"), "successor");
    fs::rename(own.there("tmp"), own.there("replaced")).unwrap();
    fs::remove_file(own.there("link")).unwrap();
    symlink("after", own.there("link")).unwrap();
    let shows = |name: &str, expected: &str| {
        let path = own.here(name);
        within(NOTICED, &format!("{name} shows"), || fs::read_to_string(&path).is_ok_and(|text| text == expected));
    };
    shows("edited", "after the edit");
    shows("elsewhere", "before");
    shows("moved/leaf", "before");
    shows("new", "new");
    shows("replaced", "successor");
    within(NOTICED, "the link's new target shows", || {
        fs::read_link(own.here("link")).is_ok_and(|to| to == Path::new("after"))
    });
    within(NOTICED, "what is gone is gone", || {
        ["removed", "renamed", "dir"].iter().all(|name| fs::symlink_metadata(own.here(name)).is_err())
    });
    let mut read = String::new();
    (&open).read_to_string(&mut read).unwrap();
    assert_eq!(read, "after the edit", "also through what was open");
    fs::set_permissions(own.there("new"), PermissionsExt::from_mode(0o600)).unwrap();
    within(NOTICED, "attributes show", || fs::metadata(own.here("new")).unwrap().mode() & 0o777 == 0o600);
    own.agrees("new");
    assert_same(own.folder(), own.root());
    drop(open);
    own.stop();
}

#[test]
fn a_directory_is_listed_while_it_changes() {
    const STAYING: usize = 5_000;
    let Some(own) = Own::with(&[], |folder| {
        fs::create_dir(folder.join("many")).unwrap();
        (0..STAYING).for_each(|number| put(&folder.join(format!("many/stays{number}")), ""));
    }) else {
        return;
    };
    let mut staying = 0;
    for (number, entry) in fs::read_dir(own.here("many")).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        staying += usize::from(name.starts_with("stays"));
        if number % 10 == 0 {
            put(&own.here(&format!("many/new{number}")), "");
            fs::remove_file(own.here(&format!("many/new{number}"))).unwrap();
        }
    }
    assert_eq!(staying, STAYING, "each is listed once");
    fs::remove_dir_all(own.here("many")).unwrap();
    assert!(fs::symlink_metadata(own.there("many")).is_err());
    own.stop();
}

#[test]
fn deep_trees_and_more_files_than_descriptors_are_reached() {
    let Some(mut own) = Own::with(&[], |_| {}) else { return };
    own.stop_share();
    // Few files may be open: what is known by name only has to be found again.
    let mut command = own.world.farshore("owner", &["share", "--listen", "127.0.0.1:0", "--mount"]);
    command.arg(own.root()).arg(own.folder());
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=128").arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(own.world.path(""));
    if Command::new("prlimit").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped("no prlimit");
    }
    let process = Process::start(limited);
    process.says("sharing ");
    let deep = (0..60).map(|number| format!("d{number}")).collect::<Vec<_>>().join("/");
    fs::create_dir_all(own.here(&deep)).unwrap();
    for number in 0..300 {
        fs::create_dir(own.here(&format!("dir{number}"))).unwrap();
        put(&own.here(&format!("dir{number}/file")), "text");
    }
    put(&own.here(&format!("{deep}/leaf")), "leaf");
    for number in 0..300 {
        fs::rename(own.here(&format!("dir{number}")), own.here(&format!("moved{number}"))).unwrap();
        fs::set_permissions(own.here(&format!("moved{number}/file")), PermissionsExt::from_mode(0o600)).unwrap();
    }
    assert_eq!(text(&own.here(&format!("{deep}/leaf"))), "leaf");
    assert_same(own.folder(), own.root());
    process.stop(Signal::INT).went_well();
}

#[test]
fn a_full_disk_is_told_as_it_is() {
    if !as_root() {
        return;
    }
    let Some(world) = World::with_fuse() else { return };
    let (folder, root) = (world.new_dir("small"), world.new_dir("own"));
    let size = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&folder).status();
    assert!(size.unwrap().success());
    let share = world.share_at(&folder, "127.0.0.1:0", &["--mount", root.to_str().unwrap()]);
    let error = fs::write(root.join("large"), vec![1; 1 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc_number(Errno::NOSPC)));
    fs::remove_file(root.join("large")).unwrap();
    // That it is closed the kernel tells us a little later than the program.
    eventually("there is room again", || fs::write(root.join("small"), "fits").is_ok());
    share.process.stop(Signal::INT).went_well();
    take_down(&root);
    take_down(&folder);
}

#[test]
fn what_is_made_belongs_to_who_made_it() {
    if !as_root() {
        return;
    }
    let Some(own) = Own::with(&["-o", "allow_other,suid"], |_| {}) else { return };
    fs::set_permissions(own.world.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(own.root(), PermissionsExt::from_mode(0o777)).unwrap();
    fs::create_dir(own.here("group")).unwrap();
    std::os::unix::fs::chown(own.here("group"), None, Some(7)).unwrap();
    fs::set_permissions(own.here("group"), PermissionsExt::from_mode(0o2777)).unwrap();
    let script = "umask 027; echo text > file; mkdir dir; ln -s file link; mkfifo pipe; echo text > group/file; \
                  mkdir group/dir; echo no > private 2>/dev/null && exit 1; exit 0";
    put(&own.here("private"), "mine");
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(own.root()).uid(65_534).gid(65_533);
    assert!(shell.status().unwrap().success());
    let seen = |name: &str| {
        own.agrees(name);
        let meta = fs::symlink_metadata(own.there(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(seen("file"), (65_534, 65_533, 0o640));
    assert_eq!(seen("dir"), (65_534, 65_533, 0o750));
    assert_eq!(seen("pipe"), (65_534, 65_533, 0o640));
    assert_eq!((seen("link").0, seen("link").1), (65_534, 65_533));
    assert_eq!(seen("group/file"), (65_534, 7, 0o640));
    assert_eq!(seen("group/dir"), (65_534, 7, 0o2750));
    // Whoever writes to a set-id program takes its rights from it.
    put(&own.here("tool"), "tool");
    fs::set_permissions(own.here("tool"), PermissionsExt::from_mode(0o6777)).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo more >> tool"]).current_dir(own.root()).uid(65_534).gid(65_533);
    assert!(shell.status().unwrap().success());
    assert_eq!(seen("tool").2, 0o777);
    own.stop();
}

#[test]
fn set_id_bits_go_when_others_write_in_whatever_way() {
    if !as_root() {
        return;
    }
    for more in ["allow_other,suid", "allow_other,suid,nopassthrough"] {
        let Some(own) = Own::with(&["-o", more], |_| {}) else { return };
        fs::set_permissions(own.world.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        let ways = [
            "echo more >> tool",
            "exec 3>> tool; echo more >&3; chmod 6777 tool; echo more >&3",
            "truncate -s 2 tool",
            ": > tool",
            "fallocate -l 10000 tool",
            "dd if=/dev/zero of=tool bs=4096 count=1 oflag=direct conv=notrunc 2> /dev/null",
            "cp other tool",
        ];
        let plain = own.world.new_dir("plain");
        fs::set_permissions(&plain, PermissionsExt::from_mode(0o755)).unwrap();
        for folder in [&*plain, own.root()] {
            put(&folder.join("other"), "other");
            for way in ways {
                let tool = folder.join("tool");
                put(&tool, "tool");
                std::os::unix::fs::chown(&tool, Some(65_534), Some(65_533)).unwrap();
                fs::set_permissions(&tool, PermissionsExt::from_mode(0o6777)).unwrap();
                // Who may keep them keeps them.
                OpenOptions::new().append(true).open(&tool).unwrap().write_all(b"more").unwrap();
                assert_eq!(fs::metadata(&tool).unwrap().mode() & 0o7777, 0o6777);
                let mut shell = Command::new("sh");
                shell.args(["-c", way]).current_dir(folder).uid(65_534).gid(65_533);
                assert!(shell.status().unwrap().success(), "{way}");
                assert_eq!(fs::metadata(&tool).unwrap().mode() & 0o7777, 0o777, "{more}: {way}");
                assert!(folder != own.root() || fs::metadata(own.there("tool")).unwrap().mode() & 0o7777 == 0o777);
                fs::remove_file(&tool).unwrap();
            }
        }
        own.stop();
    }
}

#[test]
fn who_may_not_open_a_file_any_more_cannot_at_once() {
    if !as_root() {
        return;
    }
    let Some(own) = Own::with(&["-o", "allow_other"], |_| {}) else { return };
    fs::set_permissions(own.world.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(own.root(), PermissionsExt::from_mode(0o755)).unwrap();
    let is_read = |name: &str| {
        let mut reader = Command::new("cat");
        reader.arg(own.here(name)).uid(65_534).gid(65_534).stdout(Stdio::null()).stderr(Stdio::null());
        reader.status().unwrap().success()
    };
    for number in 0..10 {
        let name = format!("file{number}");
        put(&own.here(&name), "text");
        assert!(is_read(&name));
        // Past the mount: the thread that watches takes its time.
        fs::set_permissions(own.there(&name), PermissionsExt::from_mode(0o600)).unwrap();
        assert!(!is_read(&name));
        fs::set_permissions(own.there(&name), PermissionsExt::from_mode(0o604)).unwrap();
        within(NOTICED, "it may be read again", || is_read(&name));
    }
    own.stop();
}

#[test]
fn a_mount_that_is_read_only_says_so_at_once() {
    for more in [&["-o", "ro"][..], &["--read-only"], &["--read-only", "-o", "rw,ro"]] {
        let Some(own) = Own::with(more, |folder| put(&folder.join("file"), "text")) else { return };
        let attempts = [
            fs::write(own.here("file"), "changed"),
            fs::write(own.here("new"), "new"),
            fs::create_dir(own.here("dir")),
            fs::remove_file(own.here("file")),
            fs::rename(own.here("file"), own.here("other")),
        ];
        for attempt in attempts {
            assert_eq!(attempt.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{more:?}");
        }
        assert_eq!(text(&own.here("file")), "text");
        own.stop();
    }
}

#[test]
fn the_owner_sees_also_what_is_not_offered() {
    let Some(own) = Own::with(&["--read-only", "-o", "rw"], |folder| put(&folder.join("secret"), "text")) else {
        return;
    };
    let peer = own.world.mount(own.share(), &[]);
    own.world.run("owner", &["unshare", own.there("secret").to_str().unwrap()]).went_well();
    eventually("peers do not see it", || fs::symlink_metadata(peer.path("secret")).is_err());
    assert_eq!(text(&own.here("secret")), "text");
    put(&own.here("secret"), "changed");
    assert_eq!(text(&own.there("secret")), "changed");
    peer.stop();
    own.stop();
}
