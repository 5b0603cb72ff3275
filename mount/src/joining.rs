//! Joining a share: a node that follows its owner, for a mount, a listing or a download.

use crate::circle::Circle;
use crate::net::Link as Connection;
use crate::net::transport::{Listener, Transport};
use crate::node::{Admission, Node, Parts, Remembered, Route};
use crate::notices;
use crate::own_folder::OwnFolder;
use crate::sharing::{AGENT, random_u64};
use crate::store::Store;
use crate::ticket::Ticket;
use crate::waking;
use farshore_engine::record::Kind;
use farshore_engine::{Config, DialError, Link, Notice, PeerId, View};
use farshore_proto::{Hello, TreeId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long an owner who cannot be reached is tried before that is called a failure.
pub const REACH_LIMIT: Duration = Duration::from_secs(15);

/// The pause before an owner who could not be reached is tried again, to ask whether the share is writable.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How long an owner who cannot be reached is waited for, if it is known what there was.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How often is looked whether all directories are in the folder.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is done about an owner who cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Nothing can be had without the owner.
    IsAnError,
    /// What is remembered of the share is shown, if anything is, after an attempt of [`PATIENCE`]; it goes on being
    /// remembered.
    IsBridged,
    /// The same, and somebody has made that attempt already, in vain.
    IsKnown,
}

/// A share that was joined.
pub struct Joined {
    /// What follows the owner.
    pub node: Arc<Node>,
    /// What is shown instead, if the owner has not told its tree yet.
    pub bridged: Option<Bridged>,
}

/// What is shown is what was there earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridged {
    /// When it was there, in seconds since 1970; `None` if it is what a folder of our own holds.
    pub known_unix_seconds: Option<u64>,
    /// The owner was reached, and has not told everything yet.
    pub is_connected: bool,
}

/// Why a share cannot be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The owner does not let us in.
    #[error(
        "the owner does not accept this ticket: it was revoked, or is for another share; ask for the ticket that \
         `farshore share` prints now"
    )]
    Denied,
    /// The owner speaks another version.
    #[error("the owner runs a version of Farshore that this one cannot talk to; use the same version on both sides")]
    Incompatible,
    /// The owner was not reached in time.
    #[error("cannot reach the owner at {addresses} within {} s; is `farshore share` running there?", REACH_LIMIT.as_secs())]
    Unreachable {
        /// Where it was tried.
        addresses: String,
    },
    /// The owner was reached, and then said nothing more.
    #[error("the owner was reached, but does not go on telling what it shares; is the network very slow?")]
    Stalled,
    /// The owner broke a rule.
    #[error("the owner's listing cannot be used: {0}")]
    Broken(farshore_engine::PeerFault),
    /// The folder in which the share is kept went away before it had been read.
    #[error("{} vanished while it was being read", .0.display())]
    Vanished(PathBuf),
}

/// Joins the share of `ticket`. Returns when its whole tree is known, or, if the owner's absence is bridged and what was
/// there is remembered, when the owner has not answered for [`PATIENCE`].
///
/// # Errors
/// Why not; nothing is left running then.
pub async fn join(
    ticket: &Ticket,
    transport: Arc<dyn Transport>,
    store: Arc<dyn Store>,
    config: Config,
    absence: Absence,
) -> Result<Joined, JoinError> {
    let tree = TreeId { owner: ticket.owner(), share: ticket.share() };
    let remembered = (absence != Absence::IsAnError).then_some(Remembered::Tree(tree));
    start(ticket, transport, store, config, (remembered, absence), None).await
}

/// What it takes to have a share in a folder of our own.
pub struct Membership<'a> {
    /// The folder.
    pub folder: &'a mut OwnFolder,
    /// What is done if the owner cannot be reached: what the folder holds may be shown if it was there before.
    pub absence: Absence,
    /// The others who have the share.
    pub circle: Arc<Circle>,
    /// What takes their connections, if they can reach us.
    pub listener: Option<Box<dyn Listener>>,
}

