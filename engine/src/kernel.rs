//! What the kernel asks about the tree: all of it answered from memory, at once.

use crate::content::Content;
use crate::engine::Engine;
use crate::ids::{ContentId, Handle, Ino, ReqId};
use crate::input::Request;
use crate::output::{DirEntry, DirEntryName, Effect, Errno, Opened, Output, Reply};
use crate::path::Name;
use crate::record::Kind;
use crate::tree::{Node, Origin};

/// What one entry of a listing costs in the kernel's buffer without its name: `struct fuse_dirent`.
const DIRENT_BYTES: u32 = 24;

/// The same with attributes: `struct fuse_direntplus`.
const DIRENTPLUS_BYTES: u32 = 152;

/// Cookies of the two entries that every directory has.
const DOT_COOKIE: u64 = 1;
const DOT_DOT_COOKIE: u64 = 2;

impl Engine {
    pub(crate) fn on_request(&mut self, id: ReqId, request: Request, out: &mut Vec<Output>) {
        let result = match request {
            Request::Lookup { parent, name } => self.lookup(parent, &name),
            Request::Xattrs { ino } => self.node(ino).map(|node| Reply::Xattrs(node.record.xattrs.clone())),
            Request::GetAttr { ino } => self.node(ino).map(|node| Reply::Attr(node.attr(ino))),
            Request::ReadLink { ino } => self.read_link(ino),
            Request::Open { ino, write, whole_from } => self.open(ino, write, whole_from, out),
            Request::Release { handle } => self.release(handle, out),
            Request::ReadDir { ino, after, budget_bytes, plus } => self.read_dir(ino, after, budget_bytes, plus),
            Request::Pin { path } => self.pin(path, out),
            Request::Unpin { path } => self.unpin(&path, out),
            Request::Evict { path } => self.evict(&path, out),
            Request::PeerOpen { peer: _, path, stamp } => self.peer_open(&path, stamp),
            Request::Read { handle, offset, len } => return self.read(id, handle, offset, len, out),
            Request::FetchAll { handle } => return self.fetch_all(id, handle, out),
            Request::Bring { path } => return self.bring(id, &path, out),
            Request::PeerWatch { peer, cursor } => return self.peer_watch(id, peer, cursor, out),
        };
        self.reply(id, result, out);
    }

