//! Connections to the peers that we follow: dialled, watched, dialled again for ever.

use crate::backoff;
use crate::engine::{Engine, Running};
use crate::event::Position;
use crate::fault::PeerFault;
use crate::follow::Listing;
use crate::ids::{EffectId, LinkId, PeerId};
use crate::input::DialError;
use crate::output::{Effect, Notice, Output};
use crate::pace::Pace;
use crate::time::Time;
use crate::timers::Timer;
use core::time::Duration;

/// A peer that says nothing for this long after it was connected has no news of its tree.
pub(crate) const NEWS_WITHIN: Duration = Duration::from_secs(5);

/// A peer that we follow.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) link: Link,
    /// Where we stand in its events.
    pub(crate) position: Position,
    /// Events up to this one may be told for the second time, after a listing.
    pub(crate) settled: u64,
    /// Its listing, while it is being told.
    pub(crate) listing: Option<Listing>,
    /// Whether its tree has been told as a whole in this life.
    pub(crate) listed: bool,
    /// When it was last connected, until it has told us something since.
    silent_since: Option<Time>,
    /// When it last told something of its tree.
    told_at: Time,
    /// Attempts to connect in a row that came to nothing.
    failures: u32,
    /// When it last sent a frame.
    last_frame_at: Option<Time>,
    /// What the present connection carries.
    pace: Pace,
}

/// How things stand with the connection to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It is being made.
    Dialing(EffectId, LinkId),
    /// The next attempt is at this time.
    Waiting(Time),
    /// It is there.
    Up(LinkId),
    /// The engine has been shut down.
    Ended,
}

impl Engine {
    /// The connection to a peer, if there is one.
    pub(crate) fn link_to(&self, peer: PeerId) -> Option<LinkId> {
        match self.peers.get(&peer)?.link {
            Link::Up(link) => Some(link),
            Link::Dialing(..) | Link::Waiting(_) | Link::Ended => None,
        }
    }

