//! The bodies of the fuzz targets, here so that the committed corpus is replayed by plain `cargo test`. What a peer may send goes
//! through [`crate::parse_any`].

use crate::frames::put_checksum;
use crate::journal::{Boot, JournalError, JournalFile, JournalHeader, encode_changes, sealed_changes};
use crate::members::{Members, encode_members, parse_members};
use crate::{ShareId, codec, decode_memory, encode_memory};
use farshore_engine::PeerId;
use prost::Message;

/// The share whose memory is read.
pub const SHARE: ShareId = ShareId([7; size_of::<ShareId>()]);

const OWNER: PeerId = PeerId([1; 32]);
const US: PeerId = PeerId([200; 32]);

/// Takes `data` for what is remembered of a share: as it is, and with the checksum that it should have, because the fuzzer would
/// never find it. Returns whether it was read.
///
/// # Panics
/// If what was read is not what would be written.
pub fn fuzz_memory_file(data: &[u8]) -> bool {
    let mut sealed = data.to_vec();
    put_checksum(&mut sealed);
    check_memory(data) | check_memory(&sealed)
}

fn check_memory(bytes: &[u8]) -> bool {
    let Ok((journal, memory)) = decode_memory(bytes, SHARE) else { return false };
    let written = encode_memory(SHARE, journal, &memory);
    let Ok(written) = written else { panic!("what was read cannot be written: {written:?}") };
    let again = decode_memory(&written, SHARE);
    assert_eq!(again, Ok((journal, memory)), "it was read and would be written as something else");
    true
}

/// Takes `data` for what follows the header of a journal: as it is, and as what one frame says. Returns whether it was read.
///
/// # Panics
/// If what was read is not what would be written.
pub fn fuzz_journal(data: &[u8]) -> bool {
    check_journal(data) | check_journal(&sealed_changes(data))
}

fn check_journal(frames: &[u8]) -> bool {
    let header = JournalHeader { share: SHARE, number: 1, follows_bytes: 0, boot: Boot::UNKNOWN };
    let changes_in = |frames: &[u8]| {
        let bytes = [&header.encode(), frames].concat();
        let journal = JournalFile::open(&bytes, SHARE)?;
        let changes = journal.changes(journal.whole_bytes())?;
        Ok::<_, JournalError>((changes, journal.is_torn()))
    };
    let Ok((changes, is_torn)) = changes_in(frames) else { return false };
    let written = encode_changes(&changes);
    let Ok(written) = written else { panic!("what was read cannot be written: {written:?}") };
    assert_eq!(changes_in(&written), Ok((changes, false)), "it was read and would be written as something else");
    !is_torn
}

/// Takes `data` for what an owner says of the members of its share. Returns whether it was read.
///
/// # Panics
/// If what was read is not what would be said.
pub fn fuzz_members(data: &[u8]) -> bool {
    let Ok(members) = codec::decode(data).and_then(|message| parse_members(message, OWNER, US)) else {
        return false;
    };
    // Who is told of the others is one of them.
    let all: Members = members.iter().map(|(device, at)| (*device, at.clone())).chain([(US, Vec::new())]).collect();
    let said = encode_members(&all, US).encode_to_vec();
    let again = codec::decode(&said[..]).and_then(|message| parse_members(message, OWNER, US));
    assert_eq!(again, Ok(members), "it was read and would be said in another way");
    true
}
