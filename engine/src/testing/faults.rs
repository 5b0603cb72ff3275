//! What can go wrong in a [`World`], and how it is mended.

use super::folder::Look;
use super::host::{HostId, Job};
use super::wire::{Conn, ConnId, pair};
use super::world::{Event, World};
use crate::chunk::stream_of;
use crate::engine::Engine;
use crate::event::Observation;
use crate::fault::PeerFault;
use crate::ids::EffectId;
use crate::input::{Command, FetchError, Input, PeerEvent};
use crate::path::RelPath;
use core::time::Duration;

/// What a follower says of what it cannot make sense of.
pub(super) const GARBAGE: PeerFault = PeerFault::Missing("kind");

impl World {
    /// Cuts the network between two hosts: connections end, and none can be made.
    pub fn cut(&mut self, a: HostId, b: HostId) {
        self.cut.insert(pair(a, b));
        self.trouble();
        for conn in self.conns_between(a, b) {
            self.end_conn(conn);
        }
    }

    /// Holds what travels between two hosts, and tells nobody.
    pub fn hold(&mut self, a: HostId, b: HostId) {
        self.held.insert(pair(a, b));
        self.trouble();
    }

    /// Mends the network between two hosts. What was held arrives.
    pub fn heal(&mut self, a: HostId, b: HostId) {
        self.trouble();
        self.cut.remove(&pair(a, b));
        if self.held.remove(&pair(a, b)) {
            for conn in self.conns_between(a, b) {
                for message in std::mem::take(&mut self.conns[conn].held) {
                    self.schedule(self.now, Event::Message { conn, message });
                }
            }
        }
    }

