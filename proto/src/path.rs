//! Paths on the wire: lists of names.

use bytes::Bytes;
use farshore_engine::PeerFault;
use farshore_engine::path::{Name, PATH_MAX_BYTES, PathError, RelPath};

/// A path from its names. An empty list is the root.
pub(crate) fn parse(names: &[Bytes]) -> Result<RelPath, PeerFault> {
    // The sum first: what is too long is not copied. Each name also takes a separator, except the last.
    let len_bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    if len_bytes > PATH_MAX_BYTES + 1 {
        return Err(PathError::PathTooLong.into());
    }
    let names = names.iter().map(|name| Name::new(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(RelPath::new(names)?)
}

/// The names of a path.
pub(crate) fn encode(path: &RelPath) -> Vec<Bytes> {
    path.names().iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_a_name_holds_for_peers() {
        let parse =
            |names: &[&'static [u8]]| parse(&names.iter().map(|name| Bytes::from_static(name)).collect::<Vec<_>>());
        assert_eq!(parse(&[]), Ok(RelPath::ROOT));
        assert_eq!(parse(&[b"a", b".."]), Err(PeerFault::Path(PathError::DotName)));
        assert_eq!(parse(&[b"."]), Err(PeerFault::Path(PathError::DotName)));
        assert_eq!(parse(&[b"a", b""]), Err(PeerFault::Path(PathError::EmptyName)));
        assert_eq!(parse(&[b"a/b"]), Err(PeerFault::Path(PathError::Slash)));
        assert_eq!(parse(&[b"a\0"]), Err(PeerFault::Path(PathError::Nul)));
        assert_eq!(parse(&[&[b'x'; 256]]), Err(PeerFault::Path(PathError::NameTooLong)));
        assert!(parse(&[&[b'x'; 255][..]; 16]).is_ok());
        assert_eq!(parse(&[&[b'x'; 255][..]; 17]), Err(PeerFault::Path(PathError::PathTooLong)));
        assert!(parse(&[&b"x"[..]; 2048]).is_ok());
        assert_eq!(parse(&[&b"x"[..]; 2049]), Err(PeerFault::Path(PathError::PathTooLong)));
        assert_eq!(
            parse(&[&b""[..]; 5000]),
            Err(PeerFault::Path(PathError::PathTooLong)),
            "counted before it is copied"
        );
    }
}