/// Joins the share of `ticket` with a folder of our own, which is a replica of it: what is changed in either is changed in
/// both. The owner's absence is bridged by what the folder holds. Returns when the directories that there are can be seen in it.
///
/// # Errors
/// As for [`join`]; and [`JoinError::Vanished`].
pub async fn join_with_folder(
    ticket: &Ticket,
    transport: Arc<dyn Transport>,
    store: Arc<dyn Store>,
    config: Config,
    membership: Membership<'_>,
) -> Result<Joined, JoinError> {
    let config = Config { keeps_folder: true, ..config };
    let remembered = (Some(Remembered::Folder(ticket.share())), membership.absence);
    let joined = start(ticket, transport, store, config, remembered, Some(membership)).await?;
    laid_out(&joined.node).await;
    Ok(joined)
}

/// Waits, for a while, until all directories and symlinks that peers have are in the folder: files are shown where their
/// directory is.
async fn laid_out(node: &Node) {
    let is_missing = |view: View<'_>| {
        let mut dirs = view.tree().filter(|(_, record)| !matches!(record.kind, Kind::File { .. }));
        dirs.any(|(path, _)| view.own_inode(&path).is_none())
    };
    let laid_out = async {
        while node.view(is_missing) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(PATIENCE, laid_out).await.is_err() {
        tracing::info!("not all directories are in the folder yet; what is in the others shows when they are");
    }
}

/// Whether the owner wants to be told of changes: whether the share is writable.
///
/// # Errors
/// The owner cannot be reached in time, or does not let us in.
pub async fn takes_changes(ticket: &Ticket, transport: &dyn Transport, patience: Duration) -> Result<bool, JoinError> {
    let hello = hello(ticket);
    let reached = async {
        loop {
            match Connection::dial(transport, ticket.addresses(), ticket.owner(), &hello).await {
                Ok(link) => {
                    link.say_goodbye().await;
                    return Ok(link.welcome().calls_back);
                }
                Err(DialError::Unreachable) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(DialError::Denied) => return Err(JoinError::Denied),
                Err(DialError::Incompatible) => return Err(JoinError::Incompatible),
            }
        }
    };
    let unreachable = || JoinError::Unreachable { addresses: ticket.addresses().join(", ") };
    tokio::time::timeout(patience, reached).await.unwrap_or_else(|_| Err(unreachable()))
}

fn hello(ticket: &Ticket) -> Hello {
    Hello::new(ticket.share(), Some(*ticket.secret()), AGENT)
}

/// Starts a node that follows the owner, and waits until it shows all that there is to show.
async fn start(
    ticket: &Ticket,
    transport: Arc<dyn Transport>,
    store: Arc<dyn Store>,
    config: Config,
    (remembered, absence): (Option<Remembered>, Absence),
    membership: Option<Membership<'_>>,
) -> Result<Joined, JoinError> {
    let owner = ticket.owner();
    let (mut peers, mut call_back) = (BTreeMap::new(), None);
    let mut admission: Arc<dyn Admission> = Arc::new(Nobody);
    if let Some(Membership { circle, .. }) = &membership {
        (peers, admission, call_back) = (circle.routes(), circle.clone(), Some(circle.hello()));
    }
    peers.insert(owner, Route { addresses: ticket.addresses().to_vec(), hello: hello(ticket) });
    let node = Node::start(Parts {
        config: Config { epoch: random_u64() | 1, ..config },
        seed: random_u64(),
        transport,
        store,
        folder: membership.as_ref().map(|membership| membership.folder.served()),
        admission,
        peers,
        call_back,
        remembered,
    });
    let (sender, mut outcomes) = mpsc::unbounded_channel();
    let has_joined = Arc::new(AtomicBool::new(false));
    let (joined, mut last_failures) = (Arc::clone(&has_joined), BTreeMap::new());
    node.on_notice(Box::new(move |notice| {
        // What happens before, whoever wants to join tells; that it connects needs no telling.
        if joined.load(Ordering::Acquire) {
            return log_notice(notice, &mut last_failures);
        }
        if let Some(outcome) = outcome(notice, owner) {
            joined.store(outcome.is_ok(), Ordering::Release);
            // The first one is enough.
            let _ = sender.send(outcome);
        }
    }));
    let mut is_known = node.recalled_at_unix_seconds().is_some();
    if let Some(Membership { folder, circle, listener, .. }) = membership {
        // Before anybody says what should be in it: what is there need not be brought.
        if !folder.begin(&node).await {
            node.shut_down().await;
            return Err(JoinError::Vanished(folder.path().to_owned()));
        }
        is_known = absence != Absence::IsAnError;
        circle.begin(&node, listener);
    }
    waking::try_when_worth_it(Arc::downgrade(&node));
    node.follow_peers();
    let result = match is_known {
        true => told_in_time(&node, &mut outcomes, absence).await.map(|is_told| {
            let (known_unix_seconds, is_connected) = (node.recalled_at_unix_seconds(), is_connected_to(&node, owner));
            (!is_told).then_some(Bridged { known_unix_seconds, is_connected })
        }),
        false => listed(&node, &mut outcomes, ticket).await.map(|()| None),
    };
    has_joined.store(true, Ordering::Release);
    match result {
        Ok(bridged) => Ok(Joined { node, bridged }),
        Err(error) => {
            node.shut_down().await;
            Err(error)
        }
    }
}

