//! What can be asked of a running process, and what it answers.

use super::report::Report;
use crate::json_path::JsonPath;
use serde::{Deserialize, Serialize};

/// The longest request, in bytes with its end of line.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The longest answer, in bytes with its end of line. What a report lists is cut so that it stays far below.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Something that is asked of a running process: `{"ask": "status"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How it is doing.
    Status {},
    /// Close the connections of a device at once. That it is not let in again is up to the state directory, and comes
    /// first.
    Dismiss {
        /// The device's id: 64 hexadecimal digits.
        peer: String,
    },
    /// Do something with one path of the share.
    File(FileRequest),
}

/// Something to do with one path of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// What.
    pub command: FileCommand,
    /// With what: a path inside the share, without a leading slash.
    pub path: JsonPath,
}

/// What can be done with a path of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileCommand {
    /// Stop offering it to others.
    Unshare,
    /// Offer it again.
    Reshare,
    /// Fetch all of it, and never evict it.
    Pin,
    /// Let it be evicted again.
    Unpin,
    /// Let go of what was fetched of it.
    Evict,
}

/// What a process answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Report>),
    /// To [`Request::Dismiss`].
    Dismissed {
        /// How many connections were closed.
        connections: u64,
        /// The ticket that is good from now on; `None` if it cannot be made.
        ticket: Option<String>,
    },
    /// To [`Request::File`]: it was done.
    Done {
        /// What came of it, for people.
        text: String,
    },
    /// It was not done.
    Refused {
        /// Why not, for people.
        reason: String,
    },
}
