//! The laws of a store, to be held against every kind of store: [`crate::store_laws`] makes a test of each.

mod remembered;
#[cfg(test)]
mod tests;

pub use self::remembered::{
    known_tree, of_a_share_nobody_has_asked_for_nothing_is_noted,
    the_tree_that_was_known_last_is_there_in_the_next_life, what_is_remembered_of_a_share_is_there_in_the_next_life,
    what_was_noted_is_there_after_a_crash_at_any_moment, what_was_noted_is_to_be_copied_when_it_has_become_long,
};

use super::{Store, Stored};
use bytes::Bytes;
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE, chunk_range};
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Stamp};
use farshore_engine::{ContentIdentity, ContentKey, PeerId, Resumed, Trust, Xattrs};
use rustix::fs::{Mode, OFlags};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// A file that was kept: its bytes, its permission bits, its modification time.
pub type Kept = (Vec<u8>, u16, FileTime);

/// A store under test, and what can be done to it from outside.
pub trait Subject {
    /// The store as it is now.
    fn store(&self) -> Arc<dyn Store>;
    /// Ends this life of the store as it is, and begins the next. Nothing of it is open.
    fn restart(&mut self);
    /// Flips a bit of the byte at `offset` of what is saved. Nothing of it is open.
    fn damage(&mut self, key: ContentKey, offset: u64);
    /// How many contents it has room taken for.
    fn contents(&self) -> usize;
    /// Where a file may be kept; `None` if this store cannot make files.
    fn target(&self, name: &str) -> Option<PathBuf>;
    /// A file that was kept.
    fn kept(&self, target: &Path) -> Option<Kept>;
    /// Whether reading what was never written is noticed. A disk has zeros there.
    fn knows_holes(&self) -> bool;
}

/// Makes a test of each law. Takes the path of a function that returns a `Vec<Box<dyn Subject>>` of fresh stores.
#[macro_export]
macro_rules! store_laws {
    ($subjects:path) => {
        $crate::store_laws!(@each $subjects:
            what_was_written_is_read,
            a_whole_content_can_be_read_from_its_file_until_that_is_closed,
            chunks_may_come_in_any_order_and_twice,
            contents_do_not_mix,
            nothing_lies_beyond_the_end,
            a_write_of_many_small_frames_is_whole,
            a_chunk_is_remembered_by_its_hash,
            what_is_discarded_goes_with_the_last_reference,
            a_kept_content_is_an_ordinary_file_and_still_read,
            keeping_never_overwrites,
            what_is_lent_is_a_file_and_what_is_given_away_is_not_the_stores,
            what_was_saved_is_resumed,
            what_was_not_saved_is_not_claimed_after_a_crash,
            after_a_crash_what_was_saved_has_to_be_hashed,
            damage_is_found_and_forgotten,
            what_was_forgotten_does_not_come_back,
            a_clean_stop_does_not_make_up_for_one_that_was_not,
            writing_a_chunk_again_verifies_it,
            what_was_let_go_of_is_saved_at_the_end,
            a_second_one_is_never_resumed,
            another_version_is_not_resumed,
            what_is_evicted_is_gone_unless_it_is_open,
            creating_begins_anew,
            the_path_is_where_it_was_last_seen,
            what_was_used_last_is_the_newest,
            what_is_pinned_is_remembered,
            after_the_end_nothing_is_changed,
            the_tree_that_was_known_last_is_there_in_the_next_life,
            what_is_remembered_of_a_share_is_there_in_the_next_life,
            what_was_noted_is_there_after_a_crash_at_any_moment,
            of_a_share_nobody_has_asked_for_nothing_is_noted,
            what_was_noted_is_to_be_copied_when_it_has_become_long,
        );
    };
    (@each $subjects:path: $($law:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $law() {
                for mut subject in $subjects() {
                    $crate::store::suite::$law(&mut *subject).await;
                }
            }
        )*
    };
}

const MODIFIED: FileTime = FileTime { seconds: 1_234_567_890, nanos: 123_456_789 };

