//! Introducing to each other those who have a share in folders of their own: the owner of the share says who they are, and each of
//! them follows the others and lets them in.

use super::both_ways::Answering;
use super::{Node, Route};
use crate::net::server::Guests;
use crate::net::transport::Listener;
use crate::net::{Link, WatchEnd};
use farshore_engine::{Command, Input, PeerEvent, PeerFault, PeerId};
use farshore_proto::Members;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// The pause before an owner is asked again who the members are, when it has ended what it told of them.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// A node's part in it.
pub enum Introducing {
    /// It is the owner's, and tells this.
    Tells(watch::Receiver<Members>),
    /// It hears who the others are from the device `by`, and from nobody else.
    Hears {
        /// The owner of the share.
        by: PeerId,
        /// Who deals with what is heard.
        us: Arc<dyn Introduced>,
    },
}

/// Deals with what the owner of a share says of its members.
pub trait Introduced: Send + Sync + 'static {
    /// Who we are.
    fn id(&self) -> PeerId;

    /// Where the others reach us now; nowhere if they do not.
    fn addresses(&self) -> Vec<String>;

    /// All others but the owner are these, and nobody else. What follows from it at once is done before this first waits.
    fn hear(&self, members: Members) -> BoxFuture<'_, ()>;

    /// Whether `peer` has dialled us and was let in.
    fn is_here(&self, peer: PeerId) -> bool;
}

impl Node {
    /// From now on, it plays this part. Only the first call counts, and it comes before anybody is followed or answered.
    pub fn introduce(&self, part: Introducing) {
        // There is one part to play.
        let _ = self.introducing.set(part);
    }

    /// Answers those who come to `listener`, until it shuts down. Only the first call counts.
    pub fn answer(self: &Arc<Node>, listener: Box<dyn Listener>, guests: Arc<Guests>) {
        self.answering.get_or_init(|| Answering::start(listener, self.clone(), guests, &self.runtime));
    }

    /// Follows `peer`, which can be reached like this from now on. If that is another way than before, it is tried at once.
    pub fn follow(&self, peer: PeerId, route: Route) {
        let before = self.routes().insert(peer, route.clone());
        self.command(Command::Follow { peer });
        if before.is_some_and(|before| before.addresses != route.addresses) {
            self.step(Input::Peer(peer, PeerEvent::Reachable));
        }
    }

    /// `peer` cannot be reached any more where it could: it is called only if it connects to us, or we are connected to it.
    pub fn lose_way_to(&self, peer: PeerId) {
        if let Some(route) = self.routes().get_mut(&peer) {
            // How it is greeted stays: it may call over a connection that we made.
            route.addresses.clear();
        }
    }

    /// Follows `peer` no longer: it is hung up on, and cannot call us over a connection that we made.
    pub fn unfollow(&self, peer: PeerId) {
        self.routes().remove(&peer);
        self.command(Command::Unfollow { peer });
    }

    /// Where `peer` can be reached, as far as that is known.
    #[must_use]
    pub fn addresses_of(&self, peer: PeerId) -> Vec<String> {
        self.route_to(peer).map(|route| route.addresses).unwrap_or_default()
    }

    pub(super) fn route_to(&self, peer: PeerId) -> Option<Route> {
        self.routes().get(&peer).cloned()
    }

    /// How to reach and greet `peer`. Who introduces us to others is told where these reach us.
    pub(super) fn way_to(&self, peer: PeerId) -> Option<Route> {
        let Route { addresses, hello } = self.route_to(peer)?;
        let hello = match self.introducing.get() {
            Some(Introducing::Hears { by, us }) if *by == peer => hello.of_member(us.addresses()),
            Some(Introducing::Hears { .. } | Introducing::Tells(_)) | None => hello,
        };
        Some(Route { addresses, hello })
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, BTreeMap<PeerId, Route>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn members(&self) -> Option<watch::Receiver<Members>> {
        match self.introducing.get() {
            Some(Introducing::Tells(members)) => Some(members.clone()),
            Some(Introducing::Hears { .. }) | None => None,
        }
    }

    /// Whether `peer` calls us over a connection that it made for that.
    pub(super) fn is_called_by(&self, peer: PeerId) -> bool {
        match self.introducing.get() {
            Some(Introducing::Hears { us, .. }) => us.is_here(peer),
            Some(Introducing::Tells(_)) | None => false,
        }
    }

    /// Hears who else has the share, if the peer of `link` is who says so. Returns if it breaks a rule.
    pub(super) async fn hear_members(&self, link: &Link) -> PeerFault {
        let us = match self.introducing.get() {
            Some(Introducing::Hears { by, us }) if *by == link.peer() => us,
            Some(Introducing::Hears { .. } | Introducing::Tells(_)) | None => return std::future::pending().await,
        };
        loop {
            let ended = match link.members(us.id()).await {
                Ok(mut told) => loop {
                    match told.next().await {
                        Ok(members) => us.hear(members).await,
                        Err(ended) => break ended,
                    }
                },
                Err(ended) => ended,
            };
            match ended {
                WatchEnd::Fault(fault) => return fault,
                WatchEnd::LinkLost | WatchEnd::StreamLost => sleep(ASK_AGAIN).await,
            }
        }
    }
}