type Outcomes = mpsc::UnboundedReceiver<Result<(), JoinError>>;

/// Waits for the owner, or another who has the share, to tell what is there now: for a moment for a connection, and then for
/// as long as an owner who cannot be reached. Says whether one did; an owner who refuses is an error as long as it is waited for.
async fn told_in_time(node: &Node, outcomes: &mut Outcomes, absence: Absence) -> Result<bool, JoinError> {
    let until_connected = if absence == Absence::IsKnown { Duration::ZERO } else { PATIENCE };
    for patience in [until_connected, REACH_LIMIT - PATIENCE] {
        match tokio::time::timeout(patience, outcomes.recv()).await {
            Ok(outcome) => return outcome.unwrap_or(Ok(())).map(|()| true),
            Err(_) if is_anybody_connected(node) => {}
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

fn is_anybody_connected(node: &Node) -> bool {
    node.view(|view| view.peers().any(|peer| matches!(peer.link, Link::Up(_))))
}

fn is_connected_to(node: &Node, owner: PeerId) -> bool {
    node.view(|view| view.peers().any(|peer| peer.peer == owner && matches!(peer.link, Link::Up(_))))
}

/// Waits for the first whole listing: for a while for a connection, and then for as long as the listing gets on.
async fn listed(node: &Node, outcomes: &mut Outcomes, ticket: &Ticket) -> Result<(), JoinError> {
    let before = node.view(|view| view.entries());
    let mut told = 0;
    loop {
        if let Ok(outcome) = tokio::time::timeout(REACH_LIMIT, outcomes.recv()).await {
            return outcome.unwrap_or(Ok(()));
        }
        let entries = node.view(|view| view.entries());
        if entries == told || entries == before && !is_anybody_connected(node) {
            return Err(match is_connected_to(node, ticket.owner()) {
                true => JoinError::Stalled,
                false => JoinError::Unreachable { addresses: ticket.addresses().join(", ") },
            });
        }
        told = entries;
    }
}

/// What a notice means to somebody who waits for the first listing; `None` if they wait on. Anybody's will do, but what other
/// devices than the owner refuse is no reason not to join.
fn outcome(notice: &Notice, owner: PeerId) -> Option<Result<(), JoinError>> {
    match notice {
        Notice::Listed { .. } => Some(Ok(())),
        Notice::DialFailed { peer, .. } | Notice::PeerFault { peer, .. } if *peer != owner => None,
        Notice::DialFailed { error: DialError::Denied, .. } => Some(Err(JoinError::Denied)),
        Notice::DialFailed { error: DialError::Incompatible, .. } => Some(Err(JoinError::Incompatible)),
        Notice::PeerFault { fault, .. } => Some(Err(JoinError::Broken(*fault))),
        Notice::DialFailed { error: DialError::Unreachable, .. }
        | Notice::LinkUp { .. }
        | Notice::LinkDown { .. }
        | Notice::InvalidateInode { .. }
        | Notice::InvalidateEntry { .. }
        | Notice::FetchFailed { .. }
        | Notice::StoreFailed { .. }
        | Notice::SaveFailed { .. }
        | Notice::PinsChanged
        | Notice::NotShared { .. }
        | Notice::LookAt { .. }
        | Notice::ApplyFailed { .. }
        | Notice::Announced { .. } => None,
    }
}

/// Says in the log what happens with a peer. Of attempts that fail again and again in the same way, only the first.
fn log_notice(notice: &Notice, last_failures: &mut BTreeMap<PeerId, DialError>) {
    if let Notice::DialFailed { peer, error } = notice
        && last_failures.insert(*peer, *error) == Some(*error)
    {
        return;
    }
    if let Notice::LinkUp { peer } = notice {
        last_failures.remove(peer);
    }
    if let Some(told) = notices::told(notice) {
        notices::log(&told);
    }
}

/// A node that shares nothing lets nobody in.
struct Nobody;

impl Admission for Nobody {
    fn admit(&self, _: PeerId, _: Hello) -> BoxFuture<'static, bool> {
        async { false }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::{ServeError, ServedBytes};
    use crate::net::server::{Host, serve};
    use crate::net::transport::{Caller, Conn, Role};
    use crate::store::MemoryStore;
    use farshore_engine::path::RelPath;
    use farshore_engine::record::Stamp;
    use farshore_engine::{Errno, PeerFault, TreeUpdate, WatchCursor};
    use farshore_proto::ShareId;
    use futures_util::future::{pending, ready};
    use std::io;
    use tokio::io::duplex;
    use tokio::time::Instant;

    const OWNER: PeerId = PeerId([1; 32]);
    const MEMBER: PeerId = PeerId([2; 32]);

    /// Lets everybody in, and tells nothing.
    struct Silent;

    impl Host for Silent {
        fn greet(&self, _: PeerId, _: Hello) -> BoxFuture<'static, Result<u64, ()>> {
            ready(Ok(7)).boxed()
        }

        fn watch(
            &self,
            _: PeerId,
            _: WatchCursor,
        ) -> BoxFuture<'static, Result<(Vec<TreeUpdate>, WatchCursor), Errno>> {
            pending().boxed()
        }

        fn open(
            &self,
            _: PeerId,
            _: RelPath,
            _: Stamp,
        ) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
            ready(Err(ServeError::Gone)).boxed()
        }

        fn broke_rule(&self, _: PeerId, _: PeerFault) {}
    }

    /// A network in which one device can be reached, which is silent.
    struct OneIsThere(PeerId);

    impl Transport for OneIsThere {
        fn connect<'a>(&'a self, _: &'a str, expect: PeerId, role: Role) -> BoxFuture<'a, io::Result<Conn>> {
            if expect != self.0 {
                return ready(Err(io::ErrorKind::HostUnreachable.into())).boxed();
            }
            let (here, there) = duplex(1 << 20);
            let caller = Conn { io: Box::new(there), peer: PeerId([3; 32]), role: role.of_other_end() };
            tokio::spawn(serve(Box::new(Takes(Some(caller))), Arc::new(Silent), pending()));
            ready(Ok(Conn { io: Box::new(here), peer: expect, role })).boxed()
        }

        fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
            ready(Err(io::ErrorKind::Unsupported.into())).boxed()
        }
    }

    /// Takes one connection.
    struct Takes(Option<Conn>);

    impl Listener for Takes {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<Caller>> {
            match self.0.take() {
                Some(conn) => ready(Ok(ready(Ok(conn)).boxed())).boxed(),
                None => pending().boxed(),
            }
        }

        fn address(&self) -> String {
            "there".to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_member_is_waited_for_as_the_owner_is_and_is_not_taken_for_it() {
        for there in [OWNER, MEMBER] {
            let hello = Hello::new(ShareId([3; 16]), None, AGENT);
            let route = Route { addresses: vec!["there".to_owned()], hello };
            let node = Node::start(Parts {
                config: Config { epoch: 1, ..Config::default() },
                seed: 1,
                transport: Arc::new(OneIsThere(there)),
                store: Arc::new(MemoryStore::default()),
                folder: None,
                admission: Arc::new(Nobody),
                peers: BTreeMap::from([(OWNER, route.clone()), (MEMBER, route)]),
                call_back: None,
                remembered: None,
            });
            node.follow_peers();
            let (_outcome, mut outcomes) = mpsc::unbounded_channel();
            let begun = Instant::now();
            assert_eq!(told_in_time(&node, &mut outcomes, Absence::IsBridged).await, Ok(false));
            assert!(begun.elapsed() >= REACH_LIMIT, "somebody is there");
            assert_eq!(is_connected_to(&node, OWNER), there == OWNER);
            assert!(is_anybody_connected(&node));
            node.shut_down().await;
        }
    }
}