/// Content number `number`, of `len` bytes.
#[must_use]
pub fn identity(number: u64, len: u64) -> ContentIdentity {
    ContentIdentity { owner: PeerId([7; 32]), stamp: Stamp(number), size_bytes: len, modified: MODIFIED }
}

/// A path from text.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("a path")
}

/// The bytes of content number `number`: they differ from place to place and from content to content.
#[must_use]
pub fn sample(number: u64, len: u64) -> Bytes {
    (0..len).map(|at| at.wrapping_mul(2_654_435_761).wrapping_add(number * 97).to_le_bytes()[2]).collect()
}

/// The bytes of one chunk of a content.
///
/// # Panics
/// If there is no such chunk.
#[must_use]
pub fn part(bytes: &Bytes, chunk: u64) -> Bytes {
    let range = chunk_range(chunk, bytes.len() as u64);
    bytes.slice(range.start as usize..range.end as usize)
}

/// Writes one chunk of a content, in frames as they come from a peer.
///
/// # Errors
/// Those of [`Stored::write`].
pub async fn write(stored: &Arc<dyn Stored>, bytes: &Bytes, chunk: u64) -> std::io::Result<()> {
    let part = part(bytes, chunk);
    let frame = FRAME_SIZE as usize;
    let frames = (0..part.len()).step_by(frame).map(|start| part.slice(start..(start + frame).min(part.len())));
    Arc::clone(stored).write(chunk, frames.collect()).await
}

/// Content number `number` with these chunks.
async fn some(subject: &dyn Subject, number: u64, len: u64, chunks: &[u64]) -> (Arc<dyn Stored>, Bytes) {
    let bytes = sample(number, len);
    let stored = subject.store().create(&identity(number, len), &path("dir/file")).expect("room");
    for chunk in chunks {
        write(&stored, &bytes, *chunk).await.expect("room");
    }
    (stored, bytes)
}

/// Content number `number` with all of its chunks.
async fn whole(subject: &dyn Subject, number: u64, len: u64) -> (Arc<dyn Stored>, Bytes) {
    let chunks: Vec<u64> = (0..len.div_ceil(CHUNK_SIZE)).collect();
    some(subject, number, len, &chunks).await
}

fn read(stored: &Arc<dyn Stored>, offset: u64, len: usize) -> Vec<u8> {
    let mut into = vec![0xee; len];
    stored.read(offset, &mut into).expect("it was written");
    into
}

async fn resume(subject: &dyn Subject, identity: &ContentIdentity) -> Option<(Arc<dyn Stored>, Resumed)> {
    subject.store().resume(identity.key(), Some(identity)).await.expect("a disk that works")
}

async fn resumed(subject: &dyn Subject, identity: &ContentIdentity) -> (Arc<dyn Stored>, Vec<u64>, Trust) {
    let (stored, resumed) = resume(subject, identity).await.expect("it was saved");
    (stored, resumed.chunks.present().collect(), resumed.trust)
}

async fn save(subject: &dyn Subject, stored: &Arc<dyn Stored>) {
    subject.store().save(vec![Arc::clone(stored)]).await.expect("a disk that works");
}

/// Ends this life well, and begins the next.
async fn close(subject: &mut dyn Subject) {
    subject.store().close().await.expect("a disk that works");
    subject.restart();
}

async fn verify(stored: &Arc<dyn Stored>, chunk: u64) -> bool {
    Arc::clone(stored).verify(chunk).await.expect("a disk that works")
}

/// What was written is read, wherever a read begins and ends.
pub async fn what_was_written_is_read(subject: &mut dyn Subject) {
    let (stored, bytes) = whole(subject, 1, CHUNK_SIZE * 2 + 12_345).await;
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
    for (offset, len) in [(0, 0), (0, 1), (CHUNK_SIZE - 1, 2), (CHUNK_SIZE - 70_000, 600_000), (1_060_920, 1)] {
        let start = offset as usize;
        assert_eq!(read(&stored, offset, len), bytes[start..start + len]);
    }
}

