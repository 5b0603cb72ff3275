//! Real programs find on the mount what they find in the folder.

use crate::tree::{assert_same, difference, set_mode, write_zoo};
use crate::world::{World, skipped};
use farshore_engine::chunk::CHUNK_SIZE;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The size of the file that is mapped: a few chunks, and a bit.
const MAPPED: usize = 3 * CHUNK_SIZE as usize + 1;

/// Hashes a file through a memory map, backwards, in a program that knows nothing of us.
const MAP_AND_HASH: &str = "
import hashlib, mmap, sys
with open(sys.argv[1], 'rb') as file:
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        pages = [mapped[at:at + 5000] for at in reversed(range(0, len(mapped), 5000))]
        print(hashlib.sha256(b''.join(reversed(pages))).hexdigest())
";

/// What a program prints in a directory, its lines or records sorted. It must end well.
fn output(dir: &Path, separator: u8, words: &[&str]) -> Vec<Vec<u8>> {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    let mut lines: Vec<Vec<u8>> = output.stdout.split(|byte| *byte == separator).map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

#[test]
fn programs_agree() {
    let Some(world) = World::with_fuse() else { return };
    let folder = world.new_dir("folder");
    write_zoo(&folder, &[CHUNK_SIZE as usize, MAPPED - 1]);
    set_mode(&folder.join("closed"), 0o755);
    // The programs would see in the folder what is private there.
    let share = world.share_at(&folder, "127.0.0.1:0", &["--read-only"]);
    let mount = world.mount(&share, &[]);
    let agree = |separator: u8, words: &[&str]| {
        let (here, there) = (output(mount.root(), separator, words), output(&folder, separator, words));
        assert!(!there.concat().is_empty(), "{words:?} says nothing");
        assert_eq!(here, there, "{words:?}");
    };
    agree(0, &["find", ".", "!", "-type", "d", "-printf", "%p %y %m %s %n %T@ %l\\0"]);
    agree(0, &["find", ".", "-type", "d", "-printf", "%p %m %T@\\0"]);
    agree(b'\n', &["find", ".", "-type", "f", "-size", "+100k"]);
    agree(0, &["find", ".", "-type", "f", "-exec", "sha256sum", "-z", "{}", "+"]);
    agree(0, &["find", ".", "-type", "f", "-exec", "du", "-b0", "{}", "+"]);
    agree(0, &["grep", "-rlZ", "for those", "."]);
    agree(b'\n', &["ls", "-R", "-1", "."]);
    agree(b'\n', &["wc", "-c", "deep/er/4097", "secret", "program"]);
    agree(b'\n', &["tail", "-c", "100", "open"]);
    assert!(output(mount.root(), b'\n', &["ls", "-lR", "."]).len() > 20);
    let bytes: u64 = {
        let said = output(mount.root(), b'\n', &["du", "-s", "-B1", "."]);
        std::str::from_utf8(said.last().unwrap()).unwrap().split('\t').next().unwrap().parse().unwrap()
    };
    assert!(bytes > 4 * CHUNK_SIZE, "du sees {bytes} bytes only");
    assert!(output(mount.root(), b'\n', &["df", "-P", "."]).len() > 2);
    let same = |words: &[&str]| drop(output(&world.path(""), b'\n', words));
    same(&["diff", "-r", "--no-dereference", "folder", "mnt"]);
    same(&["cmp", "folder/deep/er/4097", "mnt/deep/er/4097"]);
    same(&["cp", "-a", "mnt", "copy"]);
    assert_eq!(difference(&folder, &world.path("copy")).unwrap(), None);
    fs::create_dir(world.path("unpacked")).unwrap();
    same(&["sh", "-c", "tar -C mnt -cf - . | tar --warning=no-timestamp -C unpacked -xpf -"]);
    assert_same(mount.root(), &world.path("copy"));
    same(&["diff", "-r", "--no-dereference", "folder", "unpacked"]);
    same(&["dd", "if=mnt/deep/er/4097", "of=part", "bs=1000", "skip=2", "count=1", "status=none"]);
    assert_eq!(fs::read(world.path("part")).unwrap(), fs::read(folder.join("deep/er/4097")).unwrap()[2000..3000]);
    mount.stop();
}

#[test]
fn a_mapped_file_reads_right() {
    let Some(world) = World::with_fuse() else { return };
    if !Command::new("python3").args(["-c", "import mmap"]).status().is_ok_and(|status| status.success()) {
        return skipped("no python3 to map files with");
    }
    let folder = world.new_dir("folder");
    crate::tree::write_noise(&folder.join("mapped"), 1, MAPPED);
    let share = world.share(&folder);
    let mount = world.mount(&share, &[]);
    let mapped = output(mount.root(), b'\n', &["python3", "-c", MAP_AND_HASH, "mapped"]);
    let summed = output(&folder, b'\n', &["sha256sum", "mapped"]);
    assert!(summed.last().unwrap().starts_with(mapped.last().unwrap()));
    mount.stop();
}
