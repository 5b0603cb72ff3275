//! Names and paths as the engine knows them: component lists that cannot leave the share.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest name of one file or directory, in bytes (`NAME_MAX` on Linux).
pub const NAME_MAX_BYTES: usize = 255;

/// The longest path, in bytes with its separators (Linux `PATH_MAX` without the closing NUL).
pub const PATH_MAX_BYTES: usize = 4095;

/// The longest name that needs no memory of its own, in bytes: with its length it is as large as three words.
const INLINE_BYTES: usize = 23;

/// Why a name or a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A component without any byte.
    #[error("a name is empty")]
    EmptyName,
    /// `.` or `..`, which would move instead of naming.
    #[error("a name is `.` or `..`")]
    DotName,
    /// A slash inside one component.
    #[error("a name contains a slash")]
    Slash,
    /// A NUL byte.
    #[error("a name contains a NUL byte")]
    Nul,
    /// More than [`NAME_MAX_BYTES`].
    #[error("a name is longer than {NAME_MAX_BYTES} bytes")]
    NameTooLong,
    /// More than [`PATH_MAX_BYTES`] in all.
    #[error("a path is longer than {PATH_MAX_BYTES} bytes")]
    PathTooLong,
    /// The root itself, where something inside it is meant.
    #[error("the path is empty")]
    EmptyPath,
}

/// The name of one directory entry: 1 to 255 bytes of any encoding, never `.`, `..`, a slash or a NUL.
#[derive(Clone)]
pub struct Name(Bytes);

/// Most names are short, and a tree has very many: those lie where the name is, and the others are shared.
#[derive(Clone)]
enum Bytes {
    Inline { len: Len, bytes: [u8; INLINE_BYTES] },
    Shared(Arc<[u8]>),
}

/// The length of a name that is not shared. Its type has few values: those that it has not tell the kinds of names apart, so
/// that no byte is needed for that.
#[derive(Clone, Copy)]
#[rustfmt::skip]
enum Len {
    L1 = 1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L11, L12, L13, L14, L15, L16, L17, L18, L19, L20, L21, L22, L23,
}

impl Len {
    #[rustfmt::skip]
    const ALL: [Len; INLINE_BYTES] = [
        Len::L1, Len::L2, Len::L3, Len::L4, Len::L5, Len::L6, Len::L7, Len::L8, Len::L9, Len::L10, Len::L11, Len::L12,
        Len::L13, Len::L14, Len::L15, Len::L16, Len::L17, Len::L18, Len::L19, Len::L20, Len::L21, Len::L22, Len::L23,
    ];
}

impl Name {
    /// Checks `bytes` and makes a name of them.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn new(bytes: &[u8]) -> Result<Name, PathError> {
        match bytes {
            [] => return Err(PathError::EmptyName),
            b"." | b".." => return Err(PathError::DotName),
            _ => {}
        }
        if bytes.len() > NAME_MAX_BYTES {
            return Err(PathError::NameTooLong);
        }
        if bytes.contains(&b'/') {
            return Err(PathError::Slash);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        Ok(Name(match Len::ALL.get(bytes.len() - 1) {
            Some(len) => {
                let mut inline = [0; INLINE_BYTES];
                inline[..bytes.len()].copy_from_slice(bytes);
                Bytes::Inline { len: *len, bytes: inline }
            }
            None => Bytes::Shared(bytes.into()),
        }))
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline { len, bytes } => &bytes[..*len as usize],
            Bytes::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl core::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A path below the root of the share: a list of names, empty for the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<Name>);

impl RelPath {
    /// The root of the share.
    pub const ROOT: RelPath = RelPath(Vec::new());

    /// A path from its names, from the root down.
    ///
    /// # Errors
    /// [`PathError::PathTooLong`] if it has more than [`PATH_MAX_BYTES`].
    pub fn new(names: Vec<Name>) -> Result<RelPath, PathError> {
        let path = RelPath(names);
        if path.len_bytes() > PATH_MAX_BYTES {
            return Err(PathError::PathTooLong);
        }
        Ok(path)
    }

    /// A path from text such as `docs/a.txt`. Empty text is the root.
    ///
    /// # Errors
    /// The rule that the text breaks: an absolute path has an empty first name.
    pub fn parse(bytes: &[u8]) -> Result<RelPath, PathError> {
        if bytes.is_empty() {
            return Ok(RelPath::ROOT);
        }
        let names = bytes.split(|byte| *byte == b'/').map(Name::new).collect::<Result<Vec<_>, _>>()?;
        RelPath::new(names)
    }

