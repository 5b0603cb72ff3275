//! Files that peers have and our own folder has not: what is known of them, and how they come into the folder.

use crate::engine::Engine;
use crate::ids::{Ino, ReqId};
use crate::output::{Attr, Errno, Output, Reply};
use crate::path::{Name, RelPath};
use crate::reads::Waiting;
use crate::record::Kind;
use crate::tree::Origin;
use crate::view::View;
use crate::xattrs::Xattrs;

impl Engine {
    /// Whether our folder has what the tree says of an entry.
    pub(crate) fn is_in_folder(&self, ino: Ino) -> bool {
        self.tree.get(ino).is_some_and(|node| matches!(node.origin, Origin::Local(_)))
    }

    /// A file is to be in our folder. Somebody has it open until it is, or until it cannot be had.
    pub(crate) fn bring(&mut self, id: ReqId, path: &RelPath, out: &mut Vec<Output>) {
        let Some(ino) = self.tree.resolve(path.names()) else { return self.reply(id, Err(Errno::NoEntry), out) };
        if self.is_in_folder(ino) {
            return self.reply(id, Ok(Reply::Brought), out);
        }
        let is_file = self.tree.get(ino).is_some_and(|node| matches!(node.record.kind, Kind::File { .. }));
        if !self.config.keeps_folder || !is_file {
            return self.reply(id, Err(Errno::Invalid), out);
        }
        let handle = match self.open(ino, false, None, out) {
            Ok(Reply::Opened(opened)) => opened.handle,
            Ok(_) => return self.reply(id, Err(Errno::Invalid), out),
            Err(errno) => return self.reply(id, Err(errno), out),
        };
        self.wait_for(id, handle, 0, u64::MAX, Waiting::Bring, out);
        if !self.waiting.contains_key(&id) {
            let _released = self.release(handle, out);
        } else if let Some(content) = self.tree.get(ino).and_then(|node| node.content)
            && self.contents.get(&content).is_some_and(crate::content::Content::is_complete)
        {
            self.note_whole(content);
        }
    }

    /// Whether a path has a file that peers have and our folder has not.
    pub(crate) fn is_away(&self, path: &RelPath) -> bool {
        self.tree.resolve(path.names()).is_some_and(|ino| self.away_attr(ino).is_some())
    }

    fn away_attr(&self, ino: Ino) -> Option<Attr> {
        let node = self.tree.get(ino)?;
        let is_away = matches!((&node.record.kind, node.origin), (Kind::File { .. }, Origin::Peer(_)));
        let is_hidden = || self.tree.path_of(ino).is_some_and(|path| self.replica.folder.behind.contains(&path));
        (self.config.keeps_folder && is_away && !is_hidden()).then(|| node.attr(ino))
    }
}

impl<'a> View<'a> {
    /// The file at a path, if peers have it and our own folder has nothing there.
    #[must_use]
    pub fn away(&self, path: &RelPath) -> Option<Attr> {
        self.engine.away_attr(self.engine.tree.resolve(path.names())?)
    }

    /// The extended attributes of what [`View::away`] shows; none of what it does not.
    #[must_use]
    pub fn away_xattrs(&self, path: &RelPath) -> Xattrs {
        let ino = self.engine.tree.resolve(path.names()).filter(|ino| self.engine.away_attr(*ino).is_some());
        ino.and_then(|ino| self.engine.tree.get(ino)).map(|node| node.record.xattrs.clone()).unwrap_or_default()
    }

    /// Whether the file at a path is on its way into our own folder, or something else is just being done there.
    #[must_use]
    pub fn is_being_applied(&self, path: &RelPath) -> bool {
        self.engine.replica.folder.is_in_flight_below(path)
    }

    /// The files in a directory that peers have and for which our own folder has nothing there, in the order of their names.
    pub fn away_in(&self, dir: &RelPath) -> impl Iterator<Item = (&'a Name, Attr)> + 'a {
        let engine = self.engine;
        let dir = engine.tree.resolve(dir.names());
        let children = dir.into_iter().flat_map(|dir| engine.tree.children_by_name(dir));
        children.filter_map(|(name, ino)| Some((name, engine.away_attr(ino)?)))
    }
}
