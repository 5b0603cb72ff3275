//! What is mounted where, as the kernel tells this process in `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What the kernel shows as the source of our mounts, and as their type after `fuse.`.
pub(super) const NAME: &str = "farshore";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its number, unique while it is mounted.
    pub(super) id: u64,
    /// The device number that its files have: major and minor.
    pub(super) device: (u32, u32),
    /// Where.
    pub(super) path: PathBuf,
    /// What it is: `ext4`, `fuse.farshore`.
    pub(super) kind: String,
    /// What it shows; for ours, [`NAME`].
    pub(super) source: String,
}

impl Mount {
    /// Whether it is one of ours, of any process.
    pub(super) fn is_farshore(&self) -> bool {
        self.kind.strip_prefix("fuse.") == Some(NAME) || (self.kind == "fuse" && self.source == NAME)
    }
}

/// The mount that is seen at `path`, which is absolute and without symlinks: the one mounted last.
pub(super) fn at(path: &Path) -> io::Result<Option<Mount>> {
    Ok(all()?.into_iter().rev().find(|mount| mount.path == path))
}

/// All mounts, in the order in which they were made.
pub(super) fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /path options tag:1 - kind source options`, with any number of tags. A line of another form is
/// left out.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = text(words.next()?).parse().ok()?;
    let device = text(words.nth(1)?);
    let (major, minor) = device.split_once(':')?;
    let path = unescape(words.nth(1)?);
    words.by_ref().find(|word| *word == b"-")?;
    Some(Mount {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        path: OsString::from_vec(path).into(),
        kind: text(&unescape(words.next()?)),
        source: text(&unescape(words.next()?)),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The kernel writes blanks, tabs, newlines and backslashes as a backslash and three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\').then(|| tail.get(..3).and_then(octal)).flatten();
        plain.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let value = digits.iter().try_fold(0u32, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')),
        _ => None,
    })?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_with_and_without_tags() {
        let mounts = parse(
            b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
              95 27 0:44 / /mnt/a\\040b\\134c\\011\\012 ro shared:1 master:2 - fuse.farshore farshore ro,user_id=0\n\
              rubbish\n",
        );
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].path, Path::new("/"));
        assert!(!mounts[0].is_farshore());
        assert_eq!((mounts[1].id, mounts[1].device), (95, (0, 44)));
        assert_eq!(mounts[1].path, Path::new("/mnt/a b\\c\t\n"));
        assert!(mounts[1].is_farshore());
    }

    #[test]
    fn only_our_own_name_is_ours() {
        let mount = |kind: &str, source: &str| {
            let line = format!("1 1 0:1 / /x ro - {kind} {source} ro");
            parse(line.as_bytes()).remove(0).is_farshore()
        };
        assert!(mount("fuse", "farshore"));
        assert!(mount("fuse.farshore", "anything"));
        assert!(!mount("fuse", "sshfs"));
        assert!(!mount("fuse.sshfs", "farshore"), "somebody else's file system with our name as its source");
        assert!(!mount("ext4", "farshore"));
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(b"a\\9\\04"), b"a\\9\\04");
        assert_eq!(unescape(b"\\777\\377"), b"\\777\xff");
    }

    #[test]
    fn the_root_is_always_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
