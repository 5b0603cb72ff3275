//! Which bytes: what tells one version of one file from every other, here and after a restart.

use crate::ids::PeerId;
use crate::record::{FileTime, Stamp};
use core::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// Which bytes are meant. All of it has to match: a file of the same size is not the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentIdentity {
    /// The device that owns the file and named its bytes.
    pub owner: PeerId,
    /// The owner's name for this version of the bytes.
    pub stamp: Stamp,
    /// Bytes of the file, at most [`crate::chunk::MAX_FILE_BYTES`].
    pub size_bytes: u64,
    /// When the owner's file was last modified.
    pub modified: FileTime,
}

impl ContentIdentity {
    /// A short name for it, which a store can give to a file. Two identities that differ have different names, but for
    /// an accident of 2^-128; what is stored under a name says of which identity it is, and that is compared.
    #[must_use]
    pub fn key(&self) -> ContentKey {
        let mut bytes = [0; 60];
        bytes[0..32].copy_from_slice(&self.owner.0);
        bytes[32..40].copy_from_slice(&self.stamp.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.modified.seconds.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.modified.nanos.to_le_bytes());
        ContentKey(xxh3_128(&bytes))
    }
}

/// A short name for a [`ContentIdentity`], the same after a restart. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(pub u128);

impl ContentKey {
    /// Reads what [`fmt::Display`] writes: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<ContentKey> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(ContentKey)
    }
}

impl fmt::Display for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_makes_another_key_and_a_key_reads_back() {
        let one = ContentIdentity {
            owner: PeerId([7; 32]),
            stamp: Stamp(3),
            size_bytes: 4096,
            modified: FileTime { seconds: -2, nanos: 5 },
        };
        let modified = |seconds, nanos| FileTime { seconds, nanos };
        let all = [
            one,
            ContentIdentity { owner: PeerId([8; 32]), ..one },
            ContentIdentity { stamp: Stamp(4), ..one },
            ContentIdentity { size_bytes: 4097, ..one },
            ContentIdentity { modified: modified(-1, 5), ..one },
            ContentIdentity { modified: modified(-2, 6), ..one },
        ];
        let mut keys: Vec<ContentKey> = all.iter().map(ContentIdentity::key).collect();
        for key in &keys {
            assert_eq!(ContentKey::parse(&key.to_string()), Some(*key));
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn only_a_key_reads_as_one() {
        for text in ["", "12", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"+".repeat(32), &"é".repeat(16)] {
            assert_eq!(ContentKey::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_the_same_in_every_life_of_the_program() {
        let identity = ContentIdentity {
            owner: PeerId([1; 32]),
            stamp: Stamp(2),
            size_bytes: 3,
            modified: FileTime { seconds: 4, nanos: 5 },
        };
        assert_eq!(identity.key().to_string(), "34f614cca7137ce86e4d6c294eccfd20");
    }
}
