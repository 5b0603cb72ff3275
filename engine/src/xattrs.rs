//! Extended attributes that travel with a file or a directory: those that programs give it under `user.`.
//!
//! All others (access control lists, capabilities, labels) mean something only on the machine that they are on.

use crate::record::RecordError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the name of each of them begins with.
pub const XATTR_PREFIX: &[u8] = b"user.";

/// The longest name, in bytes, as the kernel has it.
pub const XATTR_NAME_MAX_BYTES: usize = 255;

/// The longest value, in bytes, as the kernel has it.
pub const XATTR_VALUE_MAX_BYTES: usize = 65_536;

/// The most that all of one file take, in bytes: names, values, and [`XATTR_COST_BYTES`] for each. That is the longest list of names
/// that the kernel gives out, and the longest value.
pub const XATTRS_MAX_BYTES: usize = 2 * 65_536;

/// What one counts for besides its name and its value, in bytes.
pub const XATTR_COST_BYTES: usize = 16;

/// The extended attributes of one path, in the order of their names. Nearly always there are none, and then they take no memory of
/// their own; otherwise copies share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xattrs(Option<Arc<Values>>);

/// Values by their names; at least one.
type Values = BTreeMap<Box<[u8]>, Box<[u8]>>;

impl Xattrs {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each name with its value, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().flat_map(|all| all.iter()).map(|(name, value)| (&**name, &**value))
    }

    /// The value under a name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.as_ref()?.get(name).map(|value| &**value)
    }

    /// The same with this value under this name.
    #[must_use]
    pub fn with(&self, name: &[u8], value: &[u8]) -> Xattrs {
        self.iter().chain([(name, value)]).collect()
    }

    /// The same without this name.
    #[must_use]
    pub fn without(&self, name: &[u8]) -> Xattrs {
        self.iter().filter(|(other, _)| *other != name).collect()
    }

    /// The names as `listxattr` gives them: each with a zero byte behind it.
    #[must_use]
    pub fn list(&self) -> Vec<u8> {
        self.iter().flat_map(|(name, _)| name.iter().copied().chain([0])).collect()
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// [`RecordError::XattrName`], [`RecordError::XattrValue`], [`RecordError::Xattrs`]: the first rule that is broken.
    pub fn check(&self) -> Result<(), RecordError> {
        let mut all_bytes = 0;
        for (name, value) in self.iter() {
            let is_named = name.len() > XATTR_PREFIX.len() && name.starts_with(XATTR_PREFIX);
            if !is_named || name.len() > XATTR_NAME_MAX_BYTES || name.contains(&0) {
                return Err(RecordError::XattrName);
            }
            if value.len() > XATTR_VALUE_MAX_BYTES {
                return Err(RecordError::XattrValue);
            }
            all_bytes += name.len() + value.len() + XATTR_COST_BYTES;
        }
        if all_bytes > XATTRS_MAX_BYTES { Err(RecordError::Xattrs) } else { Ok(()) }
    }
}

/// Of two of one name, the second counts.
impl<N: Into<Box<[u8]>>, V: Into<Box<[u8]>>> FromIterator<(N, V)> for Xattrs {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(all: I) -> Xattrs {
        let all: Values = all.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Xattrs((!all.is_empty()).then(|| Arc::new(all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        let of = |name: &[u8], value_bytes| Xattrs::default().with(name, &vec![7; value_bytes]);
        let long = |bytes| [XATTR_PREFIX, &vec![b'x'; bytes - XATTR_PREFIX.len()]].concat();
        assert_eq!(of(&long(XATTR_NAME_MAX_BYTES), XATTR_VALUE_MAX_BYTES).check(), Ok(()));
        for name in [&b"user."[..], b"security.x", b"", b"user.a\0b", &long(XATTR_NAME_MAX_BYTES + 1)] {
            assert_eq!(of(name, 0).check(), Err(RecordError::XattrName), "{}", name.escape_ascii());
        }
        assert_eq!(of(b"user.a", XATTR_VALUE_MAX_BYTES + 1).check(), Err(RecordError::XattrValue));
        let one_more = |bytes| of(b"user.a", XATTR_VALUE_MAX_BYTES).with(b"user.b", &vec![0; bytes]).check();
        let left_bytes = XATTRS_MAX_BYTES - XATTR_VALUE_MAX_BYTES - 2 * (b"user.a".len() + XATTR_COST_BYTES);
        assert_eq!(one_more(left_bytes), Ok(()));
        assert_eq!(one_more(left_bytes + 1), Err(RecordError::Xattrs));
    }

    #[test]
    fn what_was_set_is_there_until_it_is_removed() {
        let one = Xattrs::default().with(b"user.a", b"1");
        let two = one.with(b"user.b", b"").with(b"user.a", b"2");
        assert_eq!(
            (two.get(b"user.a"), two.get(b"user.b"), two.get(b"user.c")),
            (Some(&b"2"[..]), Some(&b""[..]), None)
        );
        assert_eq!(two.list(), b"user.a\0user.b\0");
        assert_eq!(two.without(b"user.b").without(b"user.a"), Xattrs::default());
        assert!(Xattrs::default().is_empty() && Xattrs::default() < one, "any go before none");
    }
}
