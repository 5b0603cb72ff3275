//! Everything that can happen, as data: property tests draw it, the fuzzer decodes it, and both play it to the end.
//!
//! An operation names what it is about by an index, which counts modulo what there is at that moment: so nearly every
//! operation means something, and a shrunken list still does.

use super::host::HostId;
use super::wire::Spoil;
use super::world::World;
use crate::chunk::{CHUNK_SIZE, FRAME_SIZE};
use crate::config::{Config, OnDisconnect};
use crate::ids::{Handle, Ino};
use crate::input::{Command, FetchError, Input, PeerEvent, Request, StoreError};
use crate::path::{Name, RelPath};
use core::time::Duration;

/// Sizes at which something changes.
const SIZES: [u64; 12] = [
    0,
    1,
    4096,
    FRAME_SIZE - 1,
    FRAME_SIZE,
    FRAME_SIZE + 1,
    CHUNK_SIZE - 1,
    CHUNK_SIZE,
    CHUNK_SIZE + 1,
    2 * CHUNK_SIZE,
    3 * CHUNK_SIZE + 77,
    6 * CHUNK_SIZE - 5,
];

/// Lengths of reads.
const LENGTHS: [u32; 6] = [1, 4096, 128 * 1024, 512 * 1024, 700_000, 1024 * 1024];

/// How long things go on undisturbed, in milliseconds.
const PAUSES_MS: [u64; 8] = [0, 1, 3, 10, 50, 300, 2_000, 12_000];

/// One thing that happens. Indices count modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Time passes.
    Run(u8),
    /// The owner makes a file in a directory, or a new one over one that is there.
    Create(u8, u8, u8),
    /// The owner edits a file in place; its size stays.
    EditSameSize(u8),
    /// The owner edits a file in place, and gives it another size.
    EditOtherSize(u8, u8),
    /// The owner renames something into a directory.
    Rename(u8, u8, u8),
    /// The owner removes something, with everything in it.
    Remove(u8),
    /// The owner makes a directory in another one.
    MakeDir(u8, u8),
    /// The owner makes a symlink.
    Symlink(u8, u8),
    /// The owner sets a mode.
    Chmod(u8, u8),
    /// The owner's watcher has lost track and reads everything again.
    Rescan,
    /// A follower looks up something that the owner has.
    Lookup(u8, u8),
    /// A follower looks up and opens a file that the owner has.
    Open(u8, u8),
    /// A follower reads on where it stands.
    ReadNext(u8, u8),
    /// A follower reads somewhere.
    ReadAt(u8, u8, u8),
    /// A follower wants a whole file.
    FetchAll(u8),
    /// A follower lists a directory that it knows.
    ReadDir(u8, u8),
    /// A follower closes a handle.
    Release(u8),
    /// A follower's kernel forgets an entry.
    Forget(u8, u8),
    /// The network between the owner and a follower is cut.
    Cut(u8),
    /// It is held: nothing arrives, and nobody is told.
    Hold(u8),
    /// It is mended.
    Heal(u8),
    /// The owner's process ends and starts again.
    RestartOwner,
    /// Everything becomes slow, or fast again.
    Slow(bool),
    /// One stream of a follower's pool ends.
    DropStream(u8, u8),
    /// The owner does something wrong, a few times.
    Spoil(u8, u8),
    /// A follower's store fails a few times.
    StoreFails(u8, u8),
    /// A follower is told that the network may be back.
    NetworkChanged(u8),
    /// A follower is told that the owner can be reached now, whether that is so or not.
    Reachable(u8),
    /// A follower's driver cannot make sense of what came over its connection.
    Garbage(u8),
    /// The stream of updates to a follower ends, and nothing else.
    WatchEnds(u8),
    /// A follower's process ends, cleanly or not, and starts again on its store.
    RestartFollower(u8, bool),
    /// A person pins something on a follower.
    Pin(u8, u8),
    /// A person takes a pin back.
    Unpin(u8, u8),
    /// A person wants what is stored of something to go.
    Evict(u8, u8),
    /// The owner does not offer something any more.
    Unshare(u8),
    /// The owner offers something again that it had left out.
    ShareAgain(u8),
}

impl Op {
    /// Bytes that one operation is decoded from.
    pub const BYTES: usize = 4;

