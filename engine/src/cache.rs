//! What stays of what was fetched: how much, what goes first, and what never goes.
//!
//! What was used least recently goes first; something counts as used when it is closed. What is open, pinned or on its
//! way never goes, so a file that is larger than the limit can still be read, and is too much only while it is open.

use crate::content::Content;
use crate::engine::Engine;
use crate::identity::ContentKey;
use crate::ids::{ContentId, Ino};
use crate::kept::Opening;
use crate::output::{Effect, Errno, Notice, Output, Reply};
use crate::path::RelPath;
use crate::replica::NOBODY;
use crate::stored::Held;
use std::collections::{BTreeMap, BTreeSet};

/// The most paths that can be pinned.
const MAX_PINS: usize = 4096;

/// Something that could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// From an earlier life; nobody has asked for it in this one.
    Held(ContentKey),
    /// Nobody has it open.
    Content(ContentId),
}

/// Everything that was fetched, by when it was used.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// What is from an earlier life, each with its place in the order.
    held: BTreeMap<ContentKey, (u64, Held)>,
    by_path: BTreeMap<RelPath, BTreeSet<ContentKey>>,
    /// What could go, least recently used first.
    order: BTreeMap<u64, Item>,
    last_use: u64,
    /// What is stored in all, in bytes.
    stored_bytes: u64,
    /// Contents of which nothing was stored when that was last looked at, and that nobody had open.
    empty: BTreeSet<ContentId>,
    /// Nothing that could go may go: it was looked for in vain, and nothing has changed since.
    is_exhausted: bool,
    /// Paths that stay, with all that is below them.
    pins: BTreeSet<RelPath>,
    /// Whether every path does.
    keeps_all: bool,
}

impl Cache {
    /// Nothing is held. If it `keeps_all`, everything is as if it was pinned.
    pub(crate) fn new(keeps_all: bool) -> Cache {
        Cache { keeps_all, ..Cache::default() }
    }

    /// Whether anything stays.
    pub(crate) fn has_pins(&self) -> bool {
        self.keeps_all || !self.pins.is_empty()
    }

    fn next_use(&mut self) -> u64 {
        self.last_use += 1;
        self.last_use
    }

    /// Takes over what the store holds from an earlier life.
    fn hold(&mut self, mut held: Vec<Held>) {
        held.sort_by_key(|held| (held.last_used, held.key));
        for held in held {
            let place = self.next_use();
            self.is_exhausted = false;
            self.order.insert(place, Item::Held(held.key));
            self.stored_bytes += held.stored_bytes;
            self.by_path.entry(held.path.clone()).or_default().insert(held.key);
            self.held.insert(held.key, (place, held));
        }
    }

    /// What is held of these bytes. Whoever takes it accounts for its size.
    pub(crate) fn take_held(&mut self, key: &ContentKey) -> Option<Held> {
        let (place, held) = self.held.remove(key)?;
        self.order.remove(&place);
        if let Some(keys) = self.by_path.get_mut(&held.path) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_path.remove(&held.path);
            }
        }
        Some(held)
    }

    /// Whether anything is held of these bytes.
    pub(crate) fn holds(&self, key: &ContentKey) -> bool {
        self.held.contains_key(key)
    }

    /// What is held under `key` stands at `path` now.
    fn move_held(&mut self, key: &ContentKey, path: RelPath) {
        let Some((_, held)) = self.held.get_mut(key).filter(|(_, held)| held.path != path) else { return };
        let before = std::mem::replace(&mut held.path, path.clone());
        if let Some(keys) = self.by_path.get_mut(&before) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_path.remove(&before);
            }
        }
        self.by_path.entry(path).or_default().insert(*key);
    }

    /// The version of the file at `path` of which there is most, of those that are held.
    pub(crate) fn take_version_at(&mut self, path: &RelPath) -> Option<Held> {
        let sizes = self.by_path.get(path)?.iter().filter_map(|key| Some((self.held.get(key)?.1.stored_bytes, *key)));
        let (_, largest) = sizes.max()?;
        self.take_held(&largest)
    }

    /// A content is gone.
    pub(crate) fn forget(&mut self, content: &Content) {
        self.stored_bytes -= content.charged_bytes;
        if let Some(place) = content.used {
            self.order.remove(&place);
        }
    }

    /// Whether a path stays whatever happens.
    pub(crate) fn is_pinned(&self, path: &RelPath) -> bool {
        let names = path.names();
        if self.keeps_all {
            return true;
        }
        if self.pins.len() <= names.len() {
            return self.pins.iter().any(|pin| pin.is_prefix_of(path));
        }
        let above = (0..=names.len()).filter_map(|depth| RelPath::new(names[..depth].to_vec()).ok());
        above.into_iter().any(|above| self.pins.contains(&above))
    }

    pub(crate) fn pins(&self) -> &BTreeSet<RelPath> {
        &self.pins
    }

    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values().map(|(_, held)| held)
    }

    /// Something is not under way any more: it may be something that could go.
    pub(crate) fn note_idle(&mut self) {
        self.is_exhausted = false;
    }

    /// For [`Engine::check`].
    pub(crate) fn check(&self, contents: &BTreeMap<ContentId, Content>) {
        let charged: u64 = contents.values().map(|content| content.charged_bytes).sum();
        let held: u64 = self.held.values().map(|(_, held)| held.stored_bytes).sum();
        assert_eq!(self.stored_bytes, charged + held, "what is stored is miscounted");
        for (place, item) in &self.order {
            let known = match item {
                Item::Held(key) => self.held.get(key).map(|(place, _)| *place),
                Item::Content(id) => contents.get(id).and_then(|content| content.used),
            };
            assert_eq!(known, Some(*place), "{item:?} is not where it stands in the order");
        }
        let ordered = contents.values().filter(|content| content.used.is_some()).count() + self.held.len();
        assert_eq!(ordered, self.order.len(), "something stands in the order twice, or not at all");
        let by_path: usize = self.by_path.values().map(BTreeSet::len).sum();
        assert_eq!(by_path, self.held.len(), "something is held that cannot be found by its path, or the reverse");
    }
}