/// A store that keeps a content in a file lends it, for as long as it is open.
pub async fn a_whole_content_can_be_read_from_its_file_until_that_is_closed(subject: &mut dyn Subject) {
    let (stored, bytes) = whole(subject, 1, 2 * CHUNK_SIZE + 77).await;
    let Some(file) = stored.file() else { return };
    let is_right = || {
        let mut seen = Vec::new();
        (&*file).seek(SeekFrom::Start(0)).and_then(|_| (&*file).read_to_end(&mut seen)).expect("readable");
        seen == bytes
    };
    assert!(is_right());
    stored.discard();
    drop(stored);
    assert!(is_right(), "whoever has it open goes on");
}

/// Chunks may come in any order, and again.
pub async fn chunks_may_come_in_any_order_and_twice(subject: &mut dyn Subject) {
    let bytes = sample(1, CHUNK_SIZE * 5 + 1);
    let (stored, _) = some(subject, 1, bytes.len() as u64, &[]).await;
    for (done, chunk) in [3, 5, 0, 3, 4, 1, 2, 5].into_iter().enumerate() {
        write(&stored, &bytes, chunk).await.expect("room");
        let part = part(&bytes, chunk);
        assert_eq!(read(&stored, chunk * CHUNK_SIZE, part.len()), part, "step {done}");
    }
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
}

/// Contents of the same size do not mix.
pub async fn contents_do_not_mix(subject: &mut dyn Subject) {
    let (first, first_bytes) = whole(subject, 1, CHUNK_SIZE + 5).await;
    let (second, second_bytes) = whole(subject, 2, CHUNK_SIZE + 5).await;
    assert_ne!(first_bytes, second_bytes);
    assert_eq!(read(&first, 0, first_bytes.len()), first_bytes);
    assert_eq!(read(&second, 0, second_bytes.len()), second_bytes);
}

