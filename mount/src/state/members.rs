//! Who has a share in a folder of its own: of our own shares, beside the devices that have joined; and of a share that we have
//! joined, as its owner said last, in a file of its own in the directory `members`.
//!
//! ```json
//! { "version": 1, "owner": "64 hex digits", "port": 41234, "members": [{ "id": "64 hex digits", "addresses": ["nas:7000"] }] }
//! ```

use super::{Overwrite, State, StateError, entry_of, write_durably};
use crate::identity::parse_device_id;
use crate::ticket::ShareId;
use farshore_engine::PeerId;
use farshore_proto::address::{ADDRESSES_MAX, is_address};
use farshore_proto::{MAX_MEMBERS, Members};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;

const MEMBERS_DIR: &str = "members";
const VERSION: u32 = 1;

/// What is kept of a share that was joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquaintance {
    /// Who owns the share.
    pub owner: PeerId,
    /// The port at which this device listened last for the others, if it did.
    pub port: Option<u16>,
    /// The others, but for the owner, at most [`MAX_MEMBERS`].
    pub members: Members,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAcquaintance {
    version: u32,
    owner: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    members: Vec<StoredMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredMember {
    id: String,
    addresses: Vec<String>,
}

impl State {
    /// Writes down that `peer` has our share in a folder of its own, and where it can be reached. Says whether that is news. A
    /// device that is not let in any more is no member.
    ///
    /// # Errors
    /// There is no such share, or the list of shares cannot be read or written.
    pub fn note_member(&self, share: ShareId, peer: PeerId, addresses: &[String]) -> Result<bool, StateError> {
        self.update(|shares| {
            let entry = entry_of(shares, share)?;
            let known = entry.members.get(&peer);
            if !entry.devices.contains_key(&peer) || known.is_some_and(|known| known == addresses) {
                return Ok(false);
            }
            if known.is_none() && entry.members.len() >= MAX_MEMBERS {
                tracing::warn!(
                    "{peer} is not made known to the other devices of {}: it has {MAX_MEMBERS} others",
                    share
                );
                return Ok(false);
            }
            entry.members.insert(peer, addresses.to_vec());
            Ok(true)
        })
    }

    /// The members of our share; none if there is no such share.
    ///
    /// # Errors
    /// The list of shares cannot be read, or is damaged.
    pub fn members_of(&self, share: ShareId) -> Result<Members, StateError> {
        Ok(self.shares()?.into_iter().find(|entry| entry.share == share).map(|entry| entry.members).unwrap_or_default())
    }

    /// What is kept of `share`, which `owner` owns: nothing, if nothing was.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn acquaintance(&self, share: ShareId, owner: PeerId) -> Result<Acquaintance, StateError> {
        let path = self.dir.join(MEMBERS_DIR).join(share.to_string());
        let nobody = Acquaintance { owner, port: None, members: Members::new() };
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nobody),
            Err(source) => return Err(StateError::Read { path, source }),
        };
        let parsed = serde_json::from_slice(&json).map_err(|error| error.to_string()).and_then(parse_acquaintance);
        match parsed {
            // Somebody else's share of that name: its owner has told us nothing.
            Ok(known) if known.owner != owner => Ok(nobody),
            Ok(known) => Ok(known),
            Err(reason) => Err(StateError::DamagedMembers { path, reason }),
        }
    }

    /// Keeps this of `share`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_acquaintance(&self, share: ShareId, known: &Acquaintance) -> Result<(), StateError> {
        let dir = self.dir.join(MEMBERS_DIR);
        let path = dir.join(share.to_string());
        let stored = StoredAcquaintance {
            version: VERSION,
            owner: known.owner.to_string(),
            port: known.port,
            members: store_members(&known.members),
        };
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let mut json = serde_json::to_vec_pretty(&stored)?;
            json.push(b'\n');
            write_durably(&path, &json, Overwrite::Allowed)
        };
        write().map_err(|source| StateError::Write { path: path.clone(), source })
    }
}

fn parse_acquaintance(stored: StoredAcquaintance) -> Result<Acquaintance, String> {
    let StoredAcquaintance { version, owner, port, members } = stored;
    if version != VERSION {
        return Err(format!("there is no format version {version}"));
    }
    let owner = parse_device_id(&owner).map_err(|_| format!("{owner:?} is not a device id"))?;
    let members = parse_members(members)?;
    match members.contains_key(&owner) {
        true => Err("the owner stands among the others".to_owned()),
        false => Ok(Acquaintance { owner, port, members }),
    }
}

