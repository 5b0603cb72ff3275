//! Taking over a peer's tree: its listing, then its events. Nothing that a peer says is believed further than it fits.

use crate::engine::Engine;
use crate::event::{Change, Position, TreeUpdate};
use crate::fault::PeerFault;
use crate::ids::{Ino, LinkId, PeerId};
use crate::merge::Stated;
use crate::output::{Notice, Output};
use crate::path::{Name, RelPath};
use crate::peers::Peer;
use crate::record::{Kind, Record};
use crate::replica::{Renamed, Telling};
use crate::tree::{Known, Node, Origin};
use crate::version::{Dot, Revision};
use std::collections::BTreeMap;

/// The most entries that one share may have, unless it is set. Peers cannot make us remember more.
pub const MAX_ENTRIES: u64 = 1 << 24;

/// A listing that is being told.
#[derive(Debug)]
pub(crate) struct Listing {
    /// What it names carries this mark.
    mark: u64,
    /// Where we stand when it has ended.
    position: Position,
    /// What takes the place of files of ours, with all that is below it: it comes last, when it is known what is to become of
    /// those files.
    last: BTreeMap<RelPath, Stated>,
}

impl Engine {
    pub(crate) fn on_tree(&mut self, peer: PeerId, link: LinkId, updates: Vec<TreeUpdate>, out: &mut Vec<Output>) {
        if self.link_to(peer) != Some(link) {
            return;
        }
        let is_all = updates.is_empty();
        if is_all && self.peers.get(&peer).is_some_and(|peer| peer.listing.is_some()) {
            // Who lists has more to tell, and nobody is to be kept waiting for it for ever.
            return self.on_fault(peer, link, PeerFault::OutOfPlace, out);
        }
        for update in updates {
            if let Err(fault) = self.apply(peer, update, out) {
                return self.on_fault(peer, link, fault, out);
            }
        }
        self.note_news_from(peer);
        if is_all {
            self.replica.folder.settle_all_of(peer);
            self.on_told_all(peer, out);
        }
    }

    /// A peer has nothing more to tell. If its tree was remembered, it now is known as a whole.
    fn on_told_all(&mut self, id: PeerId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.listed || peer.listing.is_some() || peer.position.epoch == 0 {
            return;
        }
        peer.listed = true;
        self.let_unknown_go(out);
        out.push(Output::Notice(Notice::Listed { peer: id }));
    }

    fn apply(&mut self, id: PeerId, update: TreeUpdate, out: &mut Vec<Output>) -> Result<(), PeerFault> {
        match update {
            TreeUpdate::Begin { position } => {
                if position.epoch == 0 {
                    return Err(PeerFault::OutOfRange("epoch"));
                }
                let mark = self.next_mark();
                let peer = self.peers.get_mut(&id).ok_or(PeerFault::OutOfPlace)?;
                peer.listing = Some(Listing { mark, position, last: BTreeMap::new() });
                Ok(())
            }
            TreeUpdate::Entry { path, record, revision } => {
                let mark = self.listing_of(id)?;
                if self.config.keeps_folder {
                    return self.merge_entry(id, path, Stated { record: Some(record), revision }, out);
                }
                self.put(&path, Known { record, revision, origin: Origin::Peer(id), mark }, false, out)
            }
            TreeUpdate::Removed { path, revision } => {
                self.listing_of(id)?;
                if self.config.keeps_folder {
                    return self.take_over_stated(&path, Stated { record: None, revision }, self.telling_of(id), out);
                }
                self.take_away(&path, &revision, out)
            }
            TreeUpdate::End { settled } => self.end_listing(id, settled, out),
            TreeUpdate::Event { seq, change } => self.apply_event(id, seq, change, out),
            TreeUpdate::Skip { seq } => self.skip_events(id, seq),
        }
    }

    /// The mark of the listing that a peer is telling.
    fn listing_of(&self, id: PeerId) -> Result<u64, PeerFault> {
        let listing = self.peers.get(&id).and_then(|peer| peer.listing.as_ref());
        Ok(listing.ok_or(PeerFault::OutOfPlace)?.mark)
    }

    /// The peer that events may come from.
    fn teller_of_events(&mut self, id: PeerId) -> Result<&mut Peer, PeerFault> {
        let peer = self.peers.get_mut(&id).filter(|peer| peer.listing.is_none() && peer.position.epoch != 0);
        peer.ok_or(PeerFault::OutOfPlace)
    }

    fn skip_events(&mut self, id: PeerId, seq: u64) -> Result<(), PeerFault> {
        let peer = self.teller_of_events(id)?;
        if seq <= peer.position.seq {
            return Err(PeerFault::Gap);
        }
        peer.position.seq = seq;
        Ok(())
    }

