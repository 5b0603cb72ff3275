//! Folders to share, and whether two folders look the same to whoever walks them.

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, getxattr, listxattr, setxattr, utimensat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Extended attributes that travel, by their names.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a walk sees of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sight {
    File {
        mode: u32,
        modified: (i64, i64),
        size_bytes: u64,
        hash: u64,
        xattrs: Xattrs,
    },
    Dir {
        mode: u32,
        modified: (i64, i64),
        xattrs: Xattrs,
    },
    /// A directory that this user may not look into.
    ClosedDir {
        mode: u32,
    },
    Symlink {
        modified: (i64, i64),
        size_bytes: u64,
        target: Vec<u8>,
    },
    Other,
}

/// Numbers that look drawn, and are the same for the same seed.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 8) % end
    }
}

/// Bytes that no run of zeros and no shifted copy could stand in for.
pub(crate) fn noise(seed: u64, size_bytes: usize) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        bytes.extend(chance.next().to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

/// Writes a file of noise and returns its bytes.
pub(crate) fn write_noise(path: &Path, seed: u64, size_bytes: usize) -> Vec<u8> {
    let bytes = noise(seed, size_bytes);
    let mut file = File::create(path).unwrap();
    file.write_all(&bytes).unwrap();
    bytes
}

/// xxh3 of a whole file. It is an error if it ends elsewhere than it says.
pub(crate) fn hash_file(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer, mut size_bytes) = (Xxh3::new(), vec![0; 128 * 1024], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                size_bytes += count as u64;
            }
        }
    }
    match size_bytes == file.metadata()?.len() {
        true => Ok(hash.digest()),
        false => Err(io::Error::other(format!("it ended after {size_bytes} bytes"))),
    }
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// `root` and everything below it, by its path there.
pub(crate) fn walk(root: &Path) -> io::Result<BTreeMap<PathBuf, Sight>> {
    let mut found = BTreeMap::from([(PathBuf::new(), look(root)?)]);
    walk_into(root, Path::new(""), &mut found)?;
    Ok(found)
}

fn walk_into(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Sight>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let sight = look(&entry.path())?;
        let is_open_dir = matches!(sight, Sight::Dir { .. });
        found.insert(path.clone(), sight);
        if is_open_dir {
            walk_into(root, &path, found)?;
        }
    }
    Ok(())
}

/// Everything below a folder, and not the folder.
pub(crate) fn below(folder: &Path) -> BTreeMap<PathBuf, Sight> {
    let mut found = walk(folder).unwrap();
    found.remove(Path::new(""));
    found
}

/// What of a folder others are offered: everything below it that is not private there.
pub(crate) fn offered(folder: &Path) -> BTreeMap<PathBuf, Sight> {
    let mut found = below(folder);
    found.retain(|path, _| !path.starts_with(".farshore"));
    found
}

/// One entry, with its content.
pub(crate) fn look(path: &Path) -> io::Result<Sight> {
    let meta = fs::symlink_metadata(path)?;
    let (mode, modified) = (meta.mode() & 0o7777, (meta.mtime(), meta.mtime_nsec()));
    if meta.is_symlink() {
        let target = fs::read_link(path)?.into_os_string().into_vec();
        return Ok(Sight::Symlink { modified, size_bytes: meta.len(), target });
    }
    if meta.is_dir() {
        return match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Sight::ClosedDir { mode }),
            listed => listed.and_then(|_| Ok(Sight::Dir { mode, modified, xattrs: xattrs(path)? })),
        };
    }
    if meta.is_file() {
        return Ok(Sight::File {
            mode,
            modified,
            size_bytes: meta.len(),
            hash: hash_file(path)?,
            xattrs: xattrs(path)?,
        });
    }
    Ok(Sight::Other)
}

/// The extended attributes under `user.`; none where there are no such things.
pub(crate) fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let mut buffer = vec![0; 65_536];
    let len = match listxattr(path, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        listed => listed?,
    };
    let names: Vec<Vec<u8>> = buffer[..len].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let names = names.into_iter().filter(|name| name.starts_with(b"user."));
    let read = names.map(|name| {
        let len = getxattr(path, &name[..], &mut buffer[..])?;
        Ok((name, buffer[..len].to_vec()))
    });
    read.collect()
}

