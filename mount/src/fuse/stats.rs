//! What a mount has done so far, counted by operation. Counting takes no lock and allocates nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the kernel asks for, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A name in a directory.
    Lookup,
    /// The attributes of an entry.
    Getattr,
    /// The target of a symlink.
    Readlink,
    /// A file is opened.
    Open,
    /// Bytes of a file.
    Read,
    /// A file is closed for the last time.
    Release,
    /// A listing.
    Readdir,
    /// A listing with attributes.
    Readdirplus,
    /// How full the disk is.
    Statfs,
    /// Attributes are set, the size among them.
    Setattr,
    /// A file is made and opened.
    Create,
    /// A directory, a symlink, a pipe or a device is made.
    Make,
    /// A file gets one more name.
    Link,
    /// A name is taken away.
    Remove,
    /// A name is changed.
    Rename,
    /// Bytes of a file are changed.
    Write,
    /// A file is closed by one of those who have it open.
    Flush,
    /// What was written is made to last.
    Fsync,
    /// Extended attributes.
    Xattr,
}

impl Operation {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Operation; 19] = [
        Operation::Lookup,
        Operation::Getattr,
        Operation::Readlink,
        Operation::Open,
        Operation::Read,
        Operation::Release,
        Operation::Readdir,
        Operation::Readdirplus,
        Operation::Statfs,
        Operation::Setattr,
        Operation::Create,
        Operation::Make,
        Operation::Link,
        Operation::Remove,
        Operation::Rename,
        Operation::Write,
        Operation::Flush,
        Operation::Fsync,
        Operation::Xattr,
    ];

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Operation::Lookup => "lookup",
            Operation::Getattr => "getattr",
            Operation::Readlink => "readlink",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Release => "release",
            Operation::Readdir => "readdir",
            Operation::Readdirplus => "readdirplus",
            Operation::Statfs => "statfs",
            Operation::Setattr => "setattr",
            Operation::Create => "create",
            Operation::Make => "make",
            Operation::Link => "link",
            Operation::Remove => "remove",
            Operation::Rename => "rename",
            Operation::Write => "write",
            Operation::Flush => "flush",
            Operation::Fsync => "fsync",
            Operation::Xattr => "xattr",
        }
    }
}

/// What was done for one kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationCount {
    /// Answers that were given.
    pub count: u64,
    /// Those of them that were errors. That a name is not there is an answer, and none of them.
    pub errors: u64,
    /// From the question to the answer, all of them together.
    pub time: Duration,
}

/// The counters of one mount.
#[derive(Debug, Default)]
pub struct Stats {
    operations: [Counter; Operation::ALL.len()],
    read_bytes: AtomicU64,
    passthrough_opens: AtomicU64,
    lost_replies: AtomicU64,
}

#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

impl Stats {
    /// What was done for one kind of operation. The three numbers may be a few answers apart.
    #[must_use]
    pub fn operation(&self, operation: Operation) -> OperationCount {
        let counter = &self.operations[operation as usize];
        OperationCount {
            count: counter.count.load(Ordering::Relaxed),
            errors: counter.errors.load(Ordering::Relaxed),
            time: Duration::from_nanos(counter.nanos.load(Ordering::Relaxed)),
        }
    }

    /// Bytes that programs have read through the mount. What the kernel had cached, or read by itself, is not among them.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Files that were opened for the kernel to read, and write, by itself.
    #[must_use]
    pub fn passthrough_opens(&self) -> u64 {
        self.passthrough_opens.load(Ordering::Relaxed)
    }

    /// Replies that were dropped without an answer. Any is a defect of the host.
    #[must_use]
    pub fn lost_replies(&self) -> u64 {
        self.lost_replies.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self, operation: Operation, after: Duration, is_error: bool) {
        let counter = &self.operations[operation as usize];
        counter.count.fetch_add(1, Ordering::Relaxed);
        // Five hundred years of waiting fit.
        counter.nanos.fetch_add(after.as_nanos() as u64, Ordering::Relaxed);
        if is_error {
            counter.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_read(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn has_passed_through(&self) {
        self.passthrough_opens.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) {
        self.lost_replies.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_own_counter_and_name() {
        let stats = Stats::default();
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            for time in 0..=number {
                stats.answered(operation, Duration::from_micros(2), time == 0);
            }
        }
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            let count = number as u64 + 1;
            let expected = OperationCount { count, errors: 1, time: Duration::from_micros(2 * count) };
            assert_eq!(stats.operation(operation), expected, "{}", operation.name());
        }
        let mut names = Operation::ALL.map(Operation::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
