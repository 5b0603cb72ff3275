//! The peer lies. The reader gets an honest error, never a wrong byte, and pays little for it.

use super::{Scenario, chunks, secs, with_reader};
use crate::folder::SimFolder;
use crate::history::History;
use crate::liar::{LIARS_FILE, Liar, Lie};
use crate::world::Setup;
use farshore_engine::{Errno, FetchError, Notice, PeerFault};
use std::sync::{Arc, Mutex};

pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "honest-liar", about: "the control: the same server, telling the truth", run: honest },
    Scenario { name: "wrong-hash", about: "bytes that do not match their hash", run: wrong_hash },
    Scenario { name: "wrong-range", about: "frames other than those asked for", run: wrong_range },
    Scenario { name: "too-much", about: "more frames than were asked for", run: too_much },
    Scenario { name: "too-little", about: "a request said to be answered that is not", run: too_little },
    Scenario { name: "unasked", about: "answers to questions that nobody asked", run: unasked },
    Scenario { name: "huge", about: "a message far larger than any may be", run: huge },
    Scenario { name: "silence", about: "no answer at all on a connection that is well", run: silence },
    Scenario { name: "torn", about: "every stream ends at once", run: torn },
];

/// The file that a liar lists has so many chunks.
const CHUNKS: u64 = 8;

/// Frames that may be in memory because of one read: those of the chunks that it touches.
const MAX_FRAMES: usize = 4;

/// Makes what the liar lists: what it says is compared with this.
fn the_file(folder: &SimFolder) {
    folder.write(LIARS_FILE, chunks(CHUNKS));
}

/// What one read of a liar's file ends with: EIO, because of `expected`, after at most `max_asked` requests.
fn lied_to(seed: u64, history: &History, lie: Lie, expected: FetchError, max_asked: u64) -> Result<(), String> {
    let liar = Liar::new(lie, chunks(CHUNKS));
    let setup = Setup { liar: Some(liar.clone()), ..Setup::new(seed) };
    with_reader(setup, history, the_file, move |stage| {
        let liar = liar.clone();
        async move {
            stage.listed().await;
            let reasons: Arc<Mutex<Vec<FetchError>>> = Arc::default();
            let heard = reasons.clone();
            stage.kernel.node().on_notice(Box::new(move |notice| {
                if let Notice::FetchFailed { error, .. } = notice {
                    heard.lock().unwrap().push(*error);
                }
            }));
            let file = stage.open(LIARS_FILE);
            // The last frame of a chunk.
            let failed = stage.kernel.read(file, chunks(3) - 4_096, 4_096).await;
            assert_eq!(failed.unwrap_err(), Errno::Io);
            assert_eq!(*reasons.lock().unwrap(), [expected], "the log names the rule that was broken");
            assert!(liar.asked() <= max_asked, "it was asked {} times", liar.asked());
            assert!(stage.kernel.node().held_frames() <= MAX_FRAMES);
            // And again: one failure does not poison the next attempt, nor cost more.
            let failed = stage.kernel.read(file, chunks(6) - 10, 10).await;
            assert_eq!(failed.unwrap_err(), Errno::Io);
            assert!(liar.asked() <= 2 * max_asked, "it was asked {} times", liar.asked());
            stage.kernel.release(file);
            stage.end().await;
        }
    })
}

fn honest(seed: u64, history: &History) -> Result<(), String> {
    let liar = Liar::new(Lie::None, chunks(CHUNKS));
    let setup = Setup { liar: Some(liar), ..Setup::new(seed) };
    with_reader(setup, history, the_file, move |stage| async move {
        stage.listed().await;
        let file = stage.open(LIARS_FILE);
        assert_eq!(stage.read_to_end(file).await, chunks(CHUNKS));
        stage.kernel.release(file);
        stage.end().await;
    })
}

/// Attempts at a chunk, of one or two requests each.
const ATTEMPTS: u64 = 2 * 5;

fn wrong_hash(seed: u64, history: &History) -> Result<(), String> {
    lied_to(seed, history, Lie::WrongHash, FetchError::Fault(PeerFault::WrongHash), ATTEMPTS)
}

fn wrong_range(seed: u64, history: &History) -> Result<(), String> {
    lied_to(seed, history, Lie::WrongRange, FetchError::Fault(PeerFault::WrongRange), ATTEMPTS)
}

fn too_much(seed: u64, history: &History) -> Result<(), String> {
    // What was asked for comes, and comes right; what is more is dropped. That is no reason to fail.
    let liar = Liar::new(Lie::TooMuch, chunks(CHUNKS));
    let setup = Setup { liar: Some(liar.clone()), ..Setup::new(seed) };
    with_reader(setup, history, the_file, move |stage| async move {
        stage.listed().await;
        let file = stage.open(LIARS_FILE);
        assert_eq!(stage.read_to_end(file).await, chunks(CHUNKS));
        assert_eq!(stage.fetched(), chunks(CHUNKS), "only what was asked for is taken");
        tokio::time::sleep(secs(1)).await;
        assert_eq!(stage.kernel.node().held_frames(), 0);
        stage.kernel.release(file);
        stage.end().await;
    })
}

fn too_little(seed: u64, history: &History) -> Result<(), String> {
    lied_to(seed, history, Lie::TooLittle, FetchError::Fault(PeerFault::TooLittle), ATTEMPTS)
}

fn unasked(seed: u64, history: &History) -> Result<(), String> {
    lied_to(seed, history, Lie::Unasked, FetchError::Fault(PeerFault::Unasked), ATTEMPTS)
}

fn huge(seed: u64, history: &History) -> Result<(), String> {
    let expected = FetchError::Fault(PeerFault::OutOfRange("message length"));
    lied_to(seed, history, Lie::Huge, expected, ATTEMPTS)
}

fn silence(seed: u64, history: &History) -> Result<(), String> {
    let liar = Liar::new(Lie::Silence, chunks(CHUNKS));
    let setup = Setup { liar: Some(liar.clone()), ..Setup::new(seed) };
    with_reader(setup, history, the_file, move |stage| {
        let liar = liar.clone();
        async move {
            stage.listed().await;
            let file = stage.open(LIARS_FILE);
            // The fake kernel sees to it that this is not late.
            let asked_at = tokio::time::Instant::now();
            assert_eq!(stage.kernel.read(file, 0, 4_096).await.unwrap_err(), Errno::Io);
            assert!(asked_at.elapsed() >= secs(29), "{:?}", asked_at.elapsed());
            assert!(liar.asked() <= ATTEMPTS, "it was asked {} times", liar.asked());
            stage.kernel.release(file);
            stage.end().await;
        }
    })
}

fn torn(seed: u64, history: &History) -> Result<(), String> {
    lied_to(seed, history, Lie::Torn, FetchError::StreamLost, ATTEMPTS)
}