    fn end_listing(&mut self, id: PeerId, settled: u64, out: &mut Vec<Output>) -> Result<(), PeerFault> {
        let peer = self.peers.get_mut(&id).ok_or(PeerFault::OutOfPlace)?;
        let Listing { mark, position, last } = peer.listing.take().ok_or(PeerFault::OutOfPlace)?;
        if settled < position.seq {
            return Err(PeerFault::OutOfRange("settled"));
        }
        peer.position = position;
        peer.settled = settled;
        peer.listed = true;
        if self.config.keeps_folder {
            for (path, stated) in last {
                self.take_over_stated(&path, stated, self.telling_of(id), out)?;
            }
            // What it does not name may be newer than this listing, and have come from elsewhere: it stays.
            out.push(Output::Notice(Notice::Listed { peer: id }));
            return Ok(());
        }
        let unnamed: Vec<Ino> = self
            .tree
            .iter()
            .filter(|(ino, node)| node.origin == Origin::Peer(id) && node.mark != mark && *ino != Ino::ROOT)
            .map(|(ino, _)| ino)
            .collect();
        for ino in unnamed {
            self.remove(ino, out);
        }
        self.let_unknown_go(out);
        out.push(Output::Notice(Notice::Listed { peer: id }));
        Ok(())
    }

    fn apply_event(&mut self, id: PeerId, seq: u64, change: Change, out: &mut Vec<Output>) -> Result<(), PeerFault> {
        let peer = self.teller_of_events(id)?;
        if peer.position.seq.checked_add(1) != Some(seq) {
            return Err(PeerFault::Gap);
        }
        let told_again = seq <= peer.settled;
        peer.position.seq = seq;
        let (origin, mark) = (Origin::Peer(id), self.last_mark);
        if self.config.keeps_folder {
            return match self.merge_event(id, change, out) {
                Err(PeerFault::NoParent) if told_again => Ok(()),
                merged => merged,
            };
        }
        let applied = match change {
            Change::Put { path, record, revision, replaced } => {
                self.put(&path, Known { record, revision, origin, mark }, replaced && !told_again, out)
            }
            Change::Remove { path, revision } => self.take_away(&path, &revision, out),
            Change::Rename { from, to, record, revision, left: _, digest: _ } => {
                self.apply_rename(&from, &to, Known { record, revision, origin, mark }, !told_again, out)
            }
        };
        match applied {
            // What the listing no longer had, a later event explains.
            Err(PeerFault::NoParent | PeerFault::BelowFile) if told_again => Ok(()),
            applied => applied,
        }
    }

    /// What a peer says now. It is later than the beginning of every listing that is being told.
    fn telling_of(&self, id: PeerId) -> Telling {
        Telling { origin: Origin::Peer(id), from: Some(id), seen: None, replaced: false, mark: self.last_mark }
    }

    /// One path of the listing of a peer with which we merge.
    fn merge_entry(
        &mut self,
        id: PeerId,
        path: RelPath,
        stated: Stated,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        let replaces = self.replaces_file(&path, &stated);
        if let Some(listing) = self.peers.get_mut(&id).and_then(|peer| peer.listing.as_mut()) {
            let before = listing.last.range(..&path).next_back();
            if replaces || before.is_some_and(|(above, _)| above.is_prefix_of(&path)) {
                if listing.last.len() as u64 >= self.config.max_entries {
                    return Err(PeerFault::TooManyEntries(self.config.max_entries));
                }
                listing.last.insert(path, stated);
                return Ok(());
            }
        }
        self.take_over_stated(&path, stated, self.telling_of(id), out)
    }

    /// Whether a file would go if this was taken over.
    fn replaces_file(&self, path: &RelPath, stated: &Stated) -> bool {
        let node = self.tree.resolve(path.names()).and_then(|ino| self.tree.get(ino));
        node.is_some_and(|node| {
            let is_file = matches!(node.record.kind, Kind::File { .. });
            is_file && stated.record.as_ref().is_some_and(|record| record.kind != node.record.kind)
        })
    }

    /// A peer with which we merge says what happened.
    fn merge_event(&mut self, id: PeerId, change: Change, out: &mut Vec<Output>) -> Result<(), PeerFault> {
        let telling = self.telling_of(id);
        match change {
            Change::Put { path, record, revision, replaced } => {
                let telling = Telling { replaced, ..telling };
                self.take_over_stated(&path, Stated { record: Some(record), revision }, telling, out)
            }
            Change::Remove { path, revision } => {
                self.take_over_stated(&path, Stated { record: None, revision }, telling, out)
            }
            Change::Rename { from, to, record, revision, left, digest } => {
                check_rename(&from, &to)?;
                let renamed = self.take_over_rename((&from, &to), (record, revision), (left, digest), telling, out)?;
                if renamed == Renamed::Otherwise {
                    self.list_anew(id, out);
                }
                Ok(())
            }
        }
    }