    /// Mends everything.
    pub fn heal_all(&mut self) {
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                self.heal(a, b);
            }
            self.hosts[a].store_faults = None;
        }
        self.spoils.clear();
        self.latency = Duration::from_millis(2);
        self.frame_gap = Duration::from_micros(200);
    }

    /// Ends every fetch of a follower that travels on one stream of its pool.
    pub fn drop_stream(&mut self, at: HostId, stream: u32) {
        self.trouble();
        let on_stream = |job: &Job| matches!(job, Job::Fetch { chunk, .. } if stream_of(*chunk) == stream);
        let lost: Vec<EffectId> =
            self.hosts[at].jobs.iter().filter(|(_, job)| on_stream(job)).map(|(effect, _)| *effect).collect();
        for effect in lost {
            self.end_fetch(at, effect, Err(FetchError::StreamLost));
        }
    }

    /// A follower's driver cannot make sense of what came over its connection, and says so.
    pub fn garbage(&mut self, at: HostId) {
        self.trouble();
        let ours = |conn: &ConnId| self.conns[*conn].alive && self.conns[*conn].dialer == at;
        let alive: Vec<ConnId> = (0..self.conns.len()).filter(ours).collect();
        for conn in alive {
            let Conn { link, owner, .. } = self.conns[conn];
            let fault = GARBAGE;
            self.input(at, Input::Peer(self.hosts[owner].peer, PeerEvent::Fault { link, fault }));
        }
    }

    /// The streams of updates to a follower end, and nothing else.
    pub fn end_watches(&mut self, at: HostId) {
        self.trouble();
        let watch = |job: &Job| matches!(job, Job::Watch { .. });
        let watches: Vec<EffectId> =
            self.hosts[at].jobs.iter().filter(|(_, job)| watch(job)).map(|(effect, _)| *effect).collect();
        for effect in watches {
            self.lose_effect(at, effect);
        }
    }

    /// Ends every engine, whatever is under way, and checks that it is prompt and leaves nothing behind.
    ///
    /// # Panics
    /// If something goes on.
    pub fn shut_down(&mut self) {
        self.trouble();
        for at in 0..self.hosts.len() {
            self.input(at, Input::Command(Command::Shutdown));
            assert!(self.hosts[at].asked.is_empty(), "host {at} still owes answers: {:?}", self.hosts[at].asked);
            assert_eq!(self.hosts[at].engine.next_timer(), None, "host {at}");
        }
        self.heal_all();
        self.drive_for(Duration::from_secs(30));
        for (at, host) in self.hosts.iter().enumerate() {
            assert_eq!(host.engine.view().running(), 0, "host {at} still does {:?}", host.jobs);
            assert!(self.conns.iter().all(|conn| !conn.alive || conn.dialer != at), "host {at} left a connection");
        }
    }

    /// Ends an owner's process, as a power cut would, and starts it again: it reads its folder before anybody connects.
    pub fn restart_owner(&mut self, at: HostId) {
        self.trouble();
        let conns: Vec<ConnId> = (0..self.conns.len()).filter(|conn| self.conns[*conn].owner == at).collect();
        for conn in conns {
            self.end_conn(conn);
        }
        self.kept.retain(|(owner, ..), _| *owner != at);
        self.begin_life(at);
        for path in self.hosts[at].unshared.clone() {
            self.input(at, Input::Command(Command::Unshare { path }));
        }
        self.input(at, Input::Observed(Observation::ScanBegin { path: RelPath::ROOT }));
        let paths: Vec<RelPath> = self.hosts[at].folder.paths().cloned().collect();
        for path in paths {
            if let Some(seen) = self.hosts[at].folder.seen(&path) {
                self.input(at, Input::Observed(Observation::Found { path, seen }));
            }
        }
        self.input(at, Input::Observed(Observation::ScanEnd { path: RelPath::ROOT }));
    }

    /// Ends a follower's process, and starts it again on the store as it was left. If the end is not `clean`, what was not
    /// written down is lost, and what was may be damaged. It begins with what it knew of the owner's tree at the end, at
    /// some moment before, or not at all.
    pub fn restart_follower(&mut self, at: HostId, clean: bool) {
        self.trouble();
        match self.rng.up_to(3) {
            0 => self.hosts[at].remembered = None,
            1 => {}
            _ => self.remember(at),
        }
        let conns: Vec<ConnId> = (0..self.conns.len()).filter(|conn| self.conns[*conn].dialer == at).collect();
        for conn in conns {
            self.end_conn(conn);
        }
        let pins: Vec<RelPath> = self.hosts[at].engine.view().pins().cloned().collect();
        self.begin_life(at);
        let host = &mut self.hosts[at];
        host.kernel = super::oracle::Kernel::default();
        host.links.clear();
        host.wanted.clear();
        let held = host.store.restart(clean, &mut self.rng);
        let remembered = host.remembered.clone();
        self.input(at, Input::Held { held, pins });
        if let Some(owner) = self.follows.get(&at).copied() {
            if let Some(remembered) = remembered {
                let peer = self.hosts[owner].peer;
                self.input(at, Input::Remembered { peer, remembered });
            }
            self.follow(at, owner);
        }
    }

    /// Ends a process, as a power cut would: all of its connections are gone.
    pub(super) fn end_process(&mut self, at: HostId) {
        self.trouble();
        let concerns = |conn: &Conn| conn.owner == at || conn.dialer == at;
        let conns: Vec<ConnId> = (0..self.conns.len()).filter(|conn| concerns(&self.conns[*conn])).collect();
        for conn in conns {
            self.end_conn(conn);
        }
        self.kept.retain(|(owner, ..), _| *owner != at);
    }

    /// Starts a process of which nothing is left but its folder and its store.
    pub(super) fn start_process(&mut self, at: HostId) {
        self.begin_life(at);
        let host = &mut self.hosts[at];
        host.kernel = super::oracle::Kernel::default();
        host.links.clear();
        host.wanted.clear();
        let held = host.store.restart(false, &mut self.rng);
        self.input(at, Input::Held { held, pins: Vec::new() });
    }

    /// A process of which nothing is left begins anew.
    fn begin_life(&mut self, at: HostId) {
        let seed = self.rng.up_to(u64::MAX);
        let now = self.now;
        let host = &mut self.hosts[at];
        host.life += 1;
        host.config.epoch += 1;
        host.engine = Engine::new(host.config.clone(), seed, now);
        host.snapshot = None;
        host.asked.clear();
        host.jobs.clear();
        host.last_request = 0;
        host.watcher = super::host::Watcher::default();
    }

    /// The watcher of an owner lost what happened: the whole folder is read again.
    pub fn rescan(&mut self, at: HostId) {
        self.hosts[at].watcher.looks.clear();
        self.look(at, Look::Scan(RelPath::ROOT));
    }

    /// The connections between two hosts that are there.
    pub(super) fn conns_between(&self, a: HostId, b: HostId) -> Vec<ConnId> {
        let between = |conn: &Conn| conn.alive && pair(conn.dialer, conn.owner) == pair(a, b);
        (0..self.conns.len()).filter(|conn| between(&self.conns[*conn])).collect()
    }

    /// Ends a connection. Its dialer hears of it a little later, before or after what ran over it ends.
    pub(super) fn end_conn(&mut self, conn: ConnId) {
        if !std::mem::replace(&mut self.conns[conn].alive, false) {
            return;
        }
        self.lose_leases(conn);
        let held = std::mem::take(&mut self.conns[conn].held);
        self.conns[conn].broken |= !held.is_empty();
        let at = self.conns[conn].dialer;
        let life = self.hosts[at].life;
        let when = self.now + self.jitter(Duration::from_millis(50));
        self.schedule(when, Event::LinkLost { conn, life });
        let over = |job: &Job| match job {
            Job::Watch { conn: on } | Job::Fetch { conn: on, .. } | Job::Compare { conn: on, .. } => *on == Some(conn),
            Job::Dial { .. }
            | Job::Store { .. }
            | Job::Resume { .. }
            | Job::Verify { .. }
            | Job::Save { .. }
            | Job::Apply { .. } => false,
        };
        let effects: Vec<EffectId> =
            self.hosts[at].jobs.iter().filter(|(_, job)| over(job)).map(|(effect, _)| *effect).collect();
        for effect in effects {
            let when = self.now + self.jitter(Duration::from_millis(50));
            self.schedule(when, Event::EffectLost { at, life, effect });
        }
    }
}
