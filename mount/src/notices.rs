//! What the engine's notices mean to a person: for the log, and for `farshore status`.

use farshore_engine::{DialError, Notice};
use tracing::Level;

/// A notice that a person should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How much it matters.
    pub level: Level,
    /// What kind it is, as a stable name.
    pub kind: &'static str,
    /// What happened, to what.
    pub text: String,
    /// The path in the share that it is about, as bytes.
    pub path: Option<Vec<u8>>,
}

/// What `notice` tells a person; `None` if it tells them nothing.
#[must_use]
pub fn told(notice: &Notice) -> Option<Told> {
    let tell = |level, kind, text| Some(Told { level, kind, text, path: None });
    match notice {
        Notice::LinkUp { peer } => tell(Level::INFO, "link_up", format!("connected to {peer:?}")),
        Notice::LinkDown { peer } => {
            tell(Level::WARN, "link_down", format!("lost the connection to {peer:?}; trying to get it back"))
        }
        Notice::DialFailed { peer, error: DialError::Unreachable } => {
            tell(Level::DEBUG, "unreachable", format!("{peer:?} does not answer"))
        }
        Notice::DialFailed { peer, error: DialError::Denied } => {
            tell(Level::WARN, "denied", format!("{peer:?} does not let us in any more"))
        }
        Notice::DialFailed { peer, error: DialError::Incompatible } => {
            tell(Level::WARN, "incompatible", format!("{peer:?} runs a version that this one cannot talk to"))
        }
        Notice::PeerFault { peer, fault } => {
            tell(Level::WARN, "peer_fault", format!("{peer:?} broke a rule and was hung up on: {fault}"))
        }
        Notice::FetchFailed { peer, path, chunk, error } => Some(Told {
            level: Level::WARN,
            kind: "fetch_failed",
            text: format!("chunk {chunk} of {path} cannot be had from {peer:?}: {error:?}; readers got an error"),
            path: Some(path.to_bytes()),
        }),
        Notice::StoreFailed { error, .. } => {
            tell(Level::DEBUG, "store_failed", format!("the store does not take what was fetched: {error:?}"))
        }
        Notice::SaveFailed { error, .. } => tell(
            Level::DEBUG,
            "save_failed",
            format!("the store does not write down what it holds: {error:?}; after a restart it may be fetched again"),
        ),
        Notice::NotShared { path, reason } => Some(Told {
            level: Level::WARN,
            kind: "not_shared",
            text: format!("not shared: {path}: {reason}"),
            path: Some(path.to_bytes()),
        }),
        // Whoever tried it has said more.
        Notice::ApplyFailed { path, error } => Some(Told {
            level: Level::DEBUG,
            kind: "apply_failed",
            text: format!("{path} cannot be made what a peer made it: {error:?}; it is tried again"),
            path: Some(path.to_bytes()),
        }),
        Notice::Listed { .. }
        | Notice::LookAt { .. }
        | Notice::PinsChanged
        | Notice::InvalidateInode { .. }
        | Notice::InvalidateEntry { .. }
        | Notice::Announced { .. } => None,
    }
}

/// Writes it into the log.
pub(crate) fn log(told: &Told) {
    let text = &told.text;
    match told.level {
        Level::ERROR => tracing::error!("{text}"),
        Level::WARN => tracing::warn!("{text}"),
        Level::INFO => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    }
}
