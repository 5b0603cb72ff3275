//! Worlds in which all write: an owner and those who have joined it, each with a folder of its own that is a replica of the share.
//!
//! Each host runs the same node, client and server as the program does over its folder ([`folder`]); programs write in all of
//! them (programs), through a mount or behind it; what was written, and what somebody put an end to, is written down beside
//! ([`works`]), and in the end all folders and all trees are compared ([`referee`]). What happens is drawn from a seed
//! ([`plan`]).

pub mod folder;
pub mod plan;
mod programs;
pub mod referee;
pub mod works;
pub mod world;

use farshore_engine::path::{Name, PathError, RelPath};

/// A path in the same directory.
fn path_beside(at: &RelPath) -> Result<RelPath, PathError> {
    let mut names = at.names().to_vec();
    names.pop();
    names.push(Name::new(b"new~")?);
    RelPath::new(names)
}
