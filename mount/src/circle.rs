//! The others who have a share that we have joined in a folder of our own: the owner of the share says who they are. We follow
//! them, and let them in, and nobody else but the owner; also while the owner is away, and in the next life.

use crate::listening::{ListenError, addresses_for_others, listen};
use crate::net::Guests;
use crate::net::transport::{Listener, Transport};
use crate::node::{Admission, Introduced, Introducing, Node, Route};
use crate::sharing::AGENT;
use crate::state::{Acquaintance, State, StateError};
use crate::ticket::ShareId;
use farshore_engine::PeerId;
use farshore_proto::{Hello, Members};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Where the others are listened for unless it is said where: at every address of this machine, at any port that is free.
const DEFAULT_LISTEN: &str = "[::]:0";

/// Whether and where the others can reach this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// They cannot.
    Nowhere,
    /// Where it listens, if that is possible.
    Anywhere {
        /// What they are told of where it is; if empty, what this machine knows of itself.
        advertise: Vec<String>,
    },
    /// It listens there, or it is an error.
    At {
        /// Where, `host:port`.
        listen: String,
        /// As above.
        advertise: Vec<String>,
    },
}

/// The others, as far as they are known.
pub struct Circle {
    us: PeerId,
    share: ShareId,
    guests: Arc<Guests>,
    known: Arc<Known>,
    reached: OnceLock<Reached>,
    node: OnceLock<Weak<Node>>,
}

/// What is known of the others, and where it is kept.
struct Known {
    state: State,
    share: ShareId,
    now: Mutex<Acquaintance>,
    /// What is written down, if that is known. Held while it is written, so that nothing older is written after it.
    written: Mutex<Option<Acquaintance>>,
}

/// How the others reach us.
struct Reached {
    /// Where we listen, with the port that we really got.
    listening: String,
    /// What they are told; if empty, what this machine knows of itself.
    advertise: Vec<String>,
}

impl Circle {
    /// The device `us` has joined `share` of `owner`; what is kept of it is taken up. Waits for the disk.
    #[must_use]
    pub fn new(state: State, us: PeerId, owner: PeerId, share: ShareId) -> Arc<Circle> {
        let written = state.acquaintance(share, owner).inspect_err(|error| tracing::warn!("{error}")).ok();
        let now = written.clone().unwrap_or(Acquaintance { owner, port: None, members: Members::new() });
        let known = Arc::new(Known { state, share, now: Mutex::new(now), written: Mutex::new(written) });
        let (reached, node) = (OnceLock::new(), OnceLock::new());
        Arc::new(Circle { us, share, guests: Arc::default(), known, reached, node })
    }

