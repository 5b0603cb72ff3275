//! The list of shares as a file: JSON, for people to read, with every field checked on the way in.
//!
//! ```json
//! {
//!   "version": 1,
//!   "shares": [
//!     {
//!       "path": "/srv/films", "share": "32 hex digits", "secret": "32 hex digits",
//!       "devices": [{ "id": "64 hex digits", "first_seen_seconds": 1700000000 }],
//!       "members": [{ "id": "64 hex digits", "addresses": ["192.0.2.7:7000"] }],
//!       "unshared": ["new/not yet"]
//!     }
//!   ]
//! }
//! ```
//!
//! A path that is not UTF-8 stands as `{"hex": "its bytes"}`. A device of which nobody wrote down when it came in stands as
//! its id alone. Members are devices that have the share in a folder of their own.

use super::members::{StoredMember, parse_members, store_members};
use super::{DEVICES_MAX, Overwrite, ShareEntry, StateError, UNSHARED_MAX, write_durably};
use crate::identity::parse_device_id;
use crate::json_path::JsonPath;
use crate::ticket::{Secret, ShareId};
use data_encoding::HEXLOWER;
use farshore_engine::PeerId;
use farshore_engine::path::RelPath;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SharesFile {
    version: u32,
    shares: Vec<StoredShare>,
}

/// Read first: what else stands in the file depends on it.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredShare {
    path: JsonPath,
    share: String,
    secret: String,
    devices: Vec<StoredDevice>,
    /// Not there if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<StoredMember>,
    /// Relative to the folder; not there if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unshared: Vec<JsonPath>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum StoredDevice {
    Id(String),
    Seen { id: String, first_seen_seconds: u64 },
}

/// The shares in the file; none if there is no file.
///
/// # Errors
/// It cannot be read, or any field of it is not what it should be.
pub(super) fn load(path: &Path) -> Result<Vec<ShareEntry>, StateError> {
    let json = match fs::read(path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
    };
    let damaged = |reason: String| StateError::Damaged { path: path.to_owned(), reason };
    let VersionOnly { version } = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    if version > VERSION {
        return Err(StateError::Newer { path: path.to_owned() });
    }
    if version < VERSION {
        return Err(damaged(format!("there is no format version {version}")));
    }
    let file: SharesFile = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    let shares = file.shares.into_iter().map(parse_share).collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    check_unique(&shares).map_err(damaged)?;
    Ok(shares)
}

/// Replaces the file by one with these shares.
///
/// # Errors
/// It cannot be written; the old one is then as it was.
pub(super) fn save(path: &Path, shares: &[ShareEntry]) -> Result<(), StateError> {
    let failed = |source| StateError::Write { path: path.to_owned(), source };
    let file = SharesFile { version: VERSION, shares: shares.iter().map(store_share).collect() };
    let mut json = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
    json.push(b'\n');
    write_durably(path, &json, Overwrite::Allowed).map_err(failed)
}

fn store_share(entry: &ShareEntry) -> StoredShare {
    StoredShare {
        path: entry.path.as_path().into(),
        share: entry.share.to_string(),
        secret: HEXLOWER.encode(&entry.secret.0),
        devices: entry.devices.iter().map(store_device).collect(),
        members: store_members(&entry.members),
        unshared: entry.unshared.iter().map(|path| JsonPath::from_bytes(&path.to_bytes())).collect(),
    }
}

fn store_device((peer, first_seen): (&PeerId, &Option<u64>)) -> StoredDevice {
    let id = peer.to_string();
    match *first_seen {
        Some(first_seen_seconds) => StoredDevice::Seen { id, first_seen_seconds },
        None => StoredDevice::Id(id),
    }
}

fn parse_device(stored: &StoredDevice) -> Result<(PeerId, Option<u64>), String> {
    let (id, first_seen) = match stored {
        StoredDevice::Id(id) => (id, None),
        StoredDevice::Seen { id, first_seen_seconds } => (id, Some(*first_seen_seconds)),
    };
    let peer = parse_device_id(id).map_err(|_| format!("{id:?} is not a device id"))?;
    Ok((peer, first_seen))
}

fn parse_unshared(stored: &JsonPath) -> Result<RelPath, String> {
    let path = stored.to_path()?;
    let wrong = |reason: &str| format!("the unshared path {path:?} {reason}");
    let path = RelPath::parse(path.as_os_str().as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    if path.is_root() { Err(wrong("is the shared folder itself")) } else { Ok(path) }
}

/// The entry, or what is wrong with it. Says nothing of the secret.
fn parse_share(stored: StoredShare) -> Result<ShareEntry, String> {
    let path = stored.path.to_path()?;
    if !path.is_absolute() {
        return Err(format!("the path {path:?} is not absolute"));
    }
    let share = parse_hex(&stored.share).ok_or_else(|| format!("{:?} is not a share id", stored.share))?;
    let secret = parse_hex(&stored.secret).ok_or_else(|| format!("the secret of {path:?} is not 32 hex digits"))?;
    let devices = stored.devices.iter().map(parse_device).collect::<Result<_, _>>()?;
    let members = parse_members(stored.members)?;
    let unshared = stored.unshared.iter().map(parse_unshared).collect::<Result<_, _>>()?;
    Ok(ShareEntry { path, share: ShareId(share), secret: Secret(secret), devices, members, unshared })
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// One entry per folder and per id: with two, revoking one would leave the other.
fn check_unique(shares: &[ShareEntry]) -> Result<(), String> {
    for (i, entry) in shares.iter().enumerate() {
        if shares[..i].iter().any(|other| other.path == entry.path || other.share == entry.share) {
            return Err(format!("the share of {:?} stands in it twice", entry.path));
        }
        if entry.devices.len() > DEVICES_MAX {
            return Err(format!("the share of {:?} has too many devices", entry.path));
        }
        if let Some(stranger) = entry.members.keys().find(|member| !entry.devices.contains_key(*member)) {
            return Err(format!("{stranger} is a member of the share of {:?}, and has not joined it", entry.path));
        }
        if entry.unshared.len() > UNSHARED_MAX {
            return Err(format!("the share of {:?} has too many unshared paths", entry.path));
        }
    }
    Ok(())
}
