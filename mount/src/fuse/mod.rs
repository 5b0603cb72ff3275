//! The kernel's side of a mount: its calls become requests to a [`Host`], and answers go back.
//!
//! Nothing is decided here about files or peers. This module knows what the Linux kernel expects of a file system:
//! how calls and answers look, what it may cache and for how long, how to take that back, and how a mount begins and
//! ends. A mount of a host is read-only.

pub(crate) mod attr;
mod device;
mod directory;
mod errno;
mod error;
pub(crate) mod filesystem;
mod host;
mod mountinfo;
mod mountpoint;
mod notifier;
mod options;
pub(crate) mod passthrough;
pub(crate) mod pending;
mod probe;
mod session;
mod stats;

pub(crate) use errno::errno;
pub use error::MountError;
pub use host::{Answer, Host, Readable, StatFs};
pub use mountpoint::{prepare, unmount};
pub use notifier::{Invalidation, Notifier};
pub use options::{MountOptions, OptionError, Owner};
pub use probe::{Health, Probed, helper_version, mountpoints, open_device, probe_mounts};
pub use session::{Ended, Mounted};
pub use stats::{Operation, OperationCount, Stats};