/// There is nothing behind the end, and a chunk is written as a whole or not at all.
pub async fn nothing_lies_beyond_the_end(subject: &mut dyn Subject) {
    let (stored, bytes) = whole(subject, 1, CHUNK_SIZE + 1_000).await;
    let end = CHUNK_SIZE + 1_000;
    let mut into = [0; 10];
    for offset in [end - 9, end, u64::MAX - 4, u64::MAX] {
        assert_eq!(stored.read(offset, &mut into).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    for (chunk, len) in [(0, CHUNK_SIZE - 1), (1, 999), (1, 1_001), (1, 0), (2, 0), (2, 1_000), (u64::MAX, 1)] {
        let written = Arc::clone(&stored).write(chunk, vec![Bytes::from(vec![1; len as usize])]).await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::InvalidInput, "{len} bytes as chunk {chunk}");
    }
    assert_eq!(read(&stored, 0, bytes.len()), bytes, "what was refused changed nothing");
    if subject.knows_holes() {
        let (holey, _) = some(subject, 2, CHUNK_SIZE + 1_000, &[0]).await;
        assert_eq!(holey.read(CHUNK_SIZE - 1, &mut into).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

/// A write of a great many small frames is whole.
pub async fn a_write_of_many_small_frames_is_whole(subject: &mut dyn Subject) {
    let (stored, bytes) = some(subject, 1, 5_000, &[]).await;
    let bytes = bytes.slice(..);
    let crumbs = bytes.chunks(2).map(|crumb| bytes.slice_ref(crumb)).chain([Bytes::new()]).collect();
    Arc::clone(&stored).write(0, crumbs).await.expect("room");
    assert_eq!(read(&stored, 0, 5_000), bytes);
}

/// The hash of a chunk is known when it was written, and only then.
pub async fn a_chunk_is_remembered_by_its_hash(subject: &mut dyn Subject) {
    let (stored, bytes) = some(subject, 1, CHUNK_SIZE + 10, &[1]).await;
    assert_eq!(stored.hash_of(1), Some(xxh3_64(&part(&bytes, 1))));
    assert_eq!((stored.hash_of(0), stored.hash_of(2)), (None, None));
    assert!(verify(&stored, 1).await);
    assert!(!verify(&stored, 0).await && !verify(&stored, 2).await, "nothing is known of them");
    let against = |chunk, hash| Arc::clone(&stored).verify_against(chunk, hash);
    assert!(against(1, xxh3_64(&part(&bytes, 1))).await.unwrap());
    assert!(!against(1, 7).await.unwrap());
    assert_eq!(stored.hash_of(1), None, "its owner says that it is another one");
    assert!(!against(2, xxh3_64(b"")).await.unwrap(), "there is no such chunk");
}

/// What is discarded can be read until nobody has it open, and then it is gone.
pub async fn what_is_discarded_goes_with_the_last_reference(subject: &mut dyn Subject) {
    let (stored, bytes) = whole(subject, 1, 70_000).await;
    let (other, _) = whole(subject, 2, 70_000).await;
    save(subject, &stored).await;
    let second = Arc::clone(&stored);
    stored.discard();
    drop(stored);
    assert_eq!(read(&second, 0, bytes.len()), bytes);
    save(subject, &second).await;
    assert_eq!(subject.contents(), 2);
    drop(second);
    assert_eq!(subject.contents(), 1);
    assert!(resume(subject, &identity(1, 70_000)).await.is_none());
    other.discard();
    drop(other);
    assert_eq!(subject.contents(), 0);
    close(subject).await;
    assert_eq!(subject.store().held(), []);
}

/// What is kept is a file as any other, and not the store's any more.
pub async fn a_kept_content_is_an_ordinary_file_and_still_read(subject: &mut dyn Subject) {
    let Some(target) = subject.target("kept") else { return };
    let (stored, bytes) = whole(subject, 1, CHUNK_SIZE + 77).await;
    save(subject, &stored).await;
    Arc::clone(&stored).keep(target.clone(), 0o640, MODIFIED, Xattrs::default()).await.unwrap();
    assert_eq!(subject.kept(&target), Some((bytes.to_vec(), 0o640, MODIFIED)));
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
    save(subject, &stored).await;
    drop(stored);
    assert_eq!(subject.kept(&target), Some((bytes.to_vec(), 0o640, MODIFIED)));
    assert_eq!(subject.contents(), 0);
    close(subject).await;
    assert_eq!(subject.store().held(), []);
    assert_eq!(subject.kept(&target), Some((bytes.to_vec(), 0o640, MODIFIED)));
}

/// What is there already stays as it is.
pub async fn keeping_never_overwrites(subject: &mut dyn Subject) {
    let (Some(target), Some(other)) = (subject.target("kept"), subject.target("other")) else { return };
    let (first, first_bytes) = whole(subject, 1, 500).await;
    let (second, second_bytes) = whole(subject, 2, 600).await;
    first.keep(target.clone(), 0o600, MODIFIED, Xattrs::default()).await.unwrap();
    let error = Arc::clone(&second).keep(target.clone(), 0o644, MODIFIED, Xattrs::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(subject.kept(&target), Some((first_bytes.to_vec(), 0o600, MODIFIED)));
    assert_eq!(read(&second, 0, 600), second_bytes);
    second.keep(other.clone(), 0o644, MODIFIED, Xattrs::default()).await.unwrap();
    assert_eq!(subject.kept(&other), Some((second_bytes.to_vec(), 0o644, MODIFIED)));
}

/// What is lent is still the store's, until it is given away.
pub async fn what_is_lent_is_a_file_and_what_is_given_away_is_not_the_stores(subject: &mut dyn Subject) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = |path: &Path| rustix::fs::open(path, OFlags::DIRECTORY, Mode::empty()).expect("it is there");
    let directory = open(dir.path());
    let (stored, bytes) = whole(subject, 1, CHUNK_SIZE + 77).await;
    save(subject, &stored).await;
    stored.lend(directory.as_fd(), "back".as_ref()).unwrap();
    assert_eq!(std::fs::read(dir.path().join("back")).unwrap(), bytes);
    let taken = stored.lend(directory.as_fd(), "back".as_ref()).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    std::fs::remove_file(dir.path().join("back")).unwrap();
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
    assert_eq!(subject.contents(), 1);
    stored.lend(directory.as_fd(), "away".as_ref()).unwrap();
    stored.give_away().unwrap();
    stored.lend(directory.as_fd(), "again".as_ref()).unwrap();
    stored.give_away().unwrap();
    std::fs::write(dir.path().join("again"), b"mine").unwrap();
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
    save(subject, &stored).await;
    drop(stored);
    assert_eq!(subject.contents(), 0);
    assert_eq!(std::fs::read(dir.path().join("away")).unwrap(), bytes);
    close(subject).await;
    assert_eq!(subject.store().held(), []);
}

/// What was saved is there in the next life, and after a clean stop it is believed.
pub async fn what_was_saved_is_resumed(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 3 + 9);
    let (stored, bytes) = some(subject, 1, id.size_bytes, &[1, 3]).await;
    save(subject, &stored).await;
    let (other, _) = whole(subject, 2, 10).await;
    save(subject, &other).await;
    drop((stored, other));
    close(subject).await;
    let mut held = subject.store().held();
    held.sort_by_key(|held| held.stored_bytes);
    let keys: Vec<(ContentKey, u64)> = held.iter().map(|held| (held.key, held.stored_bytes)).collect();
    assert_eq!(keys, [(identity(2, 10).key(), 10), (id.key(), CHUNK_SIZE + 9)]);
    assert_eq!(held[1].path, path("dir/file"));
    let (stored, chunks, trust) = resumed(subject, &id).await;
    assert_eq!((chunks, trust), (vec![1, 3], Trust::Verified));
    assert_eq!(stored.hash_of(3), Some(xxh3_64(&part(&bytes, 3))));
    for chunk in [1, 3] {
        let part = part(&bytes, chunk);
        assert_eq!(read(&stored, chunk * CHUNK_SIZE, part.len()), part);
    }
    write(&stored, &bytes, 0).await.unwrap();
    write(&stored, &bytes, 2).await.unwrap();
    drop(stored);
    close(subject).await;
    let (stored, found) = subject.store().resume(id.key(), None).await.unwrap().unwrap();
    assert!(found.chunks.is_complete(), "also when nobody knows what to expect");
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
}

/// What was written after the last save may be there or not, but nothing says so.
pub async fn what_was_not_saved_is_not_claimed_after_a_crash(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2);
    let (stored, bytes) = some(subject, 1, id.size_bytes, &[0]).await;
    save(subject, &stored).await;
    write(&stored, &bytes, 1).await.unwrap();
    let (never, _) = whole(subject, 2, 10).await;
    drop((stored, never));
    subject.restart();
    assert_eq!(subject.store().held().len(), 1);
    assert!(resume(subject, &identity(2, 10)).await.is_none());
    let (stored, chunks, _) = resumed(subject, &id).await;
    assert_eq!((chunks, stored.hash_of(1)), (vec![0], None));
    assert_eq!(subject.contents(), 1, "what nobody can go on with takes no room");
}

/// After a crash the hashes are there, and nothing is believed without them.
pub async fn after_a_crash_what_was_saved_has_to_be_hashed(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2);
    let (stored, _) = whole(subject, 1, id.size_bytes).await;
    save(subject, &stored).await;
    drop(stored);
    subject.restart();
    let (stored, chunks, trust) = resumed(subject, &id).await;
    assert_eq!((chunks, trust), (vec![0, 1], Trust::Hashed));
    assert!(verify(&stored, 0).await && verify(&stored, 1).await);
    drop(stored);
    let (stored, _, trust) = resumed(subject, &id).await;
    assert_eq!(trust, Trust::Verified, "in this life it is known");
    drop(stored);
    close(subject).await;
    assert_eq!(resumed(subject, &id).await.2, Trust::Verified);
}

/// A chunk that is not what was written is not there.
pub async fn damage_is_found_and_forgotten(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2 + 3);
    let (stored, bytes) = whole(subject, 1, id.size_bytes).await;
    save(subject, &stored).await;
    drop(stored);
    subject.restart();
    subject.damage(id.key(), CHUNK_SIZE + 100);
    subject.restart();
    let (stored, _, trust) = resumed(subject, &id).await;
    assert_eq!(trust, Trust::Hashed);
    assert!(verify(&stored, 0).await);
    assert!(!verify(&stored, 1).await);
    assert_eq!(stored.hash_of(1), None);
    assert!(verify(&stored, 2).await);
    save(subject, &stored).await;
    drop(stored);
    close(subject).await;
    let (stored, chunks, trust) = resumed(subject, &id).await;
    assert_eq!((chunks, trust), (vec![0, 2], Trust::Verified));
    write(&stored, &bytes, 1).await.unwrap();
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
}

