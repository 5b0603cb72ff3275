//! Talking to a running `farshore share` or `farshore mount`: each listens on a socket in the state directory.
//!
//! One JSON object a line, in both directions: a [`Request`] is answered by one [`Answer`], and a connection may carry
//! several, one after the other. Only the user whose state directory it is can connect: the directory of the sockets is
//! closed to all others. A line that is no request gets an answer that says so, and hurts nothing.

mod client;
mod find;
mod journal;
mod process;
mod protocol;
mod report;
mod route;
mod run_dir;
mod server;
#[cfg(test)]
mod tests;

pub use client::{AskError, Reached, ask, ask_all};
pub use find::{FindError, Found, mounted_path, shared_path};
pub use process::{FileHandler, Hosting, Part, Process};
pub use protocol::{ANSWER_BYTES_MAX, Answer, FileCommand, FileRequest, REQUEST_BYTES_MAX, Request};
pub use report::{
    Event, FetchReport, FuseReport, LinkReport, MountReport, OpenFileReport, OperationReport, PeerReport, Report, Role,
    ShareReport, TotalsReport,
};
pub use route::{RouteError, do_with_path};
pub use run_dir::{RunDir, RunDirError, Sockets};
pub use server::{Answers, Control};
