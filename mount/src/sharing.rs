//! Sharing a folder: a node that watches it and serves whoever may come.

mod roster;
mod unshared;

pub use self::roster::Roster;
pub use self::unshared::Offer;
pub(crate) use self::unshared::Unshared;
use crate::folder::{FolderError, WhileWritten};
use crate::identity::IdentityError;
use crate::listening::{ListenError, listen, own_addresses};
use crate::live::Live;
use crate::net::tls::TlsTransport;
use crate::net::{Guests, Leases, server};
use crate::node::{Admission, Introducing, Node, Parts, Remembered};
use crate::notices;
use crate::own_folder::{OwnFolder, Writers};
use crate::state::{ShareEntry, State, StateError};
use crate::store::{DiskStore, MemoryStore, OpenError, Store};
use crate::ticket::{Ticket, TicketError};
use farshore_engine::{Config, DeviceTag, PeerId};
use farshore_proto::Hello;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Where `farshore share` listens unless it is told otherwise: every address of this machine, one port.
pub const DEFAULT_LISTEN: &str = "[::]:4177";

/// What we say that we are.
pub(crate) const AGENT: &str = concat!("farshore ", env!("CARGO_PKG_VERSION"));

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
    /// Whether those who join may change what is in the folder.
    pub writable: bool,
    /// When they are told of a file that is being written.
    pub while_written: WhileWritten,
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
    /// Nobody can be listened for.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// An address that does not go into a ticket.
    #[error("the ticket cannot be made: {0}")]
    Ticket(#[from] TicketError),
    /// What comes from others has no place in it.
    #[error("others cannot change what is in this folder: {0}; `--read-only` lets them only look")]
    Store(#[from] OpenError),
    /// The folder went away before it had been read.
    #[error("{} vanished while it was being read", .0.display())]
    Vanished(PathBuf),
}

/// A folder that is being shared.
pub struct Sharing {
    node: Arc<Node>,
    own: OwnFolder,
    offer: Offer,
    leases: Arc<Leases>,
    ticket: Ticket,
    address: String,
    guests: Arc<Guests>,
    roster: Arc<Roster>,
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
        let listener = listen(&*transport, &options.listen).await?;
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

        let writers = if options.writable { Writers::Everybody } else { Writers::Us };
        let store: Arc<dyn Store> = match writers {
            Writers::Us => Arc::new(MemoryStore::default()),
            // What is on its way lies where it is going.
            Writers::Everybody => Arc::new(DiskStore::open(&folder)?),
        };
        let unshared = Unshared::new(entry.unshared.clone());
        let share = entry.share;
        if let (true, Some(path)) = (options.writable, entry.unshared.first()) {
            return Err(StateError::Writable { path: folder.join(path.to_string()) }.into());
        }
        let roster = Arc::new(Roster::new(state.clone(), share));
        let mut own = OwnFolder::open(&folder, writers, options.while_written, unshared.clone())?;
        let node = Node::start(Parts {
            config: Config { keeps_folder: options.writable, fetches_all: options.writable, ..fresh_config(&owner) },
            seed: random_u64(),
            transport,
            store,
            folder: Some(own.served()),
            call_back: options.writable.then(|| Hello::new(entry.share, None, AGENT)),
            admission: Arc::new(ByTicket { state: state.clone(), entry, roster: roster.clone() }),
            peers: BTreeMap::new(),
            remembered: options.writable.then_some(Remembered::Folder(share)),
        });
        if options.writable {
            node.introduce(Introducing::Tells(roster.members()));
        }
        node.on_notice(Box::new(|notice| {
            if let Some(told) = notices::told(notice) {
                notices::log(&told);
            }
        }));
        if !own.begin(&node).await {
            node.shut_down().await;
            return Err(ShareError::Vanished(folder));
        }
        let (stop_server, stopped) = oneshot::channel();
        let leases = Arc::new(Leases::default());
        let guests = Arc::new(Guests::new(leases.clone()));
        let server = server::serve_with(listener, node.clone(), guests.clone(), stopped.map(|_| ()));
        let offer = Offer::new(node.clone(), state, ticket.share(), unshared, options.writable);
        Ok(Sharing {
            node,
            own,
            offer,
            leases,
            ticket,
            address,
            guests,
            roster,
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
        self.own.path()
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

    /// Who has the share in a folder of its own.
    #[must_use]
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
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
        self.own.live()
    }

    /// Waits until the folder itself is gone.
    pub async fn vanished(&mut self) {
        self.own.vanished().await;
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
        self.own.stop().await;
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

/// Lets in whoever the state directory says may come in.
struct ByTicket {
    state: State,
    entry: ShareEntry,
    roster: Arc<Roster>,
}

impl Admission for ByTicket {
    fn admit(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, bool> {
        let (state, share, roster) = (self.state.clone(), self.entry.share, self.roster.clone());
        let asked = move || {
            let secret = hello.secret.map(|secret| secret.0);
            let is_in = state.admit(share, hello.share, secret.as_ref().map_or(&[], |secret| &secret[..]), peer);
            if let (true, Some(addresses)) = (is_in, hello.membership) {
                roster.note(peer, addresses);
            }
            is_in
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

/// For a life that begins now, of device `own`.
pub(crate) fn fresh_config(own: &PeerId) -> Config {
    Config {
        epoch: random_u64() | 1,
        device: DeviceTag::of(own),
        version_base: microseconds_since_1970(),
        ..Config::default()
    }
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