impl Engine {
    /// The store says what it holds from an earlier life, and what was pinned.
    pub(crate) fn on_held(&mut self, held: Vec<Held>, pins: Vec<RelPath>) {
        // Nothing goes before it is known what stands where: pins go by path.
        self.cache.hold(held);
        self.cache.pins.extend(pins);
    }

    /// Counts anew what a content needs in the store.
    pub(crate) fn charge(&mut self, id: ContentId) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let bytes = content.stored_bytes();
        self.cache.stored_bytes = self.cache.stored_bytes + bytes - content.charged_bytes;
        content.charged_bytes = bytes;
        self.note_empty(id);
    }

    /// A chunk of a content has become present.
    pub(crate) fn note_present(&mut self, id: ContentId, out: &mut Vec<Output>) {
        self.charge(id);
        let may_go = |content: &Content| content.used.is_some() && !self.is_pinned_now(content.ino);
        if self.contents.get(&id).is_some_and(may_go) {
            self.cache.note_idle();
        }
        if self.contents.get(&id).is_some_and(Content::is_complete) {
            self.drop_base(id, out);
            self.effect_unreported(Effect::CloseStreams { content: id }, out);
            self.stop_prefetch(id);
            self.note_whole(id);
        }
        self.note_unsaved(id, self.save_interval(id));
        self.trim(out);
    }

    /// Somebody has opened a content, or released the last handle on it.
    pub(crate) fn note_use(&mut self, id: ContentId, is_open: bool) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        if let Some(place) = content.used.take() {
            self.cache.order.remove(&place);
        }
        if !is_open {
            let place = self.cache.next_use();
            content.used = Some(place);
            self.cache.note_idle();
            self.cache.order.insert(place, Item::Content(id));
            self.note_empty(id);
        }
    }

    /// Has a content forgotten at the end of the step, if nothing of it is stored and nothing under way.
    pub(crate) fn note_empty(&mut self, id: ContentId) {
        let may_be = |content: &Content| content.used.is_some() && content.charged_bytes == 0;
        if self.contents.get(&id).is_some_and(|content| may_be(content) && content.chunks.is_empty()) {
            self.cache.empty.insert(id);
        }
    }

    /// Forgets what nobody has open and of which nothing is stored or on its way: looking at many files must not cost
    /// memory for as long as the mount lives.
    pub(crate) fn forget_unused(&mut self, out: &mut Vec<Output>) {
        if self.stopping || self.cache.empty.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.cache.empty) {
            if self.contents.get(&id).is_some_and(|content| self.is_unused(id, content)) {
                self.discard_of_entry(id, out);
            }
        }
    }

    /// Whether nothing would be lost with a content.
    pub(crate) fn is_unused(&self, id: ContentId, content: &Content) -> bool {
        let is_nothing = content.charged_bytes == 0 && content.chunks.is_empty() && content.opening == Opening::Done;
        is_nothing && content.used.is_some() && !self.is_prefetched(id)
    }

    /// Lets go of a content whose entry stays.
    fn discard_of_entry(&mut self, id: ContentId, out: &mut Vec<Output>) {
        if let Some(content) = self.discard(id, out)
            && let Some(node) = self.tree.get_mut(content.ino)
        {
            node.content = None;
        }
    }

    /// Lets go of what was used least recently until no more is stored than may be.
    pub(crate) fn trim(&mut self, out: &mut Vec<Output>) {
        if let Some(limit) = self.config.cache_bytes {
            self.make_room(self.cache.stored_bytes.saturating_sub(limit), out);
        }
    }

    /// Lets go of at least `bytes`, if there is as much that may go. Returns whether anything went.
    pub(crate) fn make_room(&mut self, bytes: u64, out: &mut Vec<Output>) -> bool {
        let goal = self.cache.stored_bytes.saturating_sub(bytes);
        let mut from = 0;
        let mut went = false;
        while self.cache.stored_bytes > goal && !self.cache.is_exhausted {
            let Some((place, item)) = self.cache.order.range(from..).next().map(|(place, item)| (*place, *item)) else {
                self.cache.is_exhausted = true;
                break;
            };
            from = place + 1;
            went |= self.let_item_go(item, out);
        }
        went
    }

    fn let_item_go(&mut self, item: Item, out: &mut Vec<Output>) -> bool {
        match item {
            Item::Held(key) => {
                if self.cache.held.get(&key).is_some_and(|(_, held)| self.cache.is_pinned(&held.path)) {
                    return false;
                }
                self.let_held_go(&key, out);
            }
            Item::Content(id) => {
                let stays = self.contents.get(&id).is_none_or(|content| {
                    // What is under way could not be told from what comes after.
                    let is_under_way = !content.chunks.is_empty() || self.is_due_in_folder(content);
                    is_under_way || content.charged_bytes == 0 || self.is_pinned_now(content.ino)
                });
                if stays {
                    return false;
                }
                self.discard_of_entry(id, out);
            }
        }
        true
    }

    /// Whether all of a content is here, and goes into our folder next.
    fn is_due_in_folder(&self, content: &Content) -> bool {
        self.config.keeps_folder && content.is_complete() && self.tree.path_of(content.ino).is_some()
    }

    /// A peer's tree is known as a whole: what is held of files that it has in another version, or not at all, goes. What
    /// stands at a path that has another version stays, for the sake of what they have in common.
    pub(crate) fn let_unknown_go(&mut self, out: &mut Vec<Output>) {
        if self.cache.held.is_empty() {
            return self.trim(out);
        }
        let files = self.tree.iter().filter_map(|(ino, _)| Some((self.identity_of(ino)?.key(), ino)));
        let known: BTreeMap<ContentKey, Ino> = files.filter(|(key, _)| self.cache.held.contains_key(key)).collect();
        // What was renamed while nobody looked is not another version of what stands in its old place now.
        for (key, ino) in &known {
            if let Some(path) = self.tree.path_of(*ino) {
                self.cache.move_held(key, path);
            }
        }
        // With an empty file nothing has anything in common.
        let has_bytes = |path: &RelPath| {
            let identity = self.tree.resolve(path.names()).and_then(|ino| self.identity_of(ino));
            identity.is_some_and(|identity| identity.size_bytes > 0)
        };
        let unknown = || self.cache.held().filter(|held| !known.contains_key(&held.key));
        // Only one of them will be compared with what is there now; the others would stay for as long as the path is pinned.
        let mut largest: BTreeMap<&RelPath, (u64, ContentKey)> = BTreeMap::new();
        for held in unknown() {
            let best = largest.entry(&held.path).or_insert((held.stored_bytes, held.key));
            *best = (*best).max((held.stored_bytes, held.key));
        }
        let is_of_use = |held: &Held| has_bytes(&held.path) && largest[&held.path].1 == held.key;
        let gone: Vec<ContentKey> = unknown().filter(|held| !is_of_use(held)).map(|held| held.key).collect();
        for key in gone {
            self.let_held_go(&key, out);
        }
        self.trim(out);
    }

    /// Whether something is held that another file has as well: a hard link of its owner.
    pub(crate) fn is_held_for_another(&self, key: &ContentKey) -> bool {
        let has_key = |ino: Ino| self.identity_of(ino).is_some_and(|identity| identity.key() == *key);
        self.cache.held.contains_key(key) && self.tree.iter().any(|(ino, _)| has_key(ino))
    }

    /// What is held of these bytes goes, if anything is.
    pub(crate) fn let_held_go(&mut self, key: &ContentKey, out: &mut Vec<Output>) {
        if let Some(held) = self.cache.take_held(key) {
            self.cache.stored_bytes -= held.stored_bytes;
            self.effect_unreported(Effect::Evict { key: *key }, out);
        }
    }

    // What people say.

    /// What is at and below `path` stays, and is fetched.
    pub(crate) fn pin(&mut self, path: RelPath, out: &mut Vec<Output>) -> Result<Reply, Errno> {
        let ino = self.tree.resolve(path.names()).ok_or(Errno::NoEntry)?;
        if self.cache.pins.len() >= MAX_PINS && !self.cache.pins.contains(&path) {
            return Err(Errno::TooMany);
        }
        if self.cache.pins.insert(path) {
            out.push(Output::Notice(Notice::PinsChanged));
        }
        self.prefetch_below(ino);
        Ok(Reply::Pinned)
    }

    /// What is at and below `path` may go again, unless it is pinned otherwise.
    pub(crate) fn unpin(&mut self, path: &RelPath, out: &mut Vec<Output>) -> Result<Reply, Errno> {
        if !self.cache.pins.remove(path) {
            return Err(Errno::NoEntry);
        }
        out.push(Output::Notice(Notice::PinsChanged));
        self.cache.note_idle();
        self.stop_unpinned(out);
        self.trim(out);
        Ok(Reply::Unpinned)
    }

    /// What is stored at and below `path` goes now, as far as it may.
    pub(crate) fn evict(&mut self, path: &RelPath, out: &mut Vec<Output>) -> Result<Reply, Errno> {
        let is_known = self.tree.resolve(path.names()).is_some();
        let held = self.cache.held().filter(|held| path.is_prefix_of(&held.path)).map(|held| Item::Held(held.key));
        let contents = self
            .contents
            .iter()
            .filter(|(_, content)| content.charged_bytes > 0 && path.is_prefix_of(&self.current_path(content)));
        let items: Vec<(Item, bool)> = held
            .map(|item| (item, true))
            .chain(contents.map(|(id, content)| (Item::Content(*id), content.used.is_some())))
            .collect();
        if items.is_empty() && !is_known {
            return Err(Errno::NoEntry);
        }
        let before = self.cache.stored_bytes;
        let (mut files, mut kept_files) = (0, 0);
        for (item, may_go) in items {
            if may_go && self.let_item_go(item, out) {
                files += 1;
            } else {
                kept_files += 1;
            }
        }
        Ok(Reply::Evicted { files, kept_files, freed_bytes: before - self.cache.stored_bytes })
    }

    /// An entry has another path, with all that is below it: so has what is stored of that.
    pub(crate) fn move_stored(&mut self, from: &RelPath, top: Ino, out: &mut Vec<Output>) {
        let to = self.tree.path_of(top);
        self.move_pins(from, to.as_ref(), out);
        let held: Vec<(ContentKey, RelPath)> = self
            .cache
            .held()
            .filter(|held| from.is_prefix_of(&held.path))
            .filter_map(|held| Some((held.key, held.path.moved(from, to.as_ref()?)?)))
            .collect();
        for (key, path) in held {
            self.cache.move_held(&key, path);
        }
        for inner in self.tree.within(top) {
            let (id, path) = (self.tree.get(inner).and_then(|node| node.content), self.tree.path_of(inner));
            let (Some(id), Some(path)) = (id, path) else { continue };
            let Some(content) = self.contents.get_mut(&id) else { continue };
            content.path = path.clone();
            if content.charged_bytes > 0 || content.opening != Opening::Done {
                self.effect_unreported(Effect::Moved { content: id, path }, out);
                self.note_unsaved(id, self.save_interval(id));
            }
        }
    }

    /// An entry has another path: pins on what it is, or holds, go with it.
    fn move_pins(&mut self, from: &RelPath, to: Option<&RelPath>, out: &mut Vec<Output>) {
        let pins: Vec<RelPath> = self.cache.pins.iter().filter(|pin| from.is_prefix_of(pin)).cloned().collect();
        if pins.is_empty() {
            return;
        }
        for pin in pins {
            self.cache.pins.remove(&pin);
            self.cache.pins.extend(to.and_then(|to| pin.moved(from, to)));
        }
        self.cache.note_idle();
        out.push(Output::Notice(Notice::PinsChanged));
    }

    /// Where the file of a content is now, or was last.
    fn current_path(&self, content: &Content) -> RelPath {
        self.tree.path_of(content.ino).unwrap_or_else(|| content.path.clone())
    }

    /// Which bytes a peer's file has; `None` for anything else.
    pub(crate) fn identity_of(&self, ino: Ino) -> Option<crate::identity::ContentIdentity> {
        let node = self.tree.get(ino)?;
        match (node.origin, &node.record.kind) {
            (crate::tree::Origin::Peer(peer), crate::record::Kind::File { size_bytes, stamp }) => {
                // Of a share that all change, the stamp alone says which bytes they are, whoever brings them.
                let owner = if self.config.keeps_folder { NOBODY } else { peer };
                Some(crate::identity::ContentIdentity {
                    owner,
                    stamp: *stamp,
                    size_bytes: *size_bytes,
                    modified: node.record.modified,
                })
            }
            _ => None,
        }
    }
}
