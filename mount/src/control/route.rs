//! From a path on the command line to the process that it concerns.

use super::client::{AskError, Reached, ask, ask_all};
use super::find::{FindError, Found, mounted_path, shared_path};
use super::protocol::{Answer, FileCommand, FileRequest, Request};
use super::report::{Report, Role};
use super::run_dir::{RunDir, RunDirError};
use crate::fuse;
use crate::json_path::JsonPath;
use std::path::{Path, PathBuf};

/// Why something was not done with a path.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No process has it.
    #[error(
        "{} is in no folder that is shared from this device now; is `farshore share` running, with the same --state?",
        .0.display()
    )]
    NotShared(PathBuf),
    /// No process has it.
    #[error(
        "{} is in no mount of this device; is `farshore mount` running, with the same --state?", .0.display()
    )]
    NotMounted(PathBuf),
    /// It cannot be followed.
    #[error(transparent)]
    Path(FindError),
    /// The process does not want to.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// What it was asked about.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The process does not answer.
    #[error("the process that has {} cannot be asked: {error}", path.display())]
    Silent {
        /// What it was to be asked about.
        path: PathBuf,
        /// Why not.
        error: AskError,
    },
    /// The sockets cannot be used.
    #[error(transparent)]
    Run(#[from] RunDirError),
}

/// Has the process that shares or mounts `path` do something with it, and returns what that says. The path is not
/// looked at inside of any mount; see [`mounted_path`].
///
/// # Errors
/// No running process of the state directory has it, or that process refuses.
pub async fn do_with_path(state: &Path, path: &Path, command: FileCommand) -> Result<String, RouteError> {
    let wants_share = match command {
        FileCommand::Unshare | FileCommand::Reshare => true,
        FileCommand::Pin | FileCommand::Unpin | FileCommand::Evict => false,
    };
    let none = || match wants_share {
        true => RouteError::NotShared(path.to_owned()),
        false => RouteError::NotMounted(path.to_owned()),
    };
    let run = RunDir::existing(state)?.ok_or_else(none)?;
    let places = places(ask_all(state, &Request::Status {}).await?, wants_share);
    let roots: Vec<_> = places.iter().map(|(root, _)| root.clone()).collect();
    // Mounts of other devices are not looked into either. If the kernel does not tell, our own are known.
    let mut mounts = fuse::mountpoints().unwrap_or_default();
    let found = if wants_share {
        shared_path(path, &roots, &mounts)
    } else {
        mounts.extend(roots.iter().cloned());
        mounted_path(path, &mounts)
    };
    let Found { root, inside } = found.map_err(|error| match error {
        FindError::Elsewhere(_) => none(),
        FindError::DotDot(_) | FindError::Io { .. } => RouteError::Path(error),
    })?;
    let (_, socket) = places.into_iter().find(|(place, _)| *place == root).ok_or_else(none)?;
    let request = Request::File(FileRequest { command, path: JsonPath::from(inside.as_path()) });
    match ask(&run, &socket, &request).await {
        Ok(Answer::Done { text }) => Ok(text),
        Ok(Answer::Refused { reason }) => Err(RouteError::Refused { path: path.to_owned(), reason }),
        Ok(Answer::Status(_) | Answer::Dismissed { .. }) => {
            Err(RouteError::Refused { path: path.to_owned(), reason: "it answered another question".to_owned() })
        }
        Err(error) => Err(RouteError::Silent { path: path.to_owned(), error }),
    }
}