    /// Begins to listen for the others: where any port will do, at the one at which we listened last, if it is free, because
    /// that is what they remember. Only the first call counts.
    ///
    /// # Errors
    /// It was said where, and that is not possible.
    pub async fn receive(
        &self,
        transport: &dyn Transport,
        reach: &Reach,
    ) -> Result<Option<Box<dyn Listener>>, ListenError> {
        let (wanted, advertise) = match reach {
            Reach::Nowhere => return Ok(None),
            Reach::Anywhere { advertise } => (DEFAULT_LISTEN, advertise),
            Reach::At { listen, advertise } => (&listen[..], advertise),
        };
        let before = self.lock().port.zip(wanted.strip_suffix(":0")).map(|(port, host)| format!("{host}:{port}"));
        let again = match before {
            Some(address) => listen(transport, &address).await.ok(),
            None => None,
        };
        let listener = match again {
            Some(listener) => listener,
            None => match listen(transport, wanted).await {
                Ok(listener) => listener,
                Err(error) if matches!(reach, Reach::Anywhere { .. }) => {
                    tracing::warn!("the other devices of the share cannot reach this one: {error}");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        let listening = listener.address();
        let port = listening.parse().ok().map(|address: SocketAddr| address.port());
        self.lock().port = port;
        self.keep().await;
        self.reached.get_or_init(|| Reached { listening, advertise: advertise.clone() });
        Ok(Some(listener))
    }

    /// Where we listen for the others, if we do.
    #[must_use]
    pub fn listening(&self) -> Option<&str> {
        self.reached.get().map(|reached| &reached.listening[..])
    }

    /// How those are reached and greeted of whom it is known where they are.
    #[must_use]
    pub fn routes(&self) -> BTreeMap<PeerId, Route> {
        let known = self.lock();
        let reachable = known.members.iter().filter(|(_, addresses)| !addresses.is_empty());
        reachable.map(|(peer, addresses)| (*peer, self.route(addresses.clone()))).collect()
    }

    /// The others, and where each can be reached.
    #[must_use]
    pub fn members(&self) -> Members {
        self.lock().members.clone()
    }

    /// What we say to the others. They know who we are, and need no secret of the owner's.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello::new(self.share, None, AGENT)
    }

    /// `node` hears from the owner who the others are, and answers them if they can reach us. Only the first call counts.
    pub fn begin(self: &Arc<Circle>, node: &Arc<Node>, listener: Option<Box<dyn Listener>>) {
        // There is one node.
        let _ = self.node.set(Arc::downgrade(node));
        node.introduce(Introducing::Hears { by: self.lock().owner, us: self.clone() });
        if let Some(listener) = listener {
            node.answer(listener, self.guests.clone());
        }
    }

    fn route(&self, addresses: Vec<String>) -> Route {
        Route { addresses, hello: self.hello() }
    }

    /// Writes down what is known, if it is not. If that fails, it is told, and known in this life.
    async fn keep(&self) {
        let known = self.known.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || known.write_down()).await {
            tracing::warn!("the other devices of the share are not found after a restart: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Acquaintance> {
        self.known.lock()
    }
}

impl Known {
    /// Waits for the disk. Whoever asked may be gone by then, and more be known.
    fn write_down(&self) -> Result<(), StateError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.lock().clone();
        if written.as_ref() == Some(&now) {
            return Ok(());
        }
        // Until it is sure: a write that failed may have changed something.
        *written = None;
        self.state.keep_acquaintance(self.share, &now)?;
        *written = Some(now);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Acquaintance> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Introduced for Circle {
    fn id(&self) -> PeerId {
        self.us
    }

    fn addresses(&self) -> Vec<String> {
        match self.reached.get() {
            Some(Reached { listening, advertise }) if advertise.is_empty() => addresses_for_others(listening),
            Some(Reached { advertise, .. }) => advertise.clone(),
            None => Vec::new(),
        }
    }

    fn hear(&self, members: Members) -> BoxFuture<'_, ()> {
        // From here on nobody else is let in.
        let before = std::mem::replace(&mut self.lock().members, members.clone());
        let node = self.node.get().and_then(Weak::upgrade);
        for gone in before.keys().filter(|peer| !members.contains_key(*peer)) {
            tracing::info!("{gone:?} has the share no more, says its owner");
            self.guests.dismiss(*gone);
            if let Some(node) = &node {
                node.unfollow(*gone);
            }
        }
        let moved = members.iter().filter(|(peer, addresses)| before.get(*peer) != Some(*addresses));
        for (peer, addresses) in moved {
            let at = if addresses.is_empty() { "nowhere".to_owned() } else { addresses.join(", ") };
            tracing::info!("{peer:?} has the share, too, says its owner, and can be reached at {at}");
            match &node {
                Some(node) if addresses.is_empty() => node.lose_way_to(*peer),
                Some(node) => node.follow(*peer, self.route(addresses.clone())),
                None => {}
            }
        }
        // Also what was known: it may be that it was not written then.
        self.keep().boxed()
    }

    fn is_here(&self, peer: PeerId) -> bool {
        self.guests.present().contains_key(&peer)
    }
}

impl Admission for Circle {
    fn admit(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, bool> {
        let known = self.lock();
        let is_in = hello.share == self.share && (peer == known.owner || known.members.contains_key(&peer));
        if !is_in {
            tracing::debug!("{peer:?} was not let in: the owner of the share does not say that it has it");
        }
        ready(is_in).boxed()
    }
}
