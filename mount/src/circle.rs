//! The others who have a share that we have joined in a folder of our own: the owner of the share says who they are. We follow
//! them, and let them in, and nobody else but the owner; also while the owner is away, and in the next life.

use crate::listening::{ListenError, listen, own_addresses};
use crate::net::Guests;
use crate::net::transport::{Listener, Transport};
use crate::node::{Admission, Introduced, Introducing, Node, Route};
use crate::sharing::AGENT;
use crate::state::{Acquaintance, State};
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

/// Listening for the others.
pub struct Reception {
    listener: Box<dyn Listener>,
    addresses: Vec<String>,
}

impl Reception {
    /// Where it listens, with the port that it really got.
    #[must_use]
    pub fn listening(&self) -> String {
        self.listener.address()
    }

    /// Where the others are told that they reach it.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

/// The others, as far as they are known.
pub struct Circle {
    us: PeerId,
    share: ShareId,
    state: State,
    guests: Arc<Guests>,
    known: Mutex<Acquaintance>,
    node: OnceLock<Weak<Node>>,
}

impl Circle {
    /// The device `us` has joined `share` of `owner`; what is kept of it is taken up. Waits for the disk.
    #[must_use]
    pub fn new(state: State, us: PeerId, owner: PeerId, share: ShareId) -> Arc<Circle> {
        let known = state.acquaintance(share, owner).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Acquaintance { owner, port: None, members: Members::new() }
        });
        let (known, guests) = (Mutex::new(known), Arc::default());
        Arc::new(Circle { us, share, state, guests, known, node: OnceLock::new() })
    }

    /// Begins to listen for the others: where any port will do, at the one at which we listened last, if it is free, because
    /// that is what they remember.
    ///
    /// # Errors
    /// It was said where, and that is not possible.
    pub async fn receive(&self, transport: &dyn Transport, reach: &Reach) -> Result<Option<Reception>, ListenError> {
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
        let addresses = if advertise.is_empty() { own_addresses(&listening) } else { advertise.clone() };
        Ok(Some(Reception { listener, addresses }))
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
    pub fn begin(self: &Arc<Circle>, node: &Arc<Node>, reception: Option<Reception>) {
        // There is one node.
        let _ = self.node.set(Arc::downgrade(node));
        node.introduce(Introducing::Hears { by: self.lock().owner, us: self.clone() });
        if let Some(Reception { listener, .. }) = reception {
            node.answer(listener, self.guests.clone());
        }
    }

    fn route(&self, addresses: Vec<String>) -> Route {
        Route { addresses, hello: self.hello() }
    }

    /// Writes down what is known. If that fails, it is told, and known in this life.
    async fn keep(&self) {
        let (state, share, known) = (self.state.clone(), self.share, self.lock().clone());
        let kept = tokio::task::spawn_blocking(move || state.keep_acquaintance(share, &known));
        if let Ok(Err(error)) = kept.await {
            tracing::warn!("the other devices of the share are not found after a restart: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Acquaintance> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Introduced for Circle {
    fn id(&self) -> PeerId {
        self.us
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
            tracing::info!("{peer:?} has the share, too, says its owner, and can be reached at {addresses:?}");
            if let Some(node) = node.as_ref().filter(|_| !addresses.is_empty()) {
                node.follow(*peer, self.route(addresses.clone()));
            }
        }
        async move {
            if before != members {
                self.keep().await;
            }
        }
        .boxed()
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
