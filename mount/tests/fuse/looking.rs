//! Names, attributes, listings.

use crate::fixture::{Fixture, eventually};
use crate::tree::Tree;
use farshore::fuse::{MountOptions, Owner};
use farshore_engine::Xattrs;
use farshore_engine::record::FileTime;
use rustix::fs::{getxattr, getxattr_query, listxattr};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn stat_shows_what_the_host_says() {
    let tree = Tree::new();
    let file = tree.file(1, b"file", vec![7; 1025]);
    let old = tree.file(1, b"old", Vec::new());
    tree.set_modified(old, FileTime { seconds: -2, nanos: 500_000_000 });
    tree.dir(1, b"dir");
    let options = MountOptions { owner: Owner { uid: 0, gid: 12345 }, ..MountOptions::default() };
    let Some(fixture) = Fixture::with(tree, options) else { return };

    let seen = fs::metadata(fixture.path("file")).unwrap();
    assert!(seen.is_file());
    assert_eq!((seen.ino(), seen.size(), seen.blocks(), seen.blksize()), (file, 1025, 3, 256 * 1024));
    assert_eq!((seen.uid(), seen.gid(), seen.nlink(), seen.permissions().mode() & 0o7777), (0, 12345, 1, 0o644));
    assert_eq!((seen.mtime(), seen.mtime_nsec()), (1_000_000_000 + i64::try_from(file).unwrap(), 123_456_789));
    let seen = fs::metadata(fixture.path("old")).unwrap();
    assert_eq!((seen.mtime(), seen.mtime_nsec(), seen.size()), (-2, 500_000_000, 0));
    assert!(fs::metadata(fixture.path("dir")).unwrap().is_dir());
    assert_eq!(fs::metadata(fixture.root()).unwrap().ino(), 1);
}

