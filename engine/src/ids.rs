//! Names of things. Each counter only goes up, so that no id ever means two things.

use core::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A request, numbered by the driver (the kernel's own numbers are reused, these are not).
    ReqId;
    /// An effect, numbered by the engine.
    EffectId;
    /// A file, directory or symlink in the tree, numbered by the engine. The root is [`Ino::ROOT`].
    Ino;
    /// An open handle on a file, numbered by the engine. Every open has its own.
    Handle;
    /// One version of one file's bytes, as far as they are here; numbered by the engine.
    ContentId;
    /// One connection that this side dialled to a peer, numbered by the engine.
    LinkId;
}

impl Ino {
    /// The root directory of the share, as FUSE numbers it.
    pub const ROOT: Ino = Ino(1);
}

/// A device: the SHA-256 of its public key. Ordered, so that tables keyed by it have an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    /// The first eight bytes: enough to tell peers apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peer(")?;
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