    /// An operation from bytes; every four bytes mean one.
    #[must_use]
    pub fn decode([tag, a, b, c]: [u8; Op::BYTES]) -> Op {
        match tag % 42 {
            0..=5 => Op::Run(a),
            6 | 7 => Op::Create(a, b, c),
            8 => Op::EditSameSize(a),
            9 => Op::EditOtherSize(a, b),
            10 | 11 => Op::Rename(a, b, c),
            12 => Op::Remove(a),
            13 => Op::MakeDir(a, b),
            14 => Op::Symlink(a, b),
            15 => Op::Chmod(a, b),
            16 => Op::Rescan,
            17 => Op::Lookup(a, b),
            18..=20 => Op::Open(a, b),
            21..=23 => Op::ReadNext(a, b),
            24..=26 => Op::ReadAt(a, b, c),
            27 => Op::FetchAll(a),
            28 => Op::ReadDir(a, b),
            29 => Op::Release(a),
            30 => Op::Forget(a, b),
            31 => Op::Cut(a),
            32 => Op::Hold(a),
            33 => Op::Heal(a),
            34 if a % 2 == 1 => Op::RestartFollower(b, c % 2 == 0),
            34 => Op::RestartOwner,
            35 => Op::Slow(a % 2 == 0),
            36 => Op::DropStream(a, b),
            37 => Op::Spoil(a, b),
            38 => Op::StoreFails(a, b),
            39 if b % 4 == 1 => Op::Pin(a, c),
            39 if b % 4 == 2 => Op::Unpin(a, c),
            39 if b % 8 == 3 => Op::Unshare(a),
            39 if b % 8 == 7 => Op::ShareAgain(a),
            39 if b % 8 == 5 => Op::Reachable(a),
            39 => Op::NetworkChanged(a),
            40 if b % 2 == 1 => Op::Evict(a, c),
            40 => Op::Garbage(a),
            _ => Op::WatchEnds(a),
        }
    }
}

/// The owner in a world of [`play`].
const OWNER: HostId = 0;

/// Plays operations on an owner and two followers, one of which waits for an owner that is away while the other does
/// not; then mends everything and checks that all is well. One seed in eight ends it all in the middle instead.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn play(seed: u64, ops: &[Op], keep_history: bool) -> World {
    let mut world = World::new(seed);
    world.history = keep_history.then(Vec::new);
    // Small, so that every limit is met with few operations.
    let config = Config {
        event_log: 12,
        watch_batch: 3,
        ahead_bytes: 2 * CHUNK_SIZE,
        read_ahead_chunks: 4,
        max_prefetches: 2,
        ..Config::default()
    };
    world.add(config.clone());
    for on_disconnect in [OnDisconnect::Wait, OnDisconnect::Fail] {
        let cache_bytes = seed.is_multiple_of(2).then_some(4 * CHUNK_SIZE);
        let prefetch_on_open = seed.is_multiple_of(5);
        let follower = world.add(Config { on_disconnect, cache_bytes, prefetch_on_open, ..config.clone() });
        world.follow(follower, OWNER);
    }
    // Long listings, during which much can happen, without a tree that is large.
    world.watch_pause = Duration::from_millis(if seed.is_multiple_of(3) { 150 } else { 1 });
    world.begin();
    for op in ops {
        world.play(*op);
    }
    if seed % 8 == 7 {
        world.shut_down();
    } else {
        world.settle();
    }
    world
}