#[test]
fn the_kernel_asks_once_for_what_it_may_remember() {
    let tree = Tree::new();
    tree.file(1, b"file", vec![7; 10]);
    tree.link(1, b"link", b"file");
    let Some(fixture) = Fixture::new(tree) else { return };
    for _ in 0..5 {
        fs::metadata(fixture.path("file")).unwrap();
        assert_eq!(fs::metadata(fixture.path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_link(fixture.path("link")).unwrap().as_os_str(), "file");
    }
    assert_eq!(fixture.tree.count("lookup"), 3, "a file, a name that is not there, a symlink");
    assert_eq!(fixture.tree.count("readlink"), 1);
}

#[test]
fn symlinks_are_followed_and_names_need_not_be_utf8() {
    let tree = Tree::new();
    let dir = tree.dir(1, b"d\xffr");
    tree.file(dir, b"caf\xe9 \n\\", b"here".to_vec());
    tree.link(1, b"link", b"d\xffr/caf\xe9 \n\\");
    tree.link(1, b"dangling", b"nowhere");
    let Some(fixture) = Fixture::new(tree) else { return };
    assert_eq!(fs::read(fixture.path("link")).unwrap(), b"here");
    let strange = fixture.root().join(OsStr::from_bytes(b"d\xffr"));
    let names: Vec<_> = fs::read_dir(&strange).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [OsStr::from_bytes(b"caf\xe9 \n\\")]);
    assert_eq!(fs::read(strange.join(&names[0])).unwrap(), b"here");
    assert_eq!(fs::metadata(fixture.path("dangling")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs::symlink_metadata(fixture.path("dangling")).unwrap().size(), 7);
}

#[test]
fn a_name_that_is_too_long_says_so() {
    let tree = Tree::new();
    let longest = "x".repeat(255);
    tree.file(1, longest.as_bytes(), Vec::new());
    let Some(fixture) = Fixture::new(tree) else { return };
    assert!(fs::metadata(fixture.path(&longest)).is_ok());
    let error = fs::metadata(fixture.path(&"x".repeat(256))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
}

#[test]
fn each_of_ten_thousand_entries_is_listed_once() {
    let tree = Tree::new();
    let dir = tree.dir(1, b"dir");
    // Names of all lengths, so that the buffers end at every possible place.
    let name = |number: usize| format!("{number:05}{}", "x".repeat(number % 250));
    let inodes: Vec<u64> = (0..10_000).map(|number| tree.file(dir, name(number).as_bytes(), vec![0; number])).collect();
    let Some(fixture) = Fixture::new(tree) else { return };

    let mut seen = BTreeSet::new();
    for (index, entry) in fs::read_dir(fixture.path("dir")).unwrap().enumerate() {
        let entry = entry.unwrap();
        assert!(seen.insert(entry.file_name().into_string().unwrap()), "{:?} comes twice", entry.file_name());
        // Looking at some makes the kernel ask for attributes with the names from then on.
        if (4000..6000).contains(&index) {
            assert!(entry.metadata().unwrap().is_file());
        }
    }
    assert_eq!(seen, (0..10_000).map(name).collect());
    assert!(fixture.tree.count("readdir") > 0, "names alone");
    assert!(fixture.tree.count("readdirplus") > 1, "names with attributes");

    for (number, ino) in inodes.iter().enumerate().step_by(97) {
        let seen = fs::metadata(fixture.path("dir").join(name(number))).unwrap();
        assert_eq!((seen.ino(), seen.size()), (*ino, number as u64));
    }
    // The second listing comes from the kernel's memory.
    let asked = fixture.tree.count("readdir") + fixture.tree.count("readdirplus");
    assert_eq!(fs::read_dir(fixture.path("dir")).unwrap().count(), 10_000);
    assert_eq!(fixture.tree.count("readdir") + fixture.tree.count("readdirplus"), asked);

    // Whatever the kernel was told, and what did not fit any more, is forgotten in the end.
    for number in 0..10_000 {
        fixture.tree.inval_entry(dir, name(number).as_bytes());
    }
    for ino in inodes {
        eventually("a lookup was counted that the kernel never heard of", || fixture.tree.lookups(ino) == 0);
    }
}

/// Programs bring buffers of any size; what does not fit into one is neither lost nor counted.
#[test]
fn listings_fit_buffers_of_any_size() {
    for buffer_bytes in [300, 4096, 5000, 9001, 40_000, 200_000] {
        let tree = Tree::new();
        let names: BTreeSet<Vec<u8>> = (0..700)
            .map(|number: usize| {
                vec![b'x'; number % 200 + 2].into_iter().chain(format!("{number}").into_bytes()).collect()
            })
            .collect();
        let inodes: Vec<u64> = names.iter().map(|name| tree.file(1, name, Vec::new())).collect();
        let Some(fixture) = Fixture::new(tree) else { return };

        let dir = fs::File::open(fixture.root()).unwrap();
        let mut buffer = vec![MaybeUninit::uninit(); buffer_bytes];
        let mut listing = rustix::fs::RawDir::new(&dir, &mut buffer);
        let mut seen = BTreeSet::new();
        while let Some(entry) = listing.next() {
            let name = entry.unwrap().file_name().to_owned();
            // Looking at entries keeps the kernel asking for attributes with the names.
            assert!(rustix::fs::stat(fixture.root().join(OsStr::from_bytes(name.to_bytes()))).is_ok());
            assert!(seen.insert(name.into_bytes()), "an entry comes twice");
        }
        let mut expected = names.clone();
        expected.extend([b".".to_vec(), b"..".to_vec()]);
        assert!(seen == expected, "with a buffer of {buffer_bytes} bytes");
        assert!(fixture.tree.count("readdirplus") > 1, "names with attributes");

        names.iter().for_each(|name| fixture.tree.inval_entry(1, name));
        for ino in inodes {
            eventually("a lookup was counted that the kernel never heard of", || fixture.tree.lookups(ino) == 0);
        }
    }
}

#[test]
fn an_unlinked_inode_is_forgotten_as_often_as_it_was_looked_up() {
    let tree = Tree::new();
    let ino = tree.file(1, b"file", b"bytes".to_vec());
    let Some(fixture) = Fixture::new(tree) else { return };
    assert_eq!(fs::read(fixture.path("file")).unwrap(), b"bytes");
    fs::read_dir(fixture.root()).unwrap().for_each(|entry| assert!(entry.unwrap().metadata().is_ok()));
    assert!(fixture.tree.lookups(ino) > 0);
    fixture.tree.unlink(1, b"file");
    fixture.tree.inval_entry(1, b"file");
    eventually("the inode is never forgotten", || fixture.tree.lookups(ino) == 0);
    assert_eq!(fs::metadata(fixture.path("file")).unwrap_err().kind(), io::ErrorKind::NotFound);
    eventually("a handle stays open", || fixture.tree.open_handles() == 0);
}

#[test]
fn df_counts_in_one_unit() {
    let Some(fixture) = Fixture::new(Tree::new()) else { return };
    let seen = rustix::fs::statvfs(fixture.root()).unwrap();
    assert_eq!((seen.f_frsize, seen.f_bsize, seen.f_namemax), (4096, 4096, 255));
    assert_eq!((seen.f_blocks, seen.f_bfree, seen.f_bavail), (1000, 600, 500));
    assert_eq!((seen.f_files, seen.f_ffree), (70, 7));
}

#[test]
fn extended_attributes_are_those_that_the_host_says() {
    let tree = Tree::new();
    let file = tree.file(1, b"file", Vec::new());
    tree.set_xattrs(file, Xattrs::default().with(b"user.a", b"value").with(b"user.b", b""));
    tree.dir(1, b"dir");
    let Some(fixture) = Fixture::new(tree) else { return };
    let (path, mut buffer) = (fixture.path("file"), [0; 20]);
    assert_eq!(getxattr(&path, "user.a", &mut buffer), Ok(5));
    assert_eq!(&buffer[..5], b"value");
    assert_eq!(getxattr(&path, "user.a", &mut buffer[..4]), Err(Errno::RANGE));
    assert_eq!(getxattr_query(&path, "user.a"), Ok(5));
    assert_eq!(getxattr(&path, "user.b", &mut buffer), Ok(0));
    assert_eq!(getxattr(&path, "user.c", &mut buffer), Err(Errno::NODATA));
    assert_eq!(listxattr(&path, &mut buffer), Ok(14));
    assert_eq!(&buffer[..14], b"user.a\0user.b\0");
    assert_eq!(listxattr(fixture.path("dir"), &mut buffer), Ok(0));
    // Access control lists are each machine's own.
    assert_eq!(getxattr(&path, "system.posix_acl_access", &mut buffer), Err(Errno::OPNOTSUPP));
}

#[test]
fn writing_is_refused_by_the_kernel_and_by_us() {
    for read_only in [true, false] {
        let tree = Tree::new();
        tree.file(1, b"file", b"bytes".to_vec());
        tree.dir(1, b"dir");
        let options = MountOptions { read_only, ..MountOptions::default() };
        let Some(fixture) = Fixture::with(tree, options) else { return };
        let file = fixture.path("file");
        let attempts: [(&str, io::Result<()>); 10] = [
            ("write", fs::File::options().write(true).open(&file).map(drop)),
            ("append", fs::File::options().append(true).open(&file).map(drop)),
            ("create", fs::write(fixture.path("new"), b"x")),
            ("truncate", fs::File::create(&file).map(drop)),
            ("unlink", fs::remove_file(&file)),
            ("mkdir", fs::create_dir(fixture.path("new"))),
            ("rmdir", fs::remove_dir(fixture.path("dir"))),
            ("rename", fs::rename(&file, fixture.path("other"))),
            ("symlink", std::os::unix::fs::symlink("x", fixture.path("new"))),
            ("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o600))),
        ];
        for (what, result) in attempts {
            let error = result.expect_err(what);
            assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what} with read_only {read_only}: {error}");
        }
        let error = fs::hard_link(&file, fixture.path("new")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "link with read_only {read_only}");
        assert_eq!(fs::read(&file).unwrap(), b"bytes");
    }
}