    /// This path and one more name.
    ///
    /// # Errors
    /// [`PathError::PathTooLong`] if that is more than [`PATH_MAX_BYTES`].
    pub fn join(&self, name: Name) -> Result<RelPath, PathError> {
        let mut names = self.0.clone();
        names.push(name);
        RelPath::new(names)
    }

    /// The names, from the root down.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this path and the last name; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(&[Name], &Name)> {
        self.0.split_last().map(|(name, parents)| (parents, name))
    }

    /// The directory that it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<RelPath> {
        let (_, parents) = self.0.split_last()?;
        Some(RelPath(parents.into()))
    }

    /// Whether `other` is this path or lies below it.
    #[must_use]
    pub fn is_prefix_of(&self, other: &RelPath) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Where this, which is `from` or below it, is when that is at `to`. `None` if that would be too long for a path.
    pub(crate) fn moved(&self, from: &RelPath, to: &RelPath) -> Option<RelPath> {
        let rest = &self.0[from.0.len()..];
        rest.iter().try_fold(to.clone(), |at, name| at.join(name.clone()).ok())
    }

    /// Bytes of the path written with separators.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.iter().map(|name| name.as_bytes().len() + 1).sum::<usize>().saturating_sub(1)
    }

    /// The path written with `/` between its names; empty for the root.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len_bytes());
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for RelPath {
    /// With `/` between the names; bytes that are not ASCII letters, digits or signs are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_move_or_hide_are_refused() {
        assert_eq!(Name::new(b""), Err(PathError::EmptyName));
        assert_eq!(Name::new(b"."), Err(PathError::DotName));
        assert_eq!(Name::new(b".."), Err(PathError::DotName));
        assert_eq!(Name::new(b"a/b"), Err(PathError::Slash));
        assert_eq!(Name::new(b"a\0b"), Err(PathError::Nul));
        assert_eq!(Name::new(&[b'x'; 256]), Err(PathError::NameTooLong));
        assert!(Name::new(&[b'x'; 255]).is_ok());
        assert!(Name::new(b"...").is_ok());
        assert!(Name::new(b"caf\xe9").is_ok(), "names need not be UTF-8");
    }

    #[test]
    fn names_are_the_same_whatever_their_length() {
        assert_eq!(size_of::<Option<(u64, Name)>>(), 32, "every entry of a tree has one");
        let lengths: Vec<usize> = (1..=INLINE_BYTES + 2).chain([NAME_MAX_BYTES]).collect();
        let mut names: Vec<Name> = lengths.iter().rev().map(|len| Name::new(&vec![b'x'; *len]).unwrap()).collect();
        names.sort();
        assert!(names.iter().zip(lengths).all(|(name, len)| name.as_bytes() == vec![b'x'; len]), "{names:?}");
        assert!(names.iter().all(|name| name.clone() == *name) && names[INLINE_BYTES] != names[INLINE_BYTES - 1]);
    }

    #[test]
    fn paths_keep_their_limit_in_bytes() {
        let name = Name::new(&[b'x'; 255]).unwrap();
        let fits = RelPath::new(vec![name.clone(); 16]).unwrap();
        assert_eq!(fits.len_bytes(), 4095);
        assert_eq!(fits.join(Name::new(b"y").unwrap()), Err(PathError::PathTooLong));
    }

    #[test]
    fn text_is_parsed_strictly() {
        assert_eq!(RelPath::parse(b"").unwrap(), RelPath::ROOT);
        assert_eq!(RelPath::parse(b"a/b").unwrap().names().len(), 2);
        assert_eq!(RelPath::parse(b"/a"), Err(PathError::EmptyName));
        assert_eq!(RelPath::parse(b"a//b"), Err(PathError::EmptyName));
        assert_eq!(RelPath::parse(b"a/"), Err(PathError::EmptyName));
        assert_eq!(RelPath::parse(b"a/../b"), Err(PathError::DotName));
        let path = RelPath::parse(b"a/b c/d").unwrap();
        assert_eq!(path.to_bytes(), b"a/b c/d");
        assert!(RelPath::parse(b"a").unwrap().is_prefix_of(&path));
        assert!(!RelPath::parse(b"a/b").unwrap().is_prefix_of(&path));
    }
}