impl World {
    /// Something to begin with: a few files that everybody has heard of, and that some have open.
    fn begin(&mut self) {
        for op in [Op::MakeDir(0, 2), Op::Create(0, 0, 10), Op::Create(0, 1, 8), Op::Create(1, 0, 11)] {
            self.play(op);
        }
        // Directories `c`, `d`, `d/e` and `f`, with a little in each.
        for op in [Op::MakeDir(0, 3), Op::MakeDir(2, 4), Op::MakeDir(0, 5)] {
            self.play(op);
        }
        for dir in 1..5 {
            self.play(Op::Create(dir, 1, 1));
            self.play(Op::Create(dir, 2, 2));
        }
        self.play(Op::Run(6));
        for who in 0..4 {
            self.play(Op::Open(who, who));
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Run(pause) => self.drive_for(Duration::from_millis(pick(&PAUSES_MS, pause))),
            Op::Create(dir, name, size) => self.own(|w| w.new_path(dir, name), |f, p| f.create(p, pick(&SIZES, size))),
            Op::EditSameSize(file) => {
                self.own(
                    |w| w.nth_file(file),
                    |f, p| {
                        let super::folder::ObjectKind::File { size_bytes, .. } = f.at(p)?.kind else { return None };
                        f.edit(p, size_bytes, false)
                    },
                );
            }
            Op::EditOtherSize(file, size) => {
                self.own(|w| w.nth_file(file), |f, p| f.edit(p, pick(&SIZES, size), false));
            }
            Op::Rename(entry, dir, name) => {
                let Some(to) = self.new_path(dir, name) else { return };
                self.own(|w| w.nth_entry(entry), |f, p| f.rename(p, &to));
            }
            Op::Remove(entry) => self.own(|w| w.nth_entry(entry), |f, p| f.remove(p)),
            Op::MakeDir(dir, name) => self.own(|w| w.new_path(dir, name), |f, p| f.make_dir(p)),
            Op::Symlink(dir, name) => self.own(|w| w.new_path(dir, name), |f, p| f.symlink(p, &[b'x', name | 1])),
            Op::Chmod(entry, mode) => self.own(|w| w.nth_entry(entry), |f, p| f.chmod(p, 0o400 | u16::from(mode))),
            Op::Rescan => self.rescan(OWNER),
            Op::Lookup(who, entry) => {
                let at = follower(who);
                if let Some(path) = self.nth_entry(entry) {
                    // It may not have heard of it, or be on its way to hear that it is gone.
                    let _found = self.lookup(at, &path);
                }
            }
            Op::Open(who, file) => {
                let at = follower(who);
                self.whole_from = (who >= 128).then_some(0);
                if let Some(path) = self.nth_file(file) {
                    let _opened = self.open(at, &path);
                }
            }
            Op::ReadNext(handle, len) => {
                if let Some((at, handle, position)) = self.nth_handle(handle) {
                    self.read(at, handle, position, pick(&LENGTHS, len));
                }
            }
            Op::ReadAt(handle, offset, len) => {
                if let Some((at, handle, _)) = self.nth_handle(handle) {
                    self.read(at, handle, u64::from(offset) * 13_001, pick(&LENGTHS, len));
                }
            }
            Op::FetchAll(handle) => {
                if let Some((at, handle, _)) = self.nth_handle(handle) {
                    self.fetch_all(at, handle);
                }
            }
            Op::ReadDir(who, dir) => self.play_list(follower(who), dir),
            Op::Release(handle) => {
                if let Some((at, handle, _)) = self.nth_handle(handle) {
                    assert_eq!(self.release(at, handle), Ok(()));
                }
            }
            Op::Forget(who, entry) => {
                let at = follower(who);
                let known: Vec<Ino> = self.hosts[at].kernel.lookups.keys().copied().collect();
                if let Some(ino) = nth(&known, entry) {
                    self.forget(at, ino);
                }
            }
            Op::Cut(who) => self.cut(OWNER, follower(who)),
            Op::Hold(who) => self.hold(OWNER, follower(who)),
            Op::Heal(who) => self.heal(OWNER, follower(who)),
            Op::RestartOwner => self.restart_owner(OWNER),
            Op::Slow(slow) => self.slow(slow),
            Op::DropStream(who, stream) => self.drop_stream(follower(who), u32::from(stream % 4)),
            Op::Spoil(kind, count) => self.spoil(kind, count % 8),
            Op::StoreFails(who, count) => {
                let error = if count >= 128 { StoreError::NoSpace } else { StoreError::Io };
                self.hosts[follower(who)].store_faults = Some((error, u32::from(count % 16)));
            }
            Op::NetworkChanged(who) => self.input(follower(who), Input::Command(Command::NetworkChanged)),
            Op::Reachable(who) => {
                let owner = self.hosts[OWNER].peer;
                self.input(follower(who), Input::Peer(owner, PeerEvent::Reachable));
            }
            Op::Garbage(who) => self.garbage(follower(who)),
            Op::WatchEnds(who) => self.end_watches(follower(who)),
            Op::RestartFollower(who, clean) => self.restart_follower(follower(who), clean),
            Op::Pin(who, entry) => self.play_at(follower(who), entry, |path| Request::Pin { path }),
            Op::Unpin(who, entry) => {
                let at = follower(who);
                let pins: Vec<RelPath> = self.hosts[at].engine.view().pins().cloned().collect();
                if let Some(path) = nth(&pins, entry) {
                    assert_eq!(self.ask_now(at, Request::Unpin { path }), Ok(crate::Reply::Unpinned));
                }
            }
            Op::Unshare(entry) => {
                if let Some(path) = self.nth_entry(entry) {
                    self.unshare(OWNER, path);
                }
            }
            Op::ShareAgain(index) => {
                let unshared: Vec<RelPath> = self.hosts[OWNER].unshared.iter().cloned().collect();
                if let Some(path) = nth(&unshared, index) {
                    self.share_again(OWNER, path);
                }
            }
            Op::Evict(who, entry) => self.play_at(follower(who), entry, |path| Request::Evict { path }),
        }
    }

