//! A running `farshore share` or `farshore mount`, and what it answers when it is asked.

use super::journal::Journal;
use super::protocol::{Answer, FileCommand, Request};
use super::report::{
    FetchReport, FuseReport, LinkReport, MountReport, OpenFileReport, OperationReport, OtherReport, PeerReport, Report,
    Role, ShareReport, TotalsReport,
};
use super::server::Answers;
use crate::circle::Circle;
use crate::fuse::{Mounted, Operation, Stats};
use crate::identity::parse_device_id;
use crate::json_path::JsonPath;
use crate::net::server::Guests;
use crate::node::Node;
use crate::sharing::Roster;
use crate::state::State;
use crate::ticket::Ticket;
use farshore_engine::path::RelPath;
use farshore_engine::{ContentView, Ino, Link, PeerId, View};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The most open files, and files on their way, that a report lists.
const LISTED_MAX: usize = 200;

/// Does what is asked for with one path of the share. The text is for whoever asked.
pub type FileHandler = Box<dyn Fn(FileCommand, RelPath) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// What a process does.
pub enum Part {
    /// It offers a folder.
    Share(Hosting),
    /// It has joined a share.
    Mount {
        /// With this ticket.
        ticket: Ticket,
        /// Fetched bytes are kept here.
        store: PathBuf,
        /// The others who have it, if it has the share in a folder of its own.
        circle: Option<Arc<Circle>>,
    },
}

/// A folder that is offered.
pub struct Hosting {
    /// The folder: absolute, without symlinks.
    pub folder: PathBuf,
    /// Where it listens.
    pub listening: String,
    /// The ticket that it began with.
    pub ticket: Ticket,
    /// Who is connected.
    pub guests: Arc<Guests>,
    /// Who may be.
    pub state: State,
    /// Who has the share in a folder of its own.
    pub roster: Arc<Roster>,
}

/// A running process.
pub struct Process {
    node: Arc<Node>,
    part: Arc<Part>,
    mount: Option<(PathBuf, Arc<Stats>)>,
    files: Option<FileHandler>,
    journal: Journal,
    since_unix_seconds: u64,
    started_at: Instant,
}

impl Process {
    /// A process that runs `node`. From now on, what goes wrong is remembered.
    #[must_use]
    pub fn new(node: Arc<Node>, part: Part) -> Process {
        let journal = Journal::default();
        let notes = journal.clone();
        node.on_notice(Box::new(move |notice| notes.note(notice, unix_seconds())));
        Process {
            node,
            part: Arc::new(part),
            mount: None,
            files: None,
            journal,
            since_unix_seconds: unix_seconds(),
            started_at: Instant::now(),
        }
    }

    /// It is mounted.
    #[must_use]
    pub fn mounted(mut self, mounted: &Mounted) -> Process {
        self.mount = Some((mounted.mountpoint().clone(), Arc::clone(mounted.stats())));
        self
    }

    /// It can do something with single paths.
    #[must_use]
    pub fn handling(mut self, files: FileHandler) -> Process {
        self.files = Some(files);
        self
    }

    fn report(&self) -> Report {
        let role = self.role();
        let mut report = self.node.view(|view| {
            let open = view.open_files();
            Report {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                since_unix_seconds: self.since_unix_seconds,
                uptime_milliseconds: 0,
                role,
                mountpoint: None,
                // The root is not an entry of its own.
                entries: view.entries().saturating_sub(1),
                open_handles: view.open_handles() as u64,
                open_files_left_out: open.len().saturating_sub(LISTED_MAX) as u64,
                open_files: open.into_iter().take(LISTED_MAX).map(|file| open_file(&view, file)).collect(),
                fetching: view.fetching().take(LISTED_MAX).map(fetch).collect(),
                fetching_left_out: view.fetching().skip(LISTED_MAX).count() as u64,
                cache_bytes: view.stored_bytes(),
                pins: view.pins().count() as u64,
                totals: totals(&view),
                fuse: None,
                events: Vec::new(),
            }
        });
        // The rest does not need the engine. Half a billion years fit.
        report.uptime_milliseconds = self.started_at.elapsed().as_millis() as u64;
        report.mountpoint = self.mount.as_ref().map(|(path, _)| path.as_path().into());
        report.fuse = self.mount.as_ref().map(|(_, stats)| fuse(stats));
        report.events = self.journal.events();
        report
    }

    fn role(&self) -> Role {
        match &*self.part {
            Part::Share(hosting) => Role::Share(ShareReport {
                folder: hosting.folder.as_path().into(),
                share: hosting.ticket.share().to_string(),
                listening: hosting.listening.clone(),
                addresses: hosting.ticket.addresses().to_vec(),
                peers: hosting.peers(),
            }),
            Part::Mount { ticket, store, circle } => Role::Mount(MountReport {
                share: ticket.share().to_string(),
                owner: ticket.owner().to_string(),
                addresses: ticket.addresses().to_vec(),
                store: store.as_path().into(),
                writable: circle.is_some(),
                link: self.link(ticket.owner()).unwrap_or(LinkReport::Ended {}),
                listening: circle.as_ref().and_then(|circle| circle.listening()).map(str::to_owned),
                others: circle.iter().flat_map(|circle| self.others(circle)).collect(),
            }),
        }
    }