    /// This is at a path now.
    pub(crate) fn put(
        &mut self,
        path: &RelPath,
        known: Known,
        replaced: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        known.record.check()?;
        known.revision.check()?;
        let Some((parents, name)) = path.split_last() else {
            if known.record.kind != Kind::Dir {
                return Err(PeerFault::Root);
            }
            self.update(Ino::ROOT, known, out);
            return Ok(());
        };
        let parent = self.directory(parents)?;
        self.put_in(parent, name.clone(), known, replaced, out)?;
        Ok(())
    }

    /// This is in a directory now.
    pub(crate) fn put_in(
        &mut self,
        parent: Ino,
        name: Name,
        known: Known,
        replaced: bool,
        out: &mut Vec<Output>,
    ) -> Result<Ino, PeerFault> {
        match self.tree.child(parent, name.as_bytes()) {
            Some(ino) if !replaced && self.is_same_kind(ino, &known.record) => {
                self.update(ino, known, out);
                Ok(ino)
            }
            existing => {
                if let Some(ino) = existing {
                    self.remove(ino, out);
                }
                if self.tree.len() >= self.config.max_entries {
                    return Err(PeerFault::TooManyEntries(self.config.max_entries));
                }
                Ok(self.add(parent, name, known, out))
            }
        }
    }

    /// Nothing is at a path any more.
    fn take_away(&mut self, path: &RelPath, revision: &Revision, out: &mut Vec<Output>) -> Result<(), PeerFault> {
        revision.check()?;
        if path.is_root() {
            return Err(PeerFault::Root);
        }
        if let Some(ino) = self.tree.resolve(path.names()) {
            self.remove(ino, out);
        }
        Ok(())
    }

    fn apply_rename(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        known: Known,
        replaced: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), PeerFault> {
        check_rename(from, to)?;
        let Some((parents, name)) = to.split_last() else { return Err(PeerFault::Root) };
        match self.tree.resolve(from.names()) {
            Some(ino) if self.is_same_kind(ino, &known.record) => {
                known.record.check()?;
                known.revision.check()?;
                let parent = match self.directory(parents) {
                    Ok(parent) => parent,
                    Err(fault) => {
                        // Wherever it went, it is not where it was.
                        self.remove(ino, out);
                        return Err(fault);
                    }
                };
                self.rename(ino, parent, name.clone(), out);
                self.mark_moved(ino, known.revision.dot);
                self.update(ino, known, out);
                Ok(())
            }
            // A directory that we never heard of comes without what it holds.
            _ if known.record.kind == Kind::Dir => Err(PeerFault::Gap),
            other => {
                if let Some(ino) = other {
                    self.remove(ino, out);
                }
                self.put(to, known, replaced, out)
            }
        }
    }

    /// An entry was moved with everything below it: that is a change of each.
    pub(crate) fn mark_moved(&mut self, ino: Ino, dot: Dot) {
        for inner in self.tree.within(ino) {
            if let Some(node) = self.tree.get_mut(inner) {
                node.revision = Revision::after(&node.revision.version, dot);
            }
        }
    }

    pub(crate) fn directory(&self, path: &[Name]) -> Result<Ino, PeerFault> {
        let mut at = Ino::ROOT;
        for name in path {
            if !self.tree.get(at).is_some_and(Node::is_dir) {
                return Err(PeerFault::BelowFile);
            }
            at = self.tree.child(at, name.as_bytes()).ok_or(PeerFault::NoParent)?;
        }
        if self.tree.get(at).is_some_and(Node::is_dir) { Ok(at) } else { Err(PeerFault::BelowFile) }
    }

    pub(crate) fn is_same_kind(&self, ino: Ino, record: &Record) -> bool {
        self.tree
            .get(ino)
            .is_some_and(|node| core::mem::discriminant(&node.record.kind) == core::mem::discriminant(&record.kind))
    }

    // What follows changes the tree and tells the kernel; our own folder's changes come through here too.

    /// Adds an entry under a free name.
    pub(crate) fn add(&mut self, parent: Ino, name: Name, known: Known, out: &mut Vec<Output>) -> Ino {
        self.invalidate_name(parent, name.clone(), out);
        let ino = self.tree.insert(parent, name, known);
        self.prefetch_if_pinned(ino);
        ino
    }

