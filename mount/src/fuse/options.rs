//! How to mount: what `-o` says, and what the program decides.

use farshore_engine::chunk::CHUNK_SIZE;
use rustix::mount::MountFlags;

/// Who every entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// Whoever runs this process.
    #[must_use]
    pub fn current() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// From which size on it is worth while to let the kernel read a file by itself, in bytes. An open takes about 40 to 60 us
/// longer with it, since the kernel has to be told of a file, and told again when that is closed. With files of this size that
/// is made up for even where the page cache of the mount has all of it.
const PASSTHROUGH_FROM_BYTES: u64 = CHUNK_SIZE;

/// How to mount. The defaults are those of a user's mount: read-only, for this user alone, without devices and set-uid
/// programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// `ro`: the kernel refuses writes by itself.
    pub read_only: bool,
    /// `allow_other`: other users may look too, as far as permission bits let them.
    pub allow_other: bool,
    /// `dev`: device files work.
    pub dev: bool,
    /// `suid`: set-uid and set-gid bits work.
    pub suid: bool,
    /// `exec`: programs can be run.
    pub exec: bool,
    /// `atime`: times of access may be noted.
    pub atime: bool,
    /// Who every entry belongs to.
    pub owner: Owner,
    /// How many threads take requests from the kernel; at least one.
    pub threads: usize,
    /// Files of at least so many bytes that are all here are read by the kernel itself, if it can and this process may let
    /// it (Linux 6.9, root); `None`: all are read through this process.
    pub passthrough_from_bytes: Option<u64>,
    /// How far the kernel reads ahead of a program, in KiB; only root can set it.
    pub read_ahead_kib: u32,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            read_only: true,
            allow_other: false,
            dev: false,
            suid: false,
            exec: true,
            atime: true,
            owner: Owner::current(),
            threads: std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)),
            passthrough_from_bytes: Some(PASSTHROUGH_FROM_BYTES),
            // A chunk: with more, a fault somewhere in a mapped file would fetch chunks that nobody looks at.
            read_ahead_kib: 512,
        }
    }
}

/// An option of `-o` that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not one of ours.
    #[error(
        "the mount option `{0}` is not known; these are: ro, rw, allow_other, dev, nodev, suid, nosuid, exec, noexec, \
         atime, noatime, passthrough, nopassthrough"
    )]
    Unknown(String),
}

impl MountOptions {
    /// Obeys the comma-separated list after `-o`, as in mount(8): a later option wins over an earlier one.
    ///
    /// # Errors
    /// [`OptionError::Unknown`] for the first word that is not known; the ones before it are then set.
    pub fn apply(&mut self, list: &str) -> Result<(), OptionError> {
        for word in words_of(list) {
            match word {
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                "allow_other" => self.allow_other = true,
                "dev" => self.dev = true,
                "nodev" => self.dev = false,
                "suid" => self.suid = true,
                "nosuid" => self.suid = false,
                "exec" => self.exec = true,
                "noexec" => self.exec = false,
                "atime" => self.atime = true,
                "noatime" => self.atime = false,
                "passthrough" => self.passthrough_from_bytes = Some(PASSTHROUGH_FROM_BYTES),
                "nopassthrough" => self.passthrough_from_bytes = None,
                other => return Err(OptionError::Unknown(other.to_owned())),
            }
        }
        Ok(())
    }

    /// Whether a list after `-o` asks for a mount that can be written (`rw`) or for one that cannot (`ro`); the later word
    /// wins. `None` if it says neither.
    #[must_use]
    pub fn asks_to_write(list: &str) -> Option<bool> {
        words_of(list).filter(|word| matches!(*word, "rw" | "ro")).last().map(|word| word == "rw")
    }

    /// As mount(2) wants them.
    pub(super) fn flags(&self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NODEV, !self.dev);
        flags.set(MountFlags::NOSUID, !self.suid);
        flags.set(MountFlags::NOEXEC, !self.exec);
        flags.set(MountFlags::NOATIME, !self.atime);
        flags
    }

    /// The same, as fusermount3 wants them.
    pub(super) fn words(&self) -> Vec<&'static str> {
        let pick = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
        vec![
            pick(self.read_only, "ro", "rw"),
            pick(self.dev, "dev", "nodev"),
            pick(self.suid, "suid", "nosuid"),
            pick(self.exec, "exec", "noexec"),
            pick(self.atime, "atime", "noatime"),
        ]
    }

    /// What FUSE itself wants to know, besides the connection. Permissions are always checked by the kernel: nobody
    /// gets the rights of this process.
    pub(super) fn fuse_words(&self) -> Vec<&'static str> {
        let mut words = vec!["subtype=farshore", "default_permissions"];
        if self.allow_other {
            words.push("allow_other");
        }
        words
    }
}

fn words_of(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_win() {
        let mut options = MountOptions::default();
        options.apply("rw,noexec,,suid, nosuid ,dev,noatime").unwrap();
        assert!(!options.read_only && !options.exec && !options.suid && options.dev && !options.atime);
        assert_eq!(options.flags(), MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NOATIME);
        assert_eq!(options.words(), ["rw", "dev", "nosuid", "noexec", "noatime"]);
        options.apply("ro").unwrap();
        assert!(options.flags().contains(MountFlags::RDONLY));
        let asked = ["ro,rw", " rw , ro", "noexec,rw", "noexec"].map(MountOptions::asks_to_write);
        assert_eq!(asked, [Some(true), Some(false), Some(true), None]);
    }

    #[test]
    fn an_unknown_option_is_named() {
        let error = MountOptions::default().apply("ro,umask=022").unwrap_err();
        assert_eq!(error, OptionError::Unknown("umask=022".into()));
        assert!(error.to_string().contains("`umask=022`"));
    }

    #[test]
    fn others_are_let_in_only_when_asked_for_and_never_unchecked() {
        let mut options = MountOptions::default();
        assert_eq!(options.fuse_words(), ["subtype=farshore", "default_permissions"]);
        options.apply("allow_other").unwrap();
        assert_eq!(options.fuse_words(), ["subtype=farshore", "default_permissions", "allow_other"]);
    }
}
