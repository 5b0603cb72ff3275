//! What the files in the private place of a store are called.

use farshore_engine::ContentKey;
use farshore_engine::sidecar::{SIDECAR_SUFFIX, bitmap_path};
use std::path::Path;

/// What the name of a sidecar ends with while it is written.
const NEW_SUFFIX: &str = ".new";

/// What the name of a second sidecar ends with, behind that of the first.
const SOON_SUFFIX: &str = ".soon";

/// A file of the store, by its name. Anything else there is somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The bytes of a content.
    Partial(ContentKey),
    /// What is known of them.
    Sidecar(ContentKey),
    /// What was known of them between two saves.
    Soon(ContentKey),
    /// What nobody goes on with: a sidecar that was being written, the second one of a content, or a content of a version
    /// of the store that could not go on with any.
    Leftover,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Kind> {
        if let Some(key) = ContentKey::parse(name) {
            return Some(Kind::Partial(key));
        }
        let sidecar = |name: &str| {
            let (name, is_soon) = name.strip_suffix(SOON_SUFFIX).map_or((name, false), |rest| (rest, true));
            let key = ContentKey::parse(name.strip_suffix(SIDECAR_SUFFIX)?)?;
            Some(if is_soon { Kind::Soon(key) } else { Kind::Sidecar(key) })
        };
        if let Some(kind) = sidecar(name) {
            return Some(kind);
        }
        let is_new_sidecar = name.strip_suffix(NEW_SUFFIX).and_then(sidecar).is_some();
        let is_number = |text: &str| text.parse::<u64>().is_ok();
        let is_second =
            name.split_once('-').is_some_and(|(key, rest)| ContentKey::parse(key).is_some() && is_number(rest));
        (is_new_sidecar || is_second || is_number(name)).then_some(Kind::Leftover)
    }
}

/// The file with the bytes of a content.
pub(super) fn partial(key: ContentKey) -> String {
    key.to_string()
}

/// The file with the bytes of the second one of a content.
pub(super) fn second(key: ContentKey, number: u64) -> String {
    format!("{key}-{number}")
}

/// The sidecar of a content.
pub(super) fn sidecar(key: ContentKey) -> String {
    // Digits and a suffix: this is text.
    bitmap_path(Path::new(&partial(key))).to_string_lossy().into_owned()
}

/// The sidecar of a content while it is written.
pub(super) fn new_sidecar(key: ContentKey) -> String {
    sidecar(key) + NEW_SUFFIX
}

/// The second sidecar of a content, which is written between two saves.
pub(super) fn soon(key: ContentKey) -> String {
    sidecar(key) + SOON_SUFFIX
}

/// The second sidecar of a content while it is written.
pub(super) fn new_soon(key: ContentKey) -> String {
    soon(key) + NEW_SUFFIX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_stores_is_known() {
        let key = ContentKey(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        assert_eq!(Kind::of(&partial(key)), Some(Kind::Partial(key)));
        assert_eq!(Kind::of(&sidecar(key)), Some(Kind::Sidecar(key)));
        assert_eq!(Kind::of(&soon(key)), Some(Kind::Soon(key)));
        for leftover in [new_sidecar(key), new_soon(key), second(key, 7), "17".to_owned(), u64::MAX.to_string()] {
            assert_eq!(Kind::of(&leftover), Some(Kind::Leftover), "{leftover}");
        }
        let key = key.to_string();
        for other in
            ["", "a", ".kdbitmap", "1.kdbitmap", "1.5", "-1", &key[1..], &format!("{key}-"), &format!("{key}-x")]
        {
            assert_eq!(Kind::of(other), None, "{other}");
        }
        assert_eq!(Kind::of(&format!("{key}.new")), None);
        assert_eq!(Kind::of(&format!("{key}.soon")), None);
        assert_eq!(Kind::of(&format!("x{key}.kdbitmap")), None);
    }
}