    fn others(&self, circle: &Circle) -> Vec<OtherReport> {
        let other = |(peer, addresses): (PeerId, _)| OtherReport {
            id: peer.to_string(),
            addresses,
            link: self.link(peer).unwrap_or(LinkReport::Unreachable {}),
        };
        circle.members().into_iter().map(other).collect()
    }

    /// The connection to a peer; `None` if it is not followed.
    fn link(&self, peer: PeerId) -> Option<LinkReport> {
        let (now, down_since_unix_seconds) = (self.node.now(), self.journal.down_since(peer));
        let link = self.node.view(|view| view.peers().find(|known| known.peer == peer).map(|known| known.link))?;
        Some(match link {
            Link::Up(_) => LinkReport::Up {},
            Link::Dialing(..) => LinkReport::Connecting { down_since_unix_seconds },
            Link::Waiting(at) => LinkReport::Waiting {
                retry_in_milliseconds: at.as_micros().saturating_sub(now.as_micros()) / 1000,
                down_since_unix_seconds,
            },
            Link::Ended => LinkReport::Ended {},
        })
    }

    fn do_with_file(&self, command: FileCommand, path: &JsonPath) -> BoxFuture<'static, Answer> {
        let refused = |reason: String| ready(Answer::Refused { reason }).boxed();
        let parsed = path.to_path().and_then(|path| {
            RelPath::parse(path.as_os_str().as_bytes()).map_err(|error| format!("this is no path in a share: {error}"))
        });
        match (parsed, &self.files) {
            (Err(reason), _) => refused(reason),
            (Ok(_), None) => refused("this process cannot do that".to_owned()),
            (Ok(path), Some(handler)) => handler(command, path)
                .map(|result| match result {
                    Ok(text) => Answer::Done { text },
                    Err(reason) => Answer::Refused { reason },
                })
                .boxed(),
        }
    }

    fn dismiss(&self, peer: &str) -> BoxFuture<'static, Answer> {
        let Ok(peer) = parse_device_id(peer) else {
            return ready(Answer::Refused { reason: format!("{peer:?} is not a device id") }).boxed();
        };
        let (part, node) = (Arc::clone(&self.part), Arc::clone(&self.node));
        let dismissed = move || match &*part {
            Part::Share(hosting) => {
                let connections = hosting.guests.dismiss(peer) as u64;
                node.unfollow(peer);
                // The other devices of the share hang up on it, too.
                hosting.roster.read();
                Answer::Dismissed { connections, ticket: hosting.ticket_now() }
            }
            Part::Mount { .. } => Answer::Dismissed { connections: 0, ticket: None },
        };
        // It reads the list of shares.
        tokio::task::spawn_blocking(dismissed)
            .map(|answer| answer.unwrap_or_else(|error| Answer::Refused { reason: error.to_string() }))
            .boxed()
    }
}

impl Answers for Process {
    fn answer(&self, request: Request) -> BoxFuture<'static, Answer> {
        match request {
            Request::Status {} => ready(Answer::Status(Box::new(self.report()))).boxed(),
            Request::Dismiss { peer } => self.dismiss(&peer),
            Request::File(file) => self.do_with_file(file.command, &file.path),
        }
    }
}

impl Hosting {
    fn peers(&self) -> Vec<PeerReport> {
        let present = self.guests.present();
        present
            .into_iter()
            .map(|(peer, connections)| PeerReport { id: peer.to_string(), connections: connections as u64 })
            .collect()
    }

    /// The ticket that is good now: its secret may have been renewed.
    fn ticket_now(&self) -> Option<String> {
        let shares = self.state.shares().ok()?;
        let entry = shares.into_iter().find(|entry| entry.share == self.ticket.share())?;
        let addresses = self.ticket.addresses().to_vec();
        Ticket::new(entry.share, self.ticket.owner(), entry.secret, addresses).ok().map(|ticket| ticket.encode())
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn open_file(view: &View<'_>, (ino, opens): (Ino, u32)) -> OpenFileReport {
    OpenFileReport { path: view.path_of(ino).map(|path| JsonPath::from_bytes(&path.to_bytes())), opens }
}

fn fetch(content: ContentView) -> FetchReport {
    FetchReport {
        path: JsonPath::from_bytes(&content.path.to_bytes()),
        have_chunks: content.have_chunks,
        total_chunks: content.total_chunks,
        open_chunks: content.open_chunks as u64,
        waiters: content.waiters as u64,
    }
}

fn totals(view: &View<'_>) -> TotalsReport {
    let totals = view.totals();
    TotalsReport {
        steps: totals.steps,
        read_hits: totals.read_hits,
        read_misses: totals.read_misses,
        fetched_bytes: totals.fetched_bytes,
        resumed_bytes: totals.resumed_bytes,
        damaged_chunks: totals.damaged_chunks,
        failed_fetches: totals.failed_fetches,
        store_failures: totals.store_failures,
        peer_faults: totals.peer_faults,
        failed_requests: totals.failed_requests,
    }
}

fn fuse(stats: &Stats) -> FuseReport {
    let operations = Operation::ALL.map(|operation| {
        let counted = stats.operation(operation);
        OperationReport {
            operation: operation.name().to_owned(),
            count: counted.count,
            errors: counted.errors,
            // Five hundred years fit.
            time_nanoseconds: counted.time.as_nanos() as u64,
        }
    });
    FuseReport {
        read_bytes: stats.read_bytes(),
        passthrough_opens: stats.passthrough_opens(),
        lost_replies: stats.lost_replies(),
        operations: operations.into(),
    }
}