pub(super) fn store_members(members: &Members) -> Vec<StoredMember> {
    let store = |(peer, addresses): (&PeerId, &Vec<String>)| StoredMember {
        id: peer.to_string(),
        addresses: addresses.clone(),
    };
    members.iter().map(store).collect()
}

pub(super) fn parse_members(stored: Vec<StoredMember>) -> Result<Members, String> {
    if stored.len() > MAX_MEMBERS {
        return Err("it has too many members".to_owned());
    }
    let mut members = Members::new();
    for StoredMember { id, addresses } in stored {
        let peer = parse_device_id(&id).map_err(|_| format!("{id:?} is not a device id"))?;
        if let Some(wrong) = addresses.iter().find(|address| !is_address(address)) {
            return Err(format!("{wrong:?} is not an address"));
        }
        if addresses.len() > ADDRESSES_MAX || members.insert(peer, addresses).is_some() {
            return Err(format!("{id} stands in it twice, or has too many addresses"));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::new_share_id;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn at(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    #[test]
    fn members_of_a_share_are_devices_that_may_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(Some(dir.path().join("state"))).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let folder = dir.path().join("folder");
        let share = state.share_for(&folder).unwrap().share;
        assert!(!state.note_member(share, peer(1), &[]).unwrap(), "it was not let in");
        (0..=MAX_MEMBERS as u8).for_each(|number| state.remember(share, peer(number)).unwrap());
        let note = |number, addresses: &[&str]| state.note_member(share, peer(number), &at(addresses)).unwrap();
        assert!(note(1, &["a:1", "[::1]:2"]) && note(2, &[]));
        assert!(!note(1, &["a:1", "[::1]:2"]), "that is no news");
        assert!(note(1, &["b:1"]));
        let members = Members::from([(peer(1), at(&["b:1"])), (peer(2), Vec::new())]);
        assert_eq!(state.members_of(share).unwrap(), members);
        state.revoke(peer(1)).unwrap();
        assert_eq!(state.members_of(share).unwrap().into_keys().collect::<Vec<_>>(), [peer(2)]);
        assert!(!note(1, &["b:1"]));
        state.remember(share, peer(1)).unwrap();
        let all = (0..=MAX_MEMBERS as u8).filter(|number| note(*number, &["c:1"])).count();
        assert_eq!(all, MAX_MEMBERS);
        assert!(note(0, &["d:1"]), "who is known may move");
        assert!(state.renew_ticket(&folder).unwrap().members.is_empty());
        assert!(state.members_of(new_share_id()).unwrap().is_empty());
    }

    #[test]
    fn what_an_owner_said_is_kept_for_that_owner() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(Some(dir.path().join("state"))).unwrap();
        let share = new_share_id();
        let nobody = Acquaintance { owner: peer(9), port: None, members: Members::new() };
        assert_eq!(state.acquaintance(share, peer(9)).unwrap(), nobody);
        let members = Members::from([(peer(1), at(&["a:1"])), (peer(2), Vec::new())]);
        let known = Acquaintance { owner: peer(9), port: Some(4177), members };
        state.keep_acquaintance(share, &known).unwrap();
        assert_eq!(state.acquaintance(share, peer(9)).unwrap(), known);
        assert_eq!(state.acquaintance(share, peer(8)).unwrap(), Acquaintance { owner: peer(8), ..nobody });
        let path = state.dir().join(MEMBERS_DIR).join(share.to_string());
        let good = fs::read_to_string(&path).unwrap();
        for (part, damage) in [
            ("\"a:1\"", "\"a\""),
            ("\"version\": 1", "\"version\": 2"),
            (&peer(1).to_string(), &peer(2).to_string()),
            (&peer(1).to_string(), &peer(9).to_string()),
            (&peer(9).to_string(), "9"),
            ("}", ""),
        ] {
            fs::write(&path, good.replacen(part, damage, 1)).unwrap();
            let error = state.acquaintance(share, peer(9)).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{damage}: {error}");
        }
    }
}