/// What was found to be wrong stays forgotten, though it was let go of before that was saved.
pub async fn what_was_forgotten_does_not_come_back(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2);
    let (stored, _) = whole(subject, 1, id.size_bytes).await;
    drop(stored);
    close(subject).await;
    subject.damage(id.key(), 5);
    let (stored, _, trust) = resumed(subject, &id).await;
    assert_eq!(trust, Trust::Verified, "nobody could know");
    assert!(!verify(&stored, 0).await);
    drop(stored);
    let (stored, chunks, _) = resumed(subject, &id).await;
    assert_eq!(chunks, [1]);
    drop(stored);
    close(subject).await;
    assert_eq!(resumed(subject, &id).await.1, [1]);
}

/// A clean stop says nothing about what was not looked at since one that was not clean.
pub async fn a_clean_stop_does_not_make_up_for_one_that_was_not(subject: &mut dyn Subject) {
    let (touched, untouched) = (identity(1, CHUNK_SIZE * 2), identity(2, CHUNK_SIZE));
    let (first, first_bytes) = whole(subject, 1, touched.size_bytes).await;
    let (second, _) = whole(subject, 2, untouched.size_bytes).await;
    subject.store().save(vec![Arc::clone(&first), second]).await.unwrap();
    drop(first);
    subject.restart();
    let (first, ..) = resumed(subject, &touched).await;
    assert!(verify(&first, 0).await);
    save(subject, &first).await;
    drop(first);
    let trust = resumed(subject, &touched).await.2;
    assert_eq!(trust, Trust::Hashed, "half of it was looked at");
    for life in 0..2 {
        close(subject).await;
        assert_eq!(resumed(subject, &touched).await.2, Trust::Hashed, "clean stop {life}");
        assert_eq!(resumed(subject, &untouched).await.2, Trust::Hashed, "clean stop {life}");
    }
    let (first, chunks, _) = resumed(subject, &touched).await;
    assert_eq!(chunks, [0, 1], "what was not looked at is not lost");
    assert!(verify(&first, 0).await && verify(&first, 1).await);
    assert_eq!(read(&first, 0, first_bytes.len()), first_bytes);
    drop(first);
    close(subject).await;
    assert_eq!(resumed(subject, &touched).await.2, Trust::Verified);
}