    fn own(
        &mut self,
        path: impl FnOnce(&World) -> Option<RelPath>,
        change: impl FnOnce(&mut super::Folder, &RelPath) -> Option<Vec<super::Look>>,
    ) {
        if let Some(path) = path(self) {
            self.change(OWNER, |folder| change(folder, &path));
        }
    }

    /// Asks for something at a path that the owner has, and that may not have been heard of.
    fn play_at(&mut self, at: HostId, entry: u8, request: impl FnOnce(RelPath) -> Request) {
        if let Some(path) = self.nth_entry(entry) {
            let _answer = self.ask_now(at, request(path));
        }
    }

    fn play_list(&mut self, at: HostId, dir: u8) {
        let tree = &self.hosts[at].engine.tree;
        let mut known = vec![Ino::ROOT];
        let is_dir = |ino: &&Ino| tree.get(**ino).is_some_and(crate::tree::Node::is_dir);
        known.extend(self.hosts[at].kernel.lookups.keys().filter(is_dir));
        if let Some(ino) = nth(&known, dir) {
            let listed = self.list(at, ino, 400, dir >= 128);
            assert!(listed.is_ok(), "{listed:?}");
        }
    }

    fn slow(&mut self, slow: bool) {
        self.trouble();
        (self.latency, self.frame_gap) = if slow {
            (Duration::from_millis(900), Duration::from_millis(400))
        } else {
            (Duration::from_millis(2), Duration::from_micros(200))
        };
    }

    fn spoil(&mut self, kind: u8, count: u8) {
        self.trouble();
        let spoil = match kind % 7 {
            0 => Spoil::Hash,
            1 => Spoil::Range,
            2 => Spoil::TooLittle,
            3 => Spoil::Refuse(FetchError::OwnerIo),
            4 => Spoil::Refuse(FetchError::Stale),
            5 => Spoil::Refuse(FetchError::Gone),
            _ => Spoil::Refuse(FetchError::StreamLost),
        };
        self.spoils.extend(std::iter::repeat_n(spoil, usize::from(count)));
    }

    fn new_path(&self, dir: u8, name: u8) -> Option<RelPath> {
        let dirs: Vec<RelPath> = self.hosts[OWNER].folder.dirs().cloned().collect();
        let name = Name::new(&[b'a' + name % 6]).ok()?;
        nth(&dirs, dir)?.join(name).ok()
    }

    fn nth_entry(&self, index: u8) -> Option<RelPath> {
        let entries: Vec<RelPath> = self.hosts[OWNER].folder.paths().cloned().collect();
        nth(&entries, index)
    }

    fn nth_file(&self, index: u8) -> Option<RelPath> {
        let files: Vec<RelPath> = self.hosts[OWNER].folder.files().cloned().collect();
        nth(&files, index)
    }

    fn nth_handle(&self, index: u8) -> Option<(HostId, Handle, u64)> {
        let open = self.hosts.iter().enumerate();
        let all: Vec<(HostId, Handle, u64)> = open
            .flat_map(|(at, host)| host.kernel.handles.iter().map(move |(handle, open)| (at, *handle, open.position)))
            .collect();
        nth(&all, index)
    }
}

fn follower(who: u8) -> HostId {
    1 + usize::from(who % 2)
}

fn pick<T: Copy>(from: &[T], index: u8) -> T {
    from[usize::from(index) % from.len()]
}

fn nth<T: Clone>(from: &[T], index: u8) -> Option<T> {
    if from.is_empty() { None } else { Some(from[usize::from(index) % from.len()].clone()) }
}