    /// Gives an entry a new record of the same kind. If its bytes are others now, those who read it read the new ones.
    pub(crate) fn update(&mut self, ino: Ino, known: Known, out: &mut Vec<Output>) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        let data = match (&node.record.kind, &known.record.kind) {
            (Kind::Dir, Kind::Dir) => false,
            (before, after) => before != after,
        };
        if data && node.is_bound {
            return self.replace(ino, known, out);
        }
        let Known { record, revision, origin, mark } = known;
        node.mark = mark;
        node.origin = origin;
        node.revision = revision;
        if node.record == record {
            return;
        }
        node.record = record;
        if node.is_known_to_kernel(ino) {
            out.push(Output::Notice(Notice::InvalidateInode { ino, data }));
        }
        if data {
            self.replace_content(ino, out);
        }
    }

    /// Puts another entry in the place of one that is read past the engine: whoever has that open keeps the bytes that it
    /// has, and new opens get the new ones.
    fn replace(&mut self, ino: Ino, known: Known, out: &mut Vec<Output>) {
        let Some((parent, name)) = self.tree.get(ino).and_then(|node| node.place.clone()) else { return };
        self.remove(ino, out);
        let new = self.add(parent, name, known, out);
        if let Some(node) = self.tree.get_mut(new) {
            node.is_lively = true;
        }
    }

    fn replace_content(&mut self, ino: Ino, out: &mut Vec<Output>) {
        self.handles.restart(ino);
        // Also if nothing of it was ever here: it may have been empty.
        self.prefetch_if_pinned(ino);
        let old = self.tree.get_mut(ino).and_then(|node| node.content.take());
        let waiters = old.map(|old| self.supersede(ino, old, out)).unwrap_or_default();
        if self.tree.get(ino).is_some_and(|node| node.opens.count() > 0) {
            self.lease(ino, out);
        }
        if waiters.is_empty() {
            return;
        }
        match self.content_of(ino, out) {
            Some(new) => self.move_waiters(waiters, new, out),
            None => waiters.into_iter().for_each(|id| self.finish(id, Err(crate::Errno::Stale), out)),
        }
    }

    /// Takes an entry, and everything below it, out of the tree. Whoever has something of it open keeps it.
    pub(crate) fn remove(&mut self, ino: Ino, out: &mut Vec<Output>) {
        let Some((parent, name)) = self.tree.get(ino).and_then(|node| node.place.clone()) else { return };
        for inner in self.tree.within(ino) {
            let content = self.tree.get(inner).and_then(|node| node.content);
            if let (Some(content), Some(path)) = (content, self.tree.path_of(inner))
                && let Some(content) = self.contents.get_mut(&content)
            {
                content.path = path;
            }
        }
        let gone = self.tree.unlink(ino);
        self.invalidate_name(parent, name, out);
        for ino in gone {
            if self.tree.get(ino).is_some_and(|node| node.is_known_to_kernel(ino)) {
                // It has one link less.
                out.push(Output::Notice(Notice::InvalidateInode { ino, data: false }));
            }
            self.end_bringing(ino, out);
            self.reap(ino, out);
        }
    }

    /// Gives an entry another name, and removes what stood there.
    pub(crate) fn rename(&mut self, ino: Ino, parent: Ino, name: Name, out: &mut Vec<Output>) {
        let Some((old_parent, old_name)) = self.tree.get(ino).and_then(|node| node.place.clone()) else { return };
        if (old_parent, &old_name) == (parent, &name) {
            return;
        }
        if let Some(other) = self.tree.child(parent, name.as_bytes()) {
            self.remove(other, out);
        }
        let from = self.tree.path_of(ino);
        self.tree.rename(ino, parent, name.clone());
        if let Some(from) = from {
            self.move_stored(&from, ino, out);
        }
        self.prefetch_if_pinned(ino);
        self.invalidate_name(old_parent, old_name, out);
        self.invalidate_name(parent, name, out);
        // What now lies deeper than a path may be cannot be named any more, neither here nor by those who follow.
        for deep in self.tree.beyond_path_max(ino) {
            self.remove(deep, out);
        }
    }

    fn invalidate_name(&mut self, parent: Ino, name: Name, out: &mut Vec<Output>) {
        if self.tree.get(parent).is_some_and(|node| node.is_known_to_kernel(parent)) {
            out.push(Output::Notice(Notice::InvalidateEntry { parent, name }));
            out.push(Output::Notice(Notice::InvalidateInode { ino: parent, data: true }));
        }
    }
}

/// A rename is about two paths, of which none is in the other.
fn check_rename(from: &RelPath, to: &RelPath) -> Result<(), PeerFault> {
    if from.is_root() || to.is_root() {
        return Err(PeerFault::Root);
    }
    if from != to && (from.is_prefix_of(to) || to.is_prefix_of(from)) {
        return Err(PeerFault::IntoItself);
    }
    Ok(())
}
