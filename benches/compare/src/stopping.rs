//! Ctrl-C: everything that waits looks here, so that all ends the way it does when something fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Somebody wants us to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(1);

/// Hears SIGINT and SIGTERM from now on.
pub(crate) fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupted, mut terminated) = {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
        });
        STOPPED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Whether we are to end.
pub(crate) fn is_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// How waiting has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It did not happen in time.
    TooLong,
    /// It cannot happen any more, and why.
    Failed(String),
    /// Somebody wants us to end.
    Stopped,
}

impl<E: std::fmt::Display> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        Trouble::Failed(format!("{error:#}"))
    }
}

/// Polls until `look` has something, fails, or `limit` is over.
pub(crate) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Result<Option<T>, Trouble>) -> Result<T, Trouble> {
    let deadline = Instant::now() + limit;
    loop {
        if is_stopped() {
            return Err(Trouble::Stopped);
        }
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Trouble::TooLong);
        }
        thread::sleep(POLL);
    }
}
