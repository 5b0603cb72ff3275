//! Paths in JSON, without losing those that are not text: `"a/b"`, or `{"hex": "its bytes"}` for what is not UTF-8.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A path as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JsonPath {
    /// As text.
    Text(String),
    /// As bytes.
    Bytes {
        /// Each as two lower-case hexadecimal digits.
        hex: String,
    },
}

impl JsonPath {
    /// The path with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> JsonPath {
        match std::str::from_utf8(bytes) {
            Ok(text) => JsonPath::Text(text.to_owned()),
            Err(_) => JsonPath::Bytes { hex: HEXLOWER.encode(bytes) },
        }
    }

    /// The path itself.
    ///
    /// # Errors
    /// The hexadecimal digits are none.
    pub fn to_path(&self) -> Result<PathBuf, String> {
        match self {
            JsonPath::Text(text) => Ok(PathBuf::from(text)),
            JsonPath::Bytes { hex } => match HEXLOWER.decode(hex.as_bytes()) {
                Ok(bytes) => Ok(PathBuf::from(OsString::from_vec(bytes))),
                Err(_) => Err(format!("{hex:?} is not the hex of a path")),
            },
        }
    }
}

impl From<&Path> for JsonPath {
    fn from(path: &Path) -> JsonPath {
        JsonPath::from_bytes(path.as_os_str().as_bytes())
    }
}

impl fmt::Display for JsonPath {
    /// For people: bytes that are no text are replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_path() {
            Ok(path) => path.display().fmt(f),
            Err(_) => f.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_path_comes_back(bytes in any::<Vec<u8>>()) {
            let path = JsonPath::from_bytes(&bytes);
            let json = serde_json::to_string(&path).unwrap();
            let back: JsonPath = serde_json::from_str(&json).unwrap();
            let back = back.to_path().unwrap();
            prop_assert_eq!(back.as_os_str().as_bytes(), bytes);
        }
    }

    #[test]
    fn what_is_no_hex_is_an_error() {
        assert!(JsonPath::Bytes { hex: "2g".into() }.to_path().is_err());
        assert_eq!(JsonPath::Bytes { hex: "61ff".into() }.to_string(), "a\u{fffd}");
    }
}