/// The folders that are shared, or the mountpoints of what was joined, each with the socket of its process.
fn places(reached: Vec<Reached>, wants_share: bool) -> Vec<(PathBuf, String)> {
    let place = |report: &Report| match &report.role {
        Role::Share(share) => wants_share.then(|| share.folder.clone()),
        Role::Mount(_) => report.mountpoint.clone().filter(|_| !wants_share),
    };
    let known = reached.into_iter().filter_map(|Reached { socket, answer }| match answer {
        Ok(Answer::Status(report)) => Some((place(&report)?.to_path().ok()?, socket)),
        Ok(_) | Err(_) => None,
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::{LinkReport, MountReport, ShareReport, TotalsReport};
    use super::super::server::{Answers, Control};
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, ready};
    use std::fs;
    use std::sync::Arc;

    /// A process that says what it is, and repeats what it is asked to do.
    struct Station(Report);

    impl Answers for Station {
        fn answer(&self, request: Request) -> BoxFuture<'static, Answer> {
            let answer = match request {
                Request::Status {} => Answer::Status(Box::new(self.0.clone())),
                Request::File(file) if file.path == JsonPath::Text("no".into()) => {
                    Answer::Refused { reason: "it does not want to".into() }
                }
                Request::File(file) => Answer::Done { text: format!("{:?} {}", file.command, file.path) },
                Request::Dismiss { .. } => Answer::Dismissed { connections: 0, ticket: None },
            };
            ready(answer).boxed()
        }
    }

    fn station(role: Role, mountpoint: Option<&Path>) -> Arc<Station> {
        Arc::new(Station(Report {
            pid: 1,
            version: String::new(),
            since_unix_seconds: 0,
            uptime_milliseconds: 0,
            role,
            mountpoint: mountpoint.map(JsonPath::from),
            entries: 0,
            open_handles: 0,
            open_files: Vec::new(),
            open_files_left_out: 0,
            fetching: Vec::new(),
            fetching_left_out: 0,
            cache_bytes: 0,
            pins: 0,
            totals: TotalsReport::default(),
            fuse: None,
            events: Vec::new(),
        }))
    }

    fn share(folder: &Path) -> Role {
        let (share, listening) = (String::new(), String::new());
        Role::Share(ShareReport { folder: folder.into(), share, listening, addresses: Vec::new(), peers: Vec::new() })
    }

    fn mount() -> Role {
        Role::Mount(MountReport {
            share: String::new(),
            owner: String::new(),
            addresses: Vec::new(),
            store: JsonPath::Text("/store".into()),
            writable: false,
            link: LinkReport::Up {},
            listening: None,
            others: Vec::new(),
        })
    }

    #[tokio::test]
    async fn each_path_reaches_the_process_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().canonicalize().unwrap().join(name);
        for name in ["state", "folder", "folder/inner", "mnt", "own"] {
            fs::create_dir(path(name)).unwrap();
        }
        let state = path("state");
        let ask = async |below: &str, command| do_with_path(&state, &path(below), command).await;
        assert!(matches!(ask("folder/a", FileCommand::Unshare).await, Err(RouteError::NotShared(_))));
        let stations = [
            station(share(&path("folder")), Some(&path("own"))),
            station(share(&path("folder/inner")), None),
            station(mount(), Some(&path("mnt"))),
        ];
        let _listening = stations.map(|station| Control::start(&state, station).unwrap());
        assert_eq!(ask("folder/a/b", FileCommand::Unshare).await.unwrap(), "Unshare a/b");
        assert_eq!(ask("folder/inner/a", FileCommand::Reshare).await.unwrap(), "Reshare a", "the innermost has it");
        assert_eq!(ask("mnt/../mnt/a/b", FileCommand::Pin).await.unwrap(), "Pin a/b");
        assert_eq!(ask("mnt", FileCommand::Evict).await.unwrap(), "Evict ");
        for (elsewhere, command) in
            [("folder/a", FileCommand::Pin), ("own/a", FileCommand::Pin), ("state/a", FileCommand::Evict)]
        {
            let error = ask(elsewhere, command).await.unwrap_err();
            assert!(matches!(error, RouteError::NotMounted(_)), "{error}");
        }
        assert!(matches!(ask("mnt/a", FileCommand::Unshare).await, Err(RouteError::NotShared(_))));
        assert!(matches!(ask("mnt/a/../b", FileCommand::Unpin).await, Err(RouteError::Path(FindError::DotDot(_)))));
        let error = ask("mnt/no", FileCommand::Pin).await.unwrap_err();
        assert!(error.to_string().ends_with("mnt/no: it does not want to"), "{error}");
    }
}