/// Gives a file or a directory an extended attribute, if the disk has such things.
pub(crate) fn mark(path: &Path, name: &str, value: &[u8]) -> bool {
    match setxattr(path, name, value, XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => false,
        set => set.map(|()| true).unwrap(),
    }
}

/// The first difference between a folder and what is shown of it. Pipes and sockets are not shown.
pub(crate) fn difference(shared: &Path, shown: &Path) -> io::Result<Option<String>> {
    let mut there = walk(shared)?;
    there.retain(|path, sight| *sight != Sight::Other && !path.starts_with(".farshore"));
    let here = walk(shown)?;
    let differs = |path: &&PathBuf| there.get(*path) != here.get(*path);
    let first = there.keys().chain(here.keys()).find(differs);
    Ok(first.map(|path| format!("{}: {:?} is shown as {:?}", path.display(), there.get(path), here.get(path))))
}

/// What a folder that several devices change holds for everybody. A walk may meet what is just being replaced: that is an
/// error, and to be tried again.
pub(crate) fn shared(folder: &Path) -> Result<BTreeMap<PathBuf, Sight>, String> {
    let mut found = walk(folder).map_err(|error| error.to_string())?;
    found.retain(|path, _| !path.starts_with(".farshore"));
    Ok(found)
}

/// An error with the first difference between two such folders.
pub(crate) fn shared_difference(one: &Path, other: &Path) -> Result<(), String> {
    let (one, other) = (shared(one)?, shared(other)?);
    match one.keys().chain(other.keys()).find(|path| one.get(*path) != other.get(*path)) {
        None => Ok(()),
        Some(path) => Err(format!("{}: {:?}, and {:?}", path.display(), one.get(path), other.get(path))),
    }
}

#[track_caller]
pub(crate) fn assert_same(shared: &Path, shown: &Path) {
    assert_eq!(difference(shared, shown).unwrap(), None);
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Sets the time of the last change, also of a symlink itself.
pub(crate) fn set_modified(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A folder with one of everything, the sizes of whose files lie around those of `units`. About twelve units long.
pub(crate) fn write_zoo(root: &Path, units: &[usize]) {
    fs::create_dir_all(root.join("deep/er/and deeper")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    let mut sizes = vec![0, 1, 4095, 4096, 4097];
    sizes.extend(units.iter().flat_map(|unit| [unit - 1, *unit, unit + 1]));
    for (size, seed) in sizes.into_iter().zip(1..) {
        write_noise(&root.join(format!("deep/er/{size}")), seed, size);
    }
    let strange = [b"not \xff\xfe utf-8".as_slice(), b"new\nline", b"  spaces  ", "日本語 é".as_bytes(), &[b'n'; 255]];
    for name in strange {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"deep/er/and deeper/\xf0\x28")), b"found").unwrap();
    symlink("deep/er/4096", root.join("a link")).unwrap();
    symlink("no/such/thing", root.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"../\xff"), root.join("empty/strange")).unwrap();
    symlink("deep", root.join("to a dir")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    for (name, mode) in [("secret", 0o400), ("program", 0o755), ("open", 0o666), ("sticky", 0o1644)] {
        fs::write(root.join(name), name).unwrap();
        set_mode(&root.join(name), mode);
    }
    mark(&root.join("program"), "user.mime_type", b"text/plain");
    mark(&root.join("empty"), "user.empty", b"");
    fs::create_dir(root.join("closed")).unwrap();
    fs::write(root.join("closed/inside"), "for those who may").unwrap();
    set_mode(&root.join("deep"), 0o750);
    set_modified(&root.join("secret"), 1, 1);
    set_modified(&root.join("program"), 1_234_567_890, 123_456_789);
    set_modified(&root.join("open"), 4_102_444_800, 999_999_999);
    set_modified(&root.join("a link"), 1_000_000_000, 7);
    set_modified(&root.join("empty"), 86_400, 42);
    set_mode(&root.join("closed"), 0o000);
}