    pub(crate) fn on_forget(&mut self, ino: Ino, lookups: u64, out: &mut Vec<Output>) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        self.reap(ino, out);
    }

    /// Lets go of an entry, and of its bytes, if it has no name and nobody knows it any more.
    pub(crate) fn reap(&mut self, ino: Ino, out: &mut Vec<Output>) {
        let identity = self.identity_of(ino);
        let Some(node) = self.tree.reap(ino) else { return };
        if let Some(content) = node.content {
            self.discard(content, out);
        } else if let Some(key) = identity.map(|identity| identity.key())
            && !self.is_held_for_another(&key)
        {
            self.let_held_go(&key, out);
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        // An entry that is gone while the kernel still has its number: the file behind it does not exist any more.
        self.tree.get(ino).ok_or(Errno::Stale)
    }

    fn lookup(&mut self, parent: Ino, name: &Name) -> Result<Reply, Errno> {
        if !self.node(parent)?.is_dir() {
            return Err(Errno::NotDir);
        }
        let ino = self.tree.child(parent, name.as_bytes()).ok_or(Errno::NoEntry)?;
        let node = self.tree.get_mut(ino).ok_or(Errno::NoEntry)?;
        node.lookups += 1;
        Ok(Reply::Entry(node.attr(ino)))
    }

    fn read_link(&self, ino: Ino) -> Result<Reply, Errno> {
        match &self.node(ino)?.record.kind {
            Kind::Symlink { target } => Ok(Reply::Target(target.clone())),
            Kind::File { .. } | Kind::Dir => Err(Errno::Invalid),
        }
    }

    pub(crate) fn open(
        &mut self,
        ino: Ino,
        write: bool,
        whole_from: Option<u64>,
        out: &mut Vec<Output>,
    ) -> Result<Reply, Errno> {
        let node = self.node(ino)?;
        match node.record.kind {
            Kind::File { .. } => {}
            Kind::Dir => return Err(Errno::IsDir),
            Kind::Symlink { .. } => return Err(Errno::Invalid),
        }
        if write {
            return Err(Errno::ReadOnly);
        }
        let local = match (node.origin, node.content) {
            (Origin::Local(_), None) => Some(self.tree.path_of(ino).ok_or(Errno::Stale)?),
            (Origin::Local(_), Some(_)) | (Origin::Peer(_), _) => None,
        };
        let is_first = self.tree.get_mut(ino).is_some_and(|node| {
            node.opens.open();
            node.opens.count() == 1
        });
        if let Some(content) = self.tree.get(ino).and_then(|node| node.content) {
            self.note_use(content, true);
        }
        if is_first {
            self.bind(ino, whole_from);
            self.lease(ino, out);
        }
        if self.config.prefetch_on_open {
            self.prefetch_first(ino);
        }
        let whole = self.tree.get(ino).filter(|node| node.is_bound).and_then(|node| node.content);
        Ok(Reply::Opened(Opened { handle: self.handles.open(ino), local, whole }))
    }

    /// The first open of a file decides for all others: whether it keeps the bytes that it has now.
    fn bind(&mut self, ino: Ino, whole_from: Option<u64>) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        let content = node.content.and_then(|content| self.contents.get(&content));
        let is_whole =
            |content: &Content| whole_from.is_some_and(|from| content.size_bytes >= from) && content.is_complete();
        node.is_bound = !node.is_lively && content.is_some_and(is_whole);
    }

    pub(crate) fn release(&mut self, handle: Handle, out: &mut Vec<Output>) -> Result<Reply, Errno> {
        let file = self.handles.release(handle).ok_or(Errno::BadHandle)?;
        self.end_waits_on(handle, out);
        if let Some(node) = self.tree.get_mut(file.ino)
            && node.opens.release() == 0
        {
            node.is_bound = false;
            if let Some(content) = node.content {
                self.close_content(content, out);
            }
        }
        self.reap(file.ino, out);
        Ok(Reply::Released)
    }

    /// Nobody has a content open any more.
    fn close_content(&mut self, content: ContentId, out: &mut Vec<Output>) {
        if !self.prefetch_goes_on(content) {
            self.abandon_fetches(content, out);
        }
        self.note_use(content, false);
        self.let_go_of_local(content, out);
        self.force_save();
        self.trim(out);
        if !self.is_prefetched(content) && !self.contents.get(&content).is_some_and(Content::is_complete) {
            self.effect_unreported(Effect::CloseStreams { content }, out);
        }
    }

    fn read_dir(&mut self, dir: Ino, after: u64, budget_bytes: u32, plus: bool) -> Result<Reply, Errno> {
        let node = self.node(dir)?;
        if !node.is_dir() {
            return Err(Errno::NotDir);
        }
        let parent = node.place.as_ref().map_or(dir, |(parent, _)| *parent);
        let attr_of = |ino: Ino| self.tree.get(ino).map(|node| node.attr(ino));
        let dots = [(DOT_COOKIE, DirEntryName::Dot, dir), (DOT_DOT_COOKIE, DirEntryName::DotDot, parent)]
            .into_iter()
            .filter(|(cookie, ..)| *cookie > after)
            .filter_map(|(cookie, name, ino)| Some(DirEntry { cookie, name, attr: attr_of(ino)? }));
        let children = self.tree.children_after(dir, Ino(after.max(DOT_DOT_COOKIE))).filter_map(|(ino, node)| {
            let (_, name) = node.place.as_ref()?;
            Some(DirEntry { cookie: ino.0, name: DirEntryName::Name(name.clone()), attr: node.attr(ino) })
        });
        let mut left = budget_bytes;
        let mut too_small = false;
        let entries: Vec<DirEntry> = dots
            .chain(children)
            .map_while(|entry| {
                let fits = left.checked_sub(dirent_bytes(&entry.name, plus));
                too_small = fits.is_none();
                left = fits?;
                Some(entry)
            })
            .collect();
        if entries.is_empty() && too_small {
            // An empty answer would be the end of the directory.
            return Err(Errno::Invalid);
        }
        if plus {
            for entry in entries.iter().filter(|entry| matches!(entry.name, DirEntryName::Name(_))) {
                if let Some(node) = self.tree.get_mut(entry.attr.ino) {
                    node.lookups += 1;
                }
            }
        }
        Ok(Reply::Entries(entries))
    }

    /// Lets go of a content: nothing of it will be asked for again. Nobody waits for it any more.
    pub(crate) fn discard(&mut self, id: ContentId, out: &mut Vec<Output>) -> Option<Content> {
        self.abandon_fetches(id, out);
        self.stop_prefetch(id);
        let content = self.contents.remove(&id)?;
        self.cache.forget(&content);
        self.effect_unreported(Effect::Discard { content: id }, out);
        Some(content)
    }
}

/// What an entry costs in the kernel's buffer: entries begin at multiples of eight bytes.
fn dirent_bytes(name: &DirEntryName, plus: bool) -> u32 {
    let fixed = if plus { DIRENTPLUS_BYTES } else { DIRENT_BYTES };
    // A name has at most 255 bytes.
    fixed + (name.as_bytes().len() as u32).next_multiple_of(8)
}
