//! Having an owner keep what is open here readable, from the moment at which it is opened.
//!
//! A lease is a stream: the driver opens one when it is told to, and the owner keeps the file open for as long as the
//! stream lives, whatever becomes of the file's name meanwhile.

use crate::content::Content;
use crate::engine::Engine;
use crate::ids::{ContentId, Ino, PeerId};
use crate::input::Wanted;
use crate::kept::Opening;
use crate::output::{Effect, Output};

impl Engine {
    /// Takes a lease on a file of a peer that is open here, unless all of it is here, or the peer is away, or the store is
    /// looking up what it has. In these cases the lease is taken as soon as the peer is back, or that is known.
    pub(crate) fn lease(&mut self, ino: Ino, out: &mut Vec<Output>) {
        // An empty file has no bytes that could be lost.
        let is_empty = self.tree.get(ino).is_none_or(|node| node.record.size_bytes() == 0);
        if is_empty || self.stopping {
            return;
        }
        let Some(id) = self.content_of(ino, out) else { return };
        let is_wanted = |content: &&Content| content.opening == Opening::Done && !content.is_complete();
        let Some(content) = self.contents.get(&id).filter(is_wanted) else { return };
        let peer = content.peer;
        let (Some(link), Some(wanted)) = (self.link_to(peer), self.wanted(id)) else { return };
        self.effect_unreported(Effect::OpenStreams { peer, link, wanted }, out);
    }

    /// The peer is back: takes leases on everything of it that is open here and not complete.
    pub(crate) fn lease_again(&mut self, peer: PeerId, out: &mut Vec<Output>) {
        let is_open = |ino: Ino| self.tree.get(ino).is_some_and(|node| node.opens.count() > 0);
        let of_peer = |content: &Content| content.peer == peer && is_open(content.ino);
        let open: Vec<Ino> =
            self.contents.values().filter(|content| of_peer(content)).map(|content| content.ino).collect();
        for ino in open {
            self.lease(ino, out);
        }
    }

    /// What to ask the owner of a content for: where it is now, or where it was last.
    pub(crate) fn wanted(&mut self, id: ContentId) -> Option<Wanted> {
        let content = self.contents.get_mut(&id)?;
        if let Some(path) = self.tree.path_of(content.ino) {
            content.path = path;
        }
        let wanted = content.wanted(id);
        let path = self.elsewhere(wanted.stamp);
        Some(Wanted { path: path.unwrap_or(wanted.path), ..wanted })
    }
}
