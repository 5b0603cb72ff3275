//! Sharing a folder: a node that watches it and serves whoever may come.

mod unshared;

pub use self::unshared::Offer;
use self::unshared::Unshared;
use crate::folder::{DiskFolder, FolderError, FolderEvent, Watcher};
use crate::identity::IdentityError;
use crate::live::Live;
use crate::net::tls::TlsTransport;
use crate::net::transport::{Listener, Transport};
use crate::net::{Guests, Leases, server};
use crate::node::{Admission, Node, Parts};
use crate::notices;
use crate::state::{ShareEntry, State, StateError};
use crate::store::MemoryStore;
use crate::ticket::{Ticket, TicketError};
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::{Config, DeviceTag, Observation, PeerId, Seen, SeenKind};
use farshore_proto::Hello;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Where `farshore share` listens unless it is told otherwise: every address of this machine, one port.
pub const DEFAULT_LISTEN: &str = "[::]:4177";

/// How a folder is to be shared.
#[derive(Debug, Clone)]
pub struct ShareOptions {
    /// The folder.
    pub folder: PathBuf,
    /// Where to listen, `host:port`.
    pub listen: String,
    /// What the ticket says of where we can be reached; if empty, what this machine knows of itself.
    pub advertise: Vec<String>,
    /// Make tickets given out earlier worthless, and forget the devices that joined with them.
    pub new_ticket: bool,
}