/// What is written is known to be right.
pub async fn writing_a_chunk_again_verifies_it(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2);
    let (stored, bytes) = whole(subject, 1, id.size_bytes).await;
    save(subject, &stored).await;
    drop(stored);
    subject.restart();
    let (stored, ..) = resumed(subject, &id).await;
    write(&stored, &bytes, 0).await.unwrap();
    assert!(verify(&stored, 1).await);
    drop(stored);
    close(subject).await;
    let (_stored, chunks, trust) = resumed(subject, &id).await;
    assert_eq!((chunks, trust), (vec![0, 1], Trust::Verified));
}

/// What nobody has open and nobody has saved is saved at the end, and found until then.
pub async fn what_was_let_go_of_is_saved_at_the_end(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2);
    let (stored, bytes) = some(subject, 1, id.size_bytes, &[1]).await;
    drop(stored);
    let (stored, chunks, trust) = resumed(subject, &id).await;
    assert_eq!((chunks, trust), (vec![1], Trust::Verified));
    write(&stored, &bytes, 0).await.unwrap();
    drop(stored);
    let (open, _) = whole(subject, 2, 10).await;
    subject.store().close().await.unwrap();
    drop(open);
    subject.restart();
    assert_eq!(subject.store().held().len(), 2);
    let (stored, chunks, trust) = resumed(subject, &id).await;
    assert_eq!((chunks, trust), (vec![0, 1], Trust::Verified));
    assert_eq!(read(&stored, 0, bytes.len()), bytes);
}

