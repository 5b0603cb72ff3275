//! Calls that cannot be done at once: they wait elsewhere than in a thread that the kernel's other calls need.

use super::away::{Then, system_errno};
use super::volume::{Live, Outcome};
use farshore_engine::path::RelPath;
use rustix::io::Errno;
use std::sync::Arc;
use std::thread;

/// How often something is tried that waits, comes, and is then found to be away again.
const TRIES: u32 = 4;

/// Why a call was not done.
#[derive(Debug)]
pub(super) enum Held {
    /// It cannot be.
    Failed(Errno),
    /// It changes what is away, which is done in turn with whoever looks at the folder and tells.
    ForTurn,
    /// It needs the file at this path to be in the folder.
    ForFile(RelPath),
}

impl From<Errno> for Held {
    fn from(error: Errno) -> Held {
        Held::Failed(error)
    }
}

/// What a call that may have to wait comes to.
pub(super) type Tried<T> = Result<T, Held>;

/// Whether nobody else looks at the folder and tells meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Others may.
    Others,
    /// Nobody does: what is found to be away stays so, unless it is told otherwise by this call.
    Ours,
}

impl Turn {
    /// What is to be done next changes what is away.
    ///
    /// # Errors
    /// [`Held::ForTurn`]
    pub(super) fn must_be_ours(self) -> Tried<()> {
        if self == Turn::Ours { Ok(()) } else { Err(Held::ForTurn) }
    }
}

/// A call. It is tried again from its beginning once it has what it waited for.
pub(super) type Call<T> = Box<dyn Fn(&Live, Turn) -> Tried<T> + Send>;

/// Does `call`, and then `then` with what came of it: on this thread if it need not wait.
pub(super) fn settle<T: Send + 'static>(folder: &Arc<Live>, call: Call<T>, then: Then<Outcome<T>>) {
    try_again(folder, call, then, TRIES);
}

fn try_again<T: Send + 'static>(folder: &Arc<Live>, call: Call<T>, then: Then<Outcome<T>>, tries: u32) {
    match call(folder, Turn::Others) {
        Err(Held::ForTurn) => in_turn(folder, call, then, tries),
        tried => go_on(folder, tried, call, then, tries),
    }
}

fn in_turn<T: Send + 'static>(folder: &Arc<Live>, call: Call<T>, then: Then<Outcome<T>>, tries: u32) {
    let order = Arc::clone(&folder.teller.order);
    if let Some(tried) = order.at_once(|| call(folder, Turn::Ours)) {
        return go_on(folder, tried, call, then, tries);
    }
    // Whoever has the turn may look for long.
    let folder = Arc::clone(folder);
    let wait = move || {
        let tried = order.wait_for(|| call(&folder, Turn::Ours));
        go_on(&folder, tried, call, then, tries);
    };
    if let Err(error) = thread::Builder::new().name("farshore-turn".to_owned()).spawn(wait) {
        // With the call its reply is dropped, which says so too.
        tracing::error!("no thread can be started: {error}");
    }
}

fn go_on<T: Send + 'static>(folder: &Arc<Live>, tried: Tried<T>, call: Call<T>, then: Then<Outcome<T>>, tries: u32) {
    match tried {
        Ok(done) => then(Ok(done)),
        Err(Held::Failed(error)) => then(Err(error)),
        // The kernel looks again, and so does the program.
        Err(Held::ForTurn | Held::ForFile(_)) if tries == 0 => then(Err(Errno::STALE)),
        Err(Held::ForTurn) => try_again(folder, call, then, tries - 1),
        Err(Held::ForFile(path)) => {
            let Some(away) = folder.away.clone() else { return then(Err(Errno::STALE)) };
            let folder = Arc::clone(folder);
            let brought = move |brought| match brought {
                Ok(()) => try_again(&folder, call, then, tries - 1),
                Err(farshore_engine::Errno::NoEntry) => then(Err(Errno::STALE)),
                Err(error) => then(Err(system_errno(error))),
            };
            away.bring(&path, Box::new(brought));
        }
    }
}