/// Why a folder cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The state directory does not work.
    #[error(transparent)]
    State(#[from] StateError),
    /// The device key does not work.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The folder does not work.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder is a file, or not there.
    #[error("cannot share {}: {source}", folder.display())]
    NotAFolder {
        /// What was to be shared.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("cannot listen at {address}: it is in use; stop what listens there, or choose another port with --listen")]
    InUse {
        /// Where.
        address: String,
    },
    /// It is no address of ours.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// An address that does not go into a ticket.
    #[error("the ticket cannot be made: {0}")]
    Ticket(#[from] TicketError),
    /// The folder went away before it had been read.
    #[error("{} vanished while it was being read", .0.display())]
    Vanished(PathBuf),
}

/// A folder that is being shared.
pub struct Sharing {
    node: Arc<Node>,
    ears: Ears,
    live: LateLive,
    offer: Offer,
    leases: Arc<Leases>,
    ticket: Ticket,
    address: String,
    folder: PathBuf,
    guests: Arc<Guests>,
    vanished: watch::Receiver<bool>,
    /// Stops when it is dropped.
    watcher: Option<Watcher>,
    stop_server: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Sharing {
    /// Begins to share a folder. Returns when it has been read once and callers are answered.
    ///
    /// # Errors
    /// What is wrong with the folder, the state directory or the address.
    pub async fn start(state: State, options: ShareOptions) -> Result<Sharing, ShareError> {
        let identity = state.identity()?;
        let folder = canonical(&options.folder)?;
        let owner = identity.id();
        let transport = Arc::new(TlsTransport::new(identity));
        let listener = listen(&transport, &options.listen).await.map_err(|source| {
            let address = options.listen.clone();
            let in_use = source.kind() == io::ErrorKind::AddrInUse;
            if in_use { ShareError::InUse { address } } else { ShareError::Listen { address, source } }
        })?;
        // Not before it is sure that callers can be answered: this makes earlier tickets worthless.
        let entry = match options.new_ticket {
            true => state.renew_ticket(&folder)?,
            false => state.share_for(&folder)?,
        };
        let address = listener.address();
        let advertise = match options.advertise.is_empty() {
            true => own_addresses(&address),
            false => options.advertise,
        };
        let ticket = Ticket::new(entry.share, owner, entry.secret, advertise)?;

        let (told, vanished) = watch::channel(false);
        let (ready, is_ready) = oneshot::channel();
        let late = LateNode::default();
        let unshared = Unshared::new(entry.unshared.clone());
        let ears = Ears { node: late.clone(), unshared: unshared.clone() };
        let live = LateLive::default();
        let sink = folder_sink(folder.clone(), ears.clone(), live.clone(), ready, told);
        let watcher = Watcher::start(&folder, sink)?;
        unshared.set_recheck(watcher.recheck());
        let served = DiskFolder::open(&folder, Some(watcher.recheck())).inspect_err(|_| late.set(None))?;
        let node = Node::start(Parts {
            config: Config {
                epoch: random_u64() | 1,
                device: DeviceTag::of(&owner),
                version_base: microseconds_since_1970(),
                ..Config::default()
            },
            seed: random_u64(),
            transport,
            store: Arc::new(MemoryStore::default()),
            folder: Some(Arc::new(served)),
            admission: Arc::new(ByTicket { state: state.clone(), entry }),
            peers: BTreeMap::new(),
            call_back: None,
            remembered: None,
        });
        node.on_notice(Box::new(|notice| {
            if let Some(told) = notices::told(notice) {
                notices::log(&told);
            }
        }));
        // Before it hears what is there.
        unshared.tell(&node);
        late.set(Some(node.clone()));
        if is_ready.await.is_err() {
            return Err(ShareError::Vanished(folder));
        }
        let (stop_server, stopped) = oneshot::channel();
        let leases = Arc::new(Leases::default());
        let guests = Arc::new(Guests::new(leases.clone()));
        let server = server::serve_with(listener, node.clone(), guests.clone(), stopped.map(|_| ()));
        let offer = Offer::new(node.clone(), state, ticket.share(), unshared);
        Ok(Sharing {
            node,
            ears,
            live,
            offer,
            leases,
            ticket,
            address,
            folder,
            guests,
            vanished,
            watcher: Some(watcher),
            stop_server: Some(stop_server),
            server: tokio::spawn(server),
        })
    }

    /// What to give to whoever shall join.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Where it listens, with the port that it really got.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder: absolute, without symlinks.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What of the folder is offered.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Who is connected.
    #[must_use]
    pub fn guests(&self) -> &Arc<Guests> {
        &self.guests
    }

    /// The node, to look at.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What is kept open for readers.
    #[must_use]
    pub fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// The folder as a file system, to be mounted: what is done there is done in the folder, and told to who follows.
    ///
    /// # Errors
    /// The folder cannot be opened any more.
    ///
    /// # Panics
    /// If it is asked for twice: two mounts of a folder would each hide from the kernel what is done on the other.
    pub fn live(&self) -> Result<Arc<Live>, FolderError> {
        // It is taken away only at the end.
        let order = self.watcher.as_ref().map(Watcher::order).unwrap_or_default();
        let ears = self.ears.clone();
        let live = Live::open(&self.folder, order, self.node.away(), move |seen| ears.hear(seen))?;
        assert!(self.live.0.set(Arc::downgrade(&live)).is_ok(), "the folder is mounted once");
        Ok(live)
    }

    /// Waits until the folder itself is gone.
    pub async fn vanished(&mut self) {
        // The sender lives in the watcher, which lives here.
        if self.vanished.wait_for(|gone| *gone).await.is_err() {
            std::future::pending().await
        }
    }

    /// Stops: callers are hung up on, and nothing is watched any more.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop_server.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        self.node.shut_down().await;
        // How the server ended makes no difference any more.
        let _ = (&mut self.server).await;
        let watcher = self.watcher.take();
        // It joins a thread that may be in the middle of a scan.
        let _ = tokio::task::spawn_blocking(move || drop(watcher)).await;
    }
}

fn canonical(folder: &Path) -> Result<PathBuf, ShareError> {
    let not = |source| ShareError::NotAFolder { folder: folder.to_owned(), source };
    let path = folder.canonicalize().map_err(not)?;
    match path.is_dir() {
        true => Ok(path),
        false => Err(not(io::ErrorKind::NotADirectory.into())),
    }
}

/// Listens at `address`. A machine without IPv6 listens at its IPv4 addresses where all are meant.
async fn listen(transport: &TlsTransport, address: &str) -> io::Result<Box<dyn Listener>> {
    match (transport.listen(address).await, address.strip_prefix("[::]:")) {
        (Err(error), Some(port)) if error.kind() != io::ErrorKind::AddrInUse => {
            transport.listen(&format!("0.0.0.0:{port}")).await.map_err(|_| error)
        }
        (listening, _) => listening,
    }
}

/// The node, for a watcher that is started before it: the watcher waits for it. `None` if there will be none.
#[derive(Clone, Default)]
struct LateNode(Arc<OnceLock<Option<Arc<Node>>>>);

impl LateNode {
    fn set(&self, node: Option<Arc<Node>>) {
        assert!(self.0.set(node).is_ok(), "it is set once");
    }
}

/// Whoever hears what is seen in the folder.
#[derive(Clone)]
struct Ears {
    node: LateNode,
    unshared: Unshared,
}

impl Ears {
    fn hear(&self, observations: Vec<Observation>) {
        if let Some(node) = self.node.0.wait() {
            self.unshared.hear(&observations);
            node.observe(observations);
        }
    }
}

/// The folder as a file system, once it is mounted.
#[derive(Clone, Default)]
struct LateLive(Arc<OnceLock<Weak<Live>>>);

impl LateLive {
    /// Has `hear` told first, and then the mount, if there is one.
    fn hear_after(&self, observations: Vec<Observation>, hear: impl FnOnce(Vec<Observation>)) {
        match self.0.get().and_then(Weak::upgrade) {
            Some(live) => {
                hear(observations.clone());
                live.heard(&observations);
            }
            None => hear(observations),
        }
    }
}

/// What the watcher tells goes to the node, and to the mount if there is one.
fn folder_sink(
    folder: PathBuf,
    ears: Ears,
    live: LateLive,
    ready: oneshot::Sender<()>,
    vanished: watch::Sender<bool>,
) -> impl Fn(FolderEvent) + Send + 'static {
    let ready = std::sync::Mutex::new(Some(ready));
    move |event| match event {
        FolderEvent::Observed(mut observations) => {
            // The watcher does not tell of the folder itself, whose time changes with what is in it.
            observations.extend(look_at_root(&folder));
            // What is away shows where there is nothing any more, so who knows of it hears first.
            live.hear_after(observations, |seen| ears.hear(seen));
        }
        FolderEvent::Skipped(skipped) => tracing::warn!("{skipped}"),
        FolderEvent::Ready => {
            ears.hear(look_at_root(&folder).into_iter().collect());
            let ready = ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            if let Some(ready) = ready {
                // Whoever waited may have given up.
                let _ = ready.send(());
            }
        }
        FolderEvent::Unwatched(error) => {
            tracing::warn!("{error}; until then changes show up to ten seconds late, or longer in a large folder");
        }
        FolderEvent::Vanished => {
            tracing::error!("the shared folder {} is gone", folder.display());
            vanished.send_replace(true);
        }
    }
}

fn look_at_root(folder: &Path) -> Option<Observation> {
    use std::os::unix::fs::MetadataExt;
    let meta = folder.metadata().ok().filter(std::fs::Metadata::is_dir)?;
    // Nanoseconds of a time within its second fit, and so do twelve bits.
    let time = |seconds: i64, nanos: i64| FileTime { seconds, nanos: nanos as u32 };
    let seen = Seen {
        kind: SeenKind::Dir,
        mode: (meta.mode() & 0o7777) as u16,
        modified: time(meta.mtime(), meta.mtime_nsec()),
        facts: Facts { inode: meta.ino(), changed: time(meta.ctime(), meta.ctime_nsec()) },
    };
    Some(Observation::Found { path: RelPath::ROOT, seen })
}

/// Lets in whoever the state directory says may come in.
struct ByTicket {
    state: State,
    entry: ShareEntry,
}

impl Admission for ByTicket {
    fn admit(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, bool> {
        let (state, share) = (self.state.clone(), self.entry.share);
        let asked = move || {
            let secret = hello.secret.map(|secret| secret.0);
            state.admit(share, hello.share, secret.as_ref().map_or(&[], |secret| &secret[..]), peer)
        };
        async move {
            let admitted = tokio::task::spawn_blocking(asked).await.unwrap_or(false);
            match admitted {
                true => tracing::info!("{peer:?} came in"),
                false => tracing::warn!("{peer:?} was not let in: it has no valid ticket for this folder"),
            }
            admitted
        }
        .boxed()
    }
}

/// Where this machine can be reached, as far as it knows: the addresses that it would use towards others, and itself.
fn own_addresses(listening: &str) -> Vec<String> {
    let Ok(address) = listening.parse::<SocketAddr>() else { return vec![listening.to_owned()] };
    if !address.ip().is_unspecified() {
        return vec![listening.to_owned()];
    }
    // No packet is sent: connecting a datagram socket only chooses an address. The targets are for documentation.
    let towards = |from: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let mut found: Vec<IpAddr> = Vec::new();
    found.extend(towards("0.0.0.0:0", "192.0.2.1:9"));
    if address.is_ipv6() {
        found.extend(towards("[::]:0", "[2001:db8::1]:9"));
    }
    let local: IpAddr = std::net::Ipv4Addr::LOCALHOST.into();
    found.push(local);
    found.dedup();
    found.into_iter().map(|ip| SocketAddr::new(ip, address.port()).to_string()).collect()
}

/// The numbers of our versions go on from there, so that they are higher than those of an earlier life.
fn microseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// For epochs and seeds: different in every life of the process.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => unreachable!("the system's random numbers are always there once keys could be made"),
    }
}