/// Of two that are open at once, the second is its own, and goes when it is dropped.
pub async fn a_second_one_is_never_resumed(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2);
    let (first, bytes) = some(subject, 1, id.size_bytes, &[0]).await;
    assert!(resume(subject, &id).await.is_none(), "somebody has it open");
    let (second, _) = some(subject, 1, id.size_bytes, &[1]).await;
    assert_eq!((first.hash_of(1), second.hash_of(0)), (None, None));
    assert_eq!(read(&second, CHUNK_SIZE, 10), bytes[CHUNK_SIZE as usize..][..10]);
    subject.store().save(vec![Arc::clone(&second), Arc::clone(&first), Arc::clone(&first)]).await.unwrap();
    drop((first, second));
    let (stored, chunks, _) = resumed(subject, &id).await;
    assert_eq!(chunks, [0]);
    drop(stored);
    close(subject).await;
    assert_eq!(subject.contents(), 1);
    assert_eq!(resumed(subject, &id).await.1, [0]);
}

/// Every part of an identity counts.
pub async fn another_version_is_not_resumed(subject: &mut dyn Subject) {
    let id = identity(1, 100);
    let (stored, _) = whole(subject, 1, 100).await;
    drop(stored);
    close(subject).await;
    let others = [
        ContentIdentity { owner: PeerId([8; 32]), ..id },
        ContentIdentity { stamp: Stamp(2), ..id },
        ContentIdentity { size_bytes: 101, ..id },
        ContentIdentity { modified: FileTime { nanos: 0, ..MODIFIED }, ..id },
    ];
    for other in others {
        assert!(resume(subject, &other).await.is_none(), "{other:?}");
    }
    assert!(resume(subject, &id).await.is_some());
}

/// Whoever has it open is not bothered.
pub async fn what_is_evicted_is_gone_unless_it_is_open(subject: &mut dyn Subject) {
    let (open, bytes) = whole(subject, 1, 100).await;
    let (saved, _) = whole(subject, 2, 100).await;
    let (unsaved, _) = whole(subject, 3, 100).await;
    subject.store().save(vec![Arc::clone(&open), saved]).await.unwrap();
    drop(unsaved);
    for number in 1..5 {
        subject.store().evict(identity(number, 100).key());
    }
    assert_eq!(subject.contents(), 1);
    assert_eq!(read(&open, 0, 100), bytes);
    assert!(resume(subject, &identity(2, 100)).await.is_none());
    assert!(resume(subject, &identity(3, 100)).await.is_none());
    drop(open);
    close(subject).await;
    assert_eq!(subject.store().held().len(), 1);
    subject.store().evict(identity(1, 100).key());
    assert_eq!((subject.store().held().len(), subject.contents()), (0, 0));
}

/// What was held before is not taken for what is written now.
pub async fn creating_begins_anew(subject: &mut dyn Subject) {
    let id = identity(1, CHUNK_SIZE * 2);
    let (stored, _) = whole(subject, 1, id.size_bytes).await;
    save(subject, &stored).await;
    drop(stored);
    let (stored, bytes) = some(subject, 1, id.size_bytes, &[1]).await;
    assert_eq!(stored.hash_of(0), None);
    drop(stored);
    close(subject).await;
    let (stored, chunks, _) = resumed(subject, &id).await;
    assert_eq!(chunks, [1]);
    assert_eq!(read(&stored, CHUNK_SIZE, 9), bytes[CHUNK_SIZE as usize..][..9]);
    drop(stored);
    // Nothing is written this time.
    drop(some(subject, 1, id.size_bytes, &[]).await);
    close(subject).await;
    assert_eq!(resumed(subject, &id).await.1, [1], "what was held is still there");
}