    /// Bytes came over the connection that were asked for at `asked_at`: it is worth something.
    pub(crate) fn note_frames_from(&mut self, peer: PeerId, bytes: u64, asked_at: Time) {
        let now = self.now;
        self.prefetch.in_vain = 0;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.last_frame_at = Some(now);
            peer.failures = 0;
            peer.pace.note(bytes, asked_at, now);
        }
    }

    /// How many bytes that nobody waits for may be under way: what all connections carry, up to the limit that is set.
    pub(crate) fn ahead_window_bytes(&self) -> u64 {
        let is_up = |peer: &&Peer| matches!(peer.link, Link::Up(_));
        let carried = self.peers.values().filter(is_up).map(|peer| peer.pace.window_bytes());
        // Without a connection, what is here can still be verified.
        let bytes = carried.reduce(u64::saturating_add).unwrap_or(u64::MAX);
        bytes.max(self.config.least_ahead_bytes).min(self.config.ahead_bytes)
    }

    /// What the connection to a peer carries, as far as it is known.
    pub(crate) fn window_bytes_of(&self, peer: PeerId) -> u64 {
        self.peers.get(&peer).map_or(0, |peer| peer.pace.window_bytes()).max(self.config.least_ahead_bytes)
    }

    pub(crate) fn last_frame_from(&self, peer: PeerId) -> Option<Time> {
        self.peers.get(&peer).and_then(|peer| peer.last_frame_at)
    }

    pub(crate) fn follow(&mut self, id: PeerId, out: &mut Vec<Output>) {
        if self.stopping || self.peers.contains_key(&id) {
            return;
        }
        let (position, settled) = self.remembered.remove(&id).unwrap_or_default();
        let peer = Peer {
            link: Link::Waiting(self.now),
            position,
            settled,
            listing: None,
            listed: false,
            silent_since: None,
            told_at: self.now,
            failures: 0,
            last_frame_at: None,
            pace: Pace::default(),
        };
        self.peers.insert(id, peer);
        self.dial(id, out);
    }

    /// Ends what there is with a peer. If it is being dialled and answers after this, it is hung up on.
    pub(crate) fn unfollow(&mut self, id: PeerId, out: &mut Vec<Output>) {
        if self.stopping {
            return;
        }
        if let Some(link) = self.link_to(id) {
            self.hang_up(id, link, out);
        }
        let Some(peer) = self.peers.remove(&id) else { return };
        match peer.link {
            Link::Waiting(at) => self.timers.unset(at, Timer::Redial(id)),
            Link::Dialing(effect, _) => out.push(Output::Cancel(effect)),
            Link::Up(_) | Link::Ended => {}
        }
        self.replica.tombstones.forget_follower(id);
        self.replica.folder.settle_all_of(id);
    }

    fn dial(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        let link = self.next_link();
        let effect = self.effect(Running::Dial { peer, link }, Effect::Dial { peer, link }, out);
        self.set_link(peer, Link::Dialing(effect, link));
    }

    fn set_link(&mut self, peer: PeerId, link: Link) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.link = link;
        }
    }

    pub(crate) fn on_dialed(&mut self, id: PeerId, link: LinkId, result: Result<(), DialError>, out: &mut Vec<Output>) {
        let awaited = self.peers.get(&id).is_some_and(|peer| matches!(peer.link, Link::Dialing(_, of) if of == link));
        match result {
            Ok(()) if !awaited => self.effect_unreported(Effect::HangUp { peer: id, link }, out),
            Err(_) if !awaited => {}
            Ok(()) => {
                self.set_link(id, Link::Up(link));
                let now = self.now;
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.silent_since = Some(now);
                    peer.pace = Pace::default();
                }
                out.push(Output::Notice(Notice::LinkUp { peer: id }));
                self.handles.forget_failures();
                self.note_may_have(id);
                self.adopt_orphans(id);
                self.prefetch_again_at_once();
                let position = self.peers.get(&id).map(|peer| peer.position).unwrap_or_default();
                self.effect(Running::Watch { peer: id, link }, Effect::Watch { peer: id, link, position }, out);
                self.lease_again(id, out);
                self.unpark(id, out);
            }
            Err(error) => {
                out.push(Output::Notice(Notice::DialFailed { peer: id, error }));
                self.redial_later(id);
            }
        }
    }

    /// Waits before the next attempt, longer each time. A connection that was made, but over which nothing came, was not
    /// worth more than none: else a peer that drops every caller would be called without a pause.
    fn redial_later(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.failures = peer.failures.saturating_add(1);
        let wait = backoff::delay(self.config.redial_base, self.config.redial_cap, peer.failures, &mut self.rng);
        let at = self.now + wait;
        peer.link = Link::Waiting(at);
        self.timers.set(at, Timer::Redial(id));
    }

    pub(crate) fn on_redial(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        if self.peers.get(&peer).is_some_and(|peer| matches!(peer.link, Link::Waiting(_))) {
            self.dial(peer, out);
        }
    }

    /// A peer may be reached now: it is not waited for any longer, and if it is being dialled or connected, and that comes to
    /// nothing because it is older than this, it is tried again soon.
    pub(crate) fn redial(&mut self, id: PeerId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.failures = 0;
        if let Link::Waiting(at) = peer.link {
            self.timers.unset(at, Timer::Redial(id));
            self.dial(id, out);
        }
    }

    /// The network may be back, and with it everybody.
    pub(crate) fn redial_all(&mut self, out: &mut Vec<Output>) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.redial(id, out);
        }
    }

    pub(crate) fn on_link_down(&mut self, id: PeerId, link: LinkId, out: &mut Vec<Output>) {
        if self.link_to(id) != Some(link) {
            return;
        }
        out.push(Output::Notice(Notice::LinkDown { peer: id }));
        self.redial_later(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            // Half a listing is no listing. The next one begins anew.
            peer.listing = None;
        }
        for (effect, running) in &mut self.running {
            if matches!(running, Running::Watch { link: on, .. } if *on == link) {
                *running = Running::Abandoned;
                out.push(Output::Cancel(*effect));
            }
        }
        self.end_walks(out);
        self.park(id, out);
        self.go_on_elsewhere(out);
        self.fail_waiters_of(id, out);
        self.force_save();
    }

    pub(crate) fn on_watch_ended(&mut self, peer: PeerId, link: LinkId, out: &mut Vec<Output>) {
        if self.link_to(peer) == Some(link) {
            self.hang_up(peer, link, out);
        }
    }

    pub(crate) fn on_fault(&mut self, peer: PeerId, link: LinkId, fault: PeerFault, out: &mut Vec<Output>) {
        if self.link_to(peer) != Some(link) {
            return;
        }
        self.totals.peer_faults += 1;
        out.push(Output::Notice(Notice::PeerFault { peer, fault }));
        if let Some(peer) = self.peers.get_mut(&peer) {
            // What it told does not fit together. The next connection begins with the whole listing.
            peer.position = Position::default();
        }
        self.hang_up(peer, link, out);
    }

    /// What a peer says cannot be brought together with what we know: the next connection begins with its whole listing.
    pub(crate) fn list_anew(&mut self, id: PeerId, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.position = Position::default();
        }
        if let Some(link) = self.link_to(id) {
            self.hang_up(id, link, out);
        }
    }

    fn hang_up(&mut self, peer: PeerId, link: LinkId, out: &mut Vec<Output>) {
        self.effect_unreported(Effect::HangUp { peer, link }, out);
        self.on_link_down(peer, link, out);
    }

    /// News came over the connection: it is worth something.
    pub(crate) fn note_news_from(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.failures = 0;
            peer.silent_since = None;
            peer.told_at = self.now;
        }
    }

    /// Whether a peer that is connected has told nothing more for a while, and is not in the middle of its listing.
    pub(crate) fn is_silent(&self, id: PeerId) -> bool {
        let peer = self.peers.get(&id).filter(|_| self.link_to(id).is_some());
        peer.is_some_and(|peer| peer.listing.is_none() && peer.told_at + NEWS_WITHIN <= self.now)
    }

    /// Whether what we know of a peer's tree is what it has to tell, as far as we can know: a peer that has news begins
    /// to tell them as soon as it is connected, and one that has none says nothing.
    pub(crate) fn is_up_to_date(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            let is_silent = peer.silent_since.is_some_and(|since| since + NEWS_WITHIN > self.now);
            !is_silent && peer.listing.is_none()
        })
    }

    /// A peer broke a rule while it brought frames. Bytes that are wrong are asked for again; a peer that sends what is no
    /// answer at all is hung up on.
    pub(crate) fn on_fetch_fault(&mut self, peer: PeerId, link: LinkId, fault: PeerFault, out: &mut Vec<Output>) {
        match fault {
            PeerFault::WrongHash | PeerFault::WrongRange | PeerFault::TooMuch | PeerFault::TooLittle => {
                out.push(Output::Notice(Notice::PeerFault { peer, fault }));
            }
            PeerFault::Path(_)
            | PeerFault::Record(_)
            | PeerFault::Missing(_)
            | PeerFault::OutOfRange(_)
            | PeerFault::TooMany(_)
            | PeerFault::Unasked
            | PeerFault::OutOfPlace
            | PeerFault::Gap
            | PeerFault::BelowFile
            | PeerFault::NoParent
            | PeerFault::Root
            | PeerFault::IntoItself
            | PeerFault::Version
            | PeerFault::MayOnlyRead
            | PeerFault::TooManyEntries(_) => self.on_fault(peer, link, fault, out),
        }
    }

    pub(crate) fn hang_up_all(&mut self, out: &mut Vec<Output>) {
        let links: Vec<(PeerId, Link)> = self.peers.iter().map(|(id, peer)| (*id, peer.link)).collect();
        for (peer, link) in links {
            self.set_link(peer, Link::Ended);
            if let Link::Up(link) = link {
                self.effect_unreported(Effect::HangUp { peer, link }, out);
            }
        }
    }
}
