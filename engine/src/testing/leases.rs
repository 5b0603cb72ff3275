//! The files that owners keep open for their followers.

use super::host::HostId;
use super::wire::{Conn, ConnId, Message};
use super::world::World;
use crate::ids::{ContentId, Handle, LinkId};
use crate::input::{FetchError, Wanted};
use crate::record::Stamp;
use crate::time::Time;
use core::time::Duration;
use std::collections::BTreeSet;

/// How long an owner keeps a file open for a follower whose connection was lost.
pub const LEASE_GRACE: Duration = Duration::from_secs(600);

/// By owner, follower and version.
pub(super) type LeaseKey = (HostId, HostId, Stamp);

/// A file that an owner keeps open.
#[derive(Debug)]
pub(super) struct Lease {
    /// Its inode, in this version.
    opened: (u64, u64),
    /// What the follower holds it for.
    contents: BTreeSet<ContentId>,
    /// When it ends, once the connection is lost.
    until: Option<Time>,
}

impl World {
    /// A follower's driver opens a stream for a content.
    pub(super) fn open_streams(&mut self, at: HostId, link: LinkId, wanted: Wanted) {
        let conn = self.hosts[at].links.get(&link).copied().filter(|conn| self.conns[*conn].alive);
        let Some(conn) = conn else { return };
        self.hosts[at].wanted.entry(wanted.content).or_insert_with(|| wanted.clone());
        self.send(conn, Message::Open { wanted });
    }

    /// A follower's driver closes all streams of a content.
    pub(super) fn close_streams(&mut self, at: HostId, content: ContentId) {
        let Some(wanted) = self.hosts[at].wanted.get(&content).cloned() else { return };
        let conns: Vec<ConnId> = (0..self.hosts.len()).flat_map(|owner| self.conns_between(at, owner)).collect();
        for conn in conns {
            self.send(conn, Message::Close { wanted: wanted.clone() });
        }
    }

    /// Which file an owner reads for a follower: the one that it keeps open already, or the one that is there now.
    pub(super) fn lease(&mut self, conn: ConnId, wanted: &Wanted) -> Result<(u64, u64), FetchError> {
        let Conn { dialer, owner, .. } = self.conns[conn];
        let key = (owner, dialer, wanted.stamp);
        let now = self.now;
        self.kept.retain(|_, lease| lease.until.is_none_or(|until| until > now));
        let opened = match self.kept.get(&key).filter(|_| self.leases) {
            Some(lease) => lease.opened,
            None => self.open_now(conn, wanted).inspect_err(|_| _ = self.refused_leases.insert(key))?,
        };
        let lease = self.kept.entry(key).or_insert(Lease { opened, contents: BTreeSet::new(), until: None });
        lease.until = None;
        lease.contents.insert(wanted.content);
        Ok(lease.opened)
    }

    /// Whether what is open through a handle was gone already when its owner was first asked to keep it: what was not here
    /// by then cannot be had.
    pub(super) fn came_too_late(&self, at: HostId, handle: Handle) -> bool {
        let host = &self.hosts[at];
        let content = host.kernel.handles.get(&handle).and_then(|open| host.engine.tree.get(open.ino)?.content);
        let Some(wanted) = content.and_then(|content| host.wanted.get(&content)) else { return false };
        (0..self.hosts.len()).any(|owner| self.refused_leases.contains(&(owner, at, wanted.stamp)))
    }

    /// A follower has closed the streams of a content.
    pub(super) fn end_lease(&mut self, conn: ConnId, wanted: &Wanted) {
        let Conn { dialer, owner, .. } = self.conns[conn];
        let key = (owner, dialer, wanted.stamp);
        if let Some(lease) = self.kept.get_mut(&key) {
            lease.contents.remove(&wanted.content);
            if lease.contents.is_empty() {
                self.kept.remove(&key);
            }
        }
    }

    /// A connection is lost: what was held over it is kept for a while.
    pub(super) fn lose_leases(&mut self, conn: ConnId) {
        let Conn { dialer, owner, .. } = self.conns[conn];
        let until = self.now + LEASE_GRACE;
        for (_, lease) in self.kept.iter_mut().filter(|((of, to, _), _)| (*of, *to) == (owner, dialer)) {
            lease.contents.clear();
            lease.until = Some(until);
        }
    }
}