/// A rename by the owner is remembered with the next save.
pub async fn the_path_is_where_it_was_last_seen(subject: &mut dyn Subject) {
    let (stored, _) = whole(subject, 1, 100).await;
    save(subject, &stored).await;
    stored.note_path(&path("elsewhere/name"));
    drop(stored);
    close(subject).await;
    assert_eq!(subject.store().held()[0].path, path("elsewhere/name"));
}

/// The order of use survives.
pub async fn what_was_used_last_is_the_newest(subject: &mut dyn Subject) {
    let keys: Vec<ContentKey> = (1..4).map(|number| identity(number, 100).key()).collect();
    for number in 1..4 {
        let (stored, _) = whole(subject, number, 100).await;
        save(subject, &stored).await;
        drop(stored);
        pass_time(subject, &keys).await;
    }
    let order = |subject: &dyn Subject| {
        let mut held = subject.store().held();
        held.sort_by_key(|held| held.last_used);
        held.into_iter().map(|held| held.key).collect::<Vec<_>>()
    };
    assert_eq!(order(subject), keys);
    subject.store().touch(keys[0]);
    pass_time(subject, &keys).await;
    assert_eq!(order(subject), [keys[1], keys[2], keys[0]]);
    drop(resumed(subject, &identity(2, 100)).await);
    let (newest, middle, oldest) = (keys[1], keys[0], keys[2]);
    assert_eq!(order(subject), [oldest, middle, newest]);
    // It was not verified after this stop, and to write that down is no use.
    subject.restart();
    close(subject).await;
    assert_eq!(order(subject), [oldest, middle, newest]);
}

/// Waits until whatever is used now is used later than what was used before: clocks of disks have steps.
async fn pass_time(subject: &dyn Subject, keys: &[ContentKey]) {
    let newest = |subject: &dyn Subject| subject.store().held().iter().map(|held| held.last_used).max();
    let before = newest(subject);
    let probe = identity(99, 1);
    assert!(!keys.contains(&probe.key()));
    loop {
        let (stored, _) = whole(subject, 99, 1).await;
        save(subject, &stored).await;
        let now = newest(subject);
        stored.discard();
        drop(stored);
        if now > before {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The list of pins is durable at once, and names need not be text.
pub async fn what_is_pinned_is_remembered(subject: &mut dyn Subject) {
    assert_eq!(subject.store().pins(), []);
    let pins = [RelPath::ROOT, RelPath::parse(b"dir/caf\xe9 \xff\n").expect("a path")];
    for kept in [&pins[1..], &pins[..1], &pins[..], &[]] {
        subject.store().save_pins(kept).expect("nothing is wrong with the disk");
        assert_eq!(subject.store().pins(), kept);
        subject.restart();
        assert_eq!(subject.store().pins(), kept, "after a crash");
    }
}

/// Nothing that comes too late breaks the promise of the clean stop.
pub async fn after_the_end_nothing_is_changed(subject: &mut dyn Subject) {
    let (stored, bytes) = some(subject, 1, CHUNK_SIZE * 2, &[0]).await;
    subject.store().close().await.unwrap();
    subject.store().close().await.unwrap();
    assert!(write(&stored, &bytes, 1).await.is_err());
    assert!(Arc::clone(&stored).verify(0).await.is_err());
    assert!(subject.store().save(vec![Arc::clone(&stored)]).await.is_err());
    assert!(subject.store().create(&identity(2, 10), &path("late")).is_err());
    assert!(subject.store().resume(identity(3, 10).key(), None).await.is_err());
    assert_eq!(read(&stored, 0, 10), bytes[..10], "what is open is still read");
    drop(stored);
    subject.store().evict(identity(1, CHUNK_SIZE * 2).key());
    subject.restart();
    let (_stored, chunks, trust) = resumed(subject, &identity(1, CHUNK_SIZE * 2)).await;
    assert_eq!((chunks, trust), (vec![0], Trust::Verified));
}
