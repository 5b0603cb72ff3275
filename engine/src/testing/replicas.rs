//! Devices that all keep the share in a folder of their own, and all write: what can happen to them, and what must hold in the
//! end.

use super::folder::{Folder, Look, ObjectKind};
use super::host::{Host, HostId};
use super::world::World;
use crate::config::Config;
use crate::entries::Entries;
use crate::event::Observation;
use crate::input::{Command, Input};
use crate::memory::Memory;
use crate::path::{Name, RelPath};
use crate::record::{Kind, Stamp};
use crate::remembered::Collected;
use crate::tree::Origin;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// How long a [`ReplicaOp::Run`] lets time pass, in milliseconds.
const PAUSES_MS: [u64; 6] = [0, 1, 5, 50, 400, 3_000];

/// More steps than any of these worlds needs: events that go round for ever would take more.
const MAX_STEPS: u64 = 20_000;

/// So many entries at most are looked at once for what is remembered.
const COLLECTED_AT_ONCE: usize = 8;

/// Sizes of files, in bytes.
const SIZES: [u64; 4] = [0, 1, 700, 600_000];

/// One thing that can happen. Indices count modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaOp {
    /// Time passes.
    Run(u8),
    /// A device makes a file in a directory, or a new one over one that is there.
    Create(u8, u8, u8, u8),
    /// It edits a file in place.
    Edit(u8, u8, u8),
    /// It renames something into a directory.
    Rename(u8, u8, u8, u8),
    /// It removes something, with everything in it.
    Remove(u8, u8),
    /// It makes a directory in another one.
    MakeDir(u8, u8, u8),
    /// It makes a symlink.
    Symlink(u8, u8, u8),
    /// It sets the mode of a file or a directory.
    Chmod(u8, u8, u8),
    /// It sets or removes an extended attribute of a file or a directory.
    SetXattr(u8, u8, u8),
    /// Its watcher has lost track and reads everything again.
    Rescan(u8),
    /// The network between two devices is cut.
    Cut(u8, u8),
    /// It is mended.
    Heal(u8, u8),
    /// A device's process ends and starts again, with its folder and what it remembers: what was so when it ended, what it had
    /// to write down because it told it, or what was so a while before.
    Restart(u8, u8),
    /// Its disk refuses a few things.
    DiskFails(u8, u8),
    /// On its mount, something that is in its folder is renamed into a directory.
    RenameOnMount(u8, u8, u8, u8),
    /// On its mount, a file that is in its folder or away is removed.
    RemoveOnMount(u8, u8),
}

impl ReplicaOp {
    /// Bytes that one operation is decoded from.
    pub const BYTES: usize = 5;

    /// An operation from bytes; all of them mean one.
    #[must_use]
    pub fn decode([tag, at, a, b, c]: [u8; ReplicaOp::BYTES]) -> ReplicaOp {
        match tag % 32 {
            0..=7 => ReplicaOp::Run(a),
            8..=11 => ReplicaOp::Create(at, a, b, c),
            12..=14 => ReplicaOp::Edit(at, a, b),
            15..=17 => ReplicaOp::Rename(at, a, b, c),
            18..=20 => ReplicaOp::Remove(at, a),
            21 | 22 => ReplicaOp::MakeDir(at, a, b),
            23 => ReplicaOp::Symlink(at, a, b),
            24 if c % 2 == 1 => ReplicaOp::SetXattr(at, a, b),
            24 => ReplicaOp::Chmod(at, a, b),
            25 => ReplicaOp::Rescan(at),
            26 | 27 => ReplicaOp::Cut(at, a),
            28 | 29 => ReplicaOp::Heal(at, a),
            30 => ReplicaOp::Restart(at, a),
            _ => ReplicaOp::DiskFails(at, a),
        }
    }

    /// The same done on a mount, if that is another thing. What is done there is told at once, so nothing may be forgotten that
    /// was told: it would be a name of which nobody has the bytes.
    #[must_use]
    pub fn on_mount(self) -> ReplicaOp {
        match self {
            ReplicaOp::Rename(at, entry, dir, name) => ReplicaOp::RenameOnMount(at, entry, dir, name),
            ReplicaOp::Remove(at, entry) => ReplicaOp::RemoveOnMount(at, entry),
            ReplicaOp::Restart(at, _) => ReplicaOp::Restart(at, 0),
            elsewhere => elsewhere,
        }
    }
}

/// What was written in all folders, and what somebody has removed or written over where it was seen.
#[derive(Debug, Default)]
struct Writes {
    written: BTreeMap<u64, RelPath>,
    ended: BTreeSet<u64>,
}

/// Devices that write, and all that they have written.
#[derive(Debug)]
pub struct Replicas {
    /// The devices.
    pub world: World,
    writes: Writes,
    /// What each would have written down a while ago.
    memories: Vec<Memory>,
}

/// What a device remembers in its next life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// All.
    Now,
    /// All that it has told, and what it has done in its folder, and perhaps no more: it was killed.
    Told,
    /// What was so a while ago, also if it has told more since: its disk has lost the rest.
    Old,
}

/// Plays operations on as many devices, each of which follows all others; then mends everything, and checks that all hold
/// the same, and that nothing is lost.
///
/// # Panics
/// If that is not so.
pub fn play_replicas(seed: u64, devices: usize, ops: &[ReplicaOp]) -> Replicas {
    let mut replicas = Replicas::new(seed, devices);
    ops.iter().for_each(|op| replicas.play(*op));
    replicas.settle();
    replicas
}

impl Replicas {
    /// Devices that all follow each other, with empty folders.
    #[must_use]
    pub fn new(seed: u64, devices: usize) -> Replicas {
        let mut world = World::new(seed);
        world.max_steps = MAX_STEPS;
        for at in 0..devices {
            let config = Config {
                event_log: 40,
                watch_batch: 4,
                keeps_folder: true,
                fetches_all: true,
                version_base: 1_000,
                ..Config::default()
            };
            world.add(config);
            world.hosts[at].folder.begin_versions_at((at as u64 + 1) << 40);
        }
        let memories = vec![Memory::default(); devices];
        let mut replicas = Replicas { world, writes: Writes::default(), memories };
        (0..devices).for_each(|at| replicas.begin(at));
        replicas
    }

    /// A device looks into its folder, and follows all others.
    fn begin(&mut self, at: HostId) {
        self.world.input(at, Input::Observed(Observation::ScanBegin { path: RelPath::ROOT }));
        let root = Some(RelPath::ROOT);
        let paths: Vec<RelPath> = root.into_iter().chain(self.folder(at).paths().cloned()).collect();
        for path in paths {
            if let Some(seen) = self.folder(at).seen(&path) {
                self.world.input(at, Input::Observed(Observation::Found { path, seen }));
            }
        }
        self.world.input(at, Input::Observed(Observation::ScanEnd { path: RelPath::ROOT }));
        for other in (0..self.world.hosts.len()).filter(|other| *other != at) {
            let peer = self.world.hosts[other].peer;
            self.world.input(at, Input::Command(Command::Follow { peer }));
        }
    }

    fn folder(&self, at: HostId) -> &Folder {
        &self.world.hosts[at].folder
    }

    fn device(&self, index: u8) -> HostId {
        usize::from(index) % self.world.hosts.len()
    }

    /// Changes a device's folder, as its user does.
    pub fn change(&mut self, at: HostId, change: impl FnOnce(&mut Folder) -> Option<Vec<Look>>) -> bool {
        let (contents, before) = (contents_of(self.folder(at)), versions_in(self.folder(at)));
        let changed = self.world.change(at, change);
        let after = versions_in(self.folder(at));
        self.writes.ended.extend(before.keys().filter(|version| !after.contains_key(*version)));
        // What has two names is taken away name by name, and perhaps one here and one there.
        let now = contents_of(self.folder(at));
        let gone = contents.iter().filter(|(path, version)| now.get(*path) != Some(*version));
        let is_twin = |version: &&u64| contents.values().filter(|other| other == version).count() > 1;
        self.writes.ended.extend(gone.map(|(_, version)| version).filter(is_twin));
        self.writes.written.extend(after.into_iter().filter(|(version, _)| !before.contains_key(version)));
        changed
    }

    /// Plays one operation.
    pub fn play(&mut self, op: ReplicaOp) {
        match op {
            ReplicaOp::Run(pause) => {
                let pause = PAUSES_MS[usize::from(pause) % PAUSES_MS.len()];
                self.world.drive_for(Duration::from_millis(pause));
                (0..self.world.hosts.len()).for_each(|at| self.write_down(at));
            }
            ReplicaOp::Create(at, dir, name, size) => {
                let size_bytes = SIZES[usize::from(size) % SIZES.len()];
                self.at_new(at, dir, name, |folder, path| folder.create(path, size_bytes));
            }
            ReplicaOp::Edit(at, file, size) => {
                let size_bytes = SIZES[usize::from(size) % SIZES.len()];
                self.at_nth(at, file, |folder, path| folder.edit(path, size_bytes, false));
            }
            ReplicaOp::Rename(at, entry, dir, name) => {
                let Some(to) = self.new_path(at, dir, name) else { return };
                self.at_nth(at, entry, |folder, path| folder.rename(path, &to));
            }
            ReplicaOp::Remove(at, entry) => self.at_nth(at, entry, |folder, path| folder.remove(path)),
            ReplicaOp::MakeDir(at, dir, name) => self.at_new(at, dir, name, |folder, path| folder.make_dir(path)),
            ReplicaOp::Symlink(at, dir, name) => {
                self.at_new(at, dir, name, |folder, path| folder.symlink(path, &[b'x', name | 1]));
            }
            ReplicaOp::Chmod(at, entry, mode) => self.at_nth(at, entry, |folder, path| {
                let is_symlink = matches!(folder.at(path)?.kind, ObjectKind::Symlink(_));
                if is_symlink { None } else { folder.chmod(path, 0o400 | u16::from(mode % 64)) }
            }),
            ReplicaOp::SetXattr(at, entry, value) => self.at_nth(at, entry, |folder, path| {
                let is_symlink = matches!(folder.at(path)?.kind, ObjectKind::Symlink(_));
                let name: &[u8] = if value % 2 == 0 { b"user.even" } else { b"user.odd" };
                let value = [value];
                if is_symlink {
                    None
                } else {
                    folder.set_xattr(path, name, Some(&value[..]).filter(|_| value[0] >= 64))
                }
            }),
            ReplicaOp::Rescan(at) => self.world.rescan(self.device(at)),
            ReplicaOp::Cut(a, b) => {
                let (a, b) = (self.device(a), self.device(b));
                if a != b {
                    self.world.cut(a, b);
                }
            }
            ReplicaOp::Heal(a, b) => {
                let (a, b) = (self.device(a), self.device(b));
                if a != b {
                    self.world.heal(a, b);
                }
            }
            ReplicaOp::Restart(at, age) => {
                let age = match age {
                    0..128 => Age::Now,
                    128..192 => Age::Told,
                    192.. => Age::Old,
                };
                self.restart(self.device(at), age);
            }
            ReplicaOp::DiskFails(at, count) => {
                let error = if count >= 128 { crate::StoreError::NoSpace } else { crate::StoreError::Io };
                let at = self.device(at);
                self.world.hosts[at].store_faults = Some((error, u32::from(count % 8)));
            }
            ReplicaOp::RenameOnMount(at, entry, dir, name) => {
                let Some(to) = self.new_path(at, dir, name) else { return };
                let at = self.device(at);
                if let Some(from) = self.shown(at, entry) {
                    self.rename_on_mount(at, &from, &to);
                }
            }
            ReplicaOp::RemoveOnMount(at, entry) => {
                let at = self.device(at);
                if let Some(path) = self.shown(at, entry) {
                    self.remove_on_mount(at, &path);
                }
            }
        }
    }

    /// One of the paths that a device's mount shows.
    fn shown(&self, at: HostId, entry: u8) -> Option<RelPath> {
        let is_away = |path: &RelPath| self.world.hosts[at].engine.view().away(path).is_some();
        let mut paths: Vec<RelPath> = self.world.tree_of(at).into_keys().filter(is_away).collect();
        paths.extend(self.folder(at).paths().cloned());
        paths.get(usize::from(entry) % paths.len().max(1)).cloned()
    }

    /// What is done on a mount is told at once, and its watcher tells it again. What is away is not renamed here: if who has its
    /// bytes writes over them at the same time, its new name is one without bytes, and all would wait for them. Nor is a directory
    /// with such a file in it.
    fn rename_on_mount(&mut self, at: HostId, from: &RelPath, to: &RelPath) {
        let Some(inode) = self.folder(at).inode_at(from) else { return };
        let is_dir = self.folder(at).at(from).is_some_and(|object| object.kind == ObjectKind::Dir);
        let view = self.world.hosts[at].engine.view();
        let is_away = |path: &RelPath| view.away(path).is_some();
        let moves_what_is_away = self.world.tree_of(at).keys().any(|path| from.is_prefix_of(path) && is_away(path));
        if is_away(to) || moves_what_is_away || !self.change(at, |folder| folder.rename(from, to)) {
            return;
        }
        if is_dir && self.world.hosts[at].engine.view().own_inode(from) == Some(inode) {
            self.world.input(at, Input::Observed(Observation::Sighted { path: from.clone() }));
            self.world.input(at, Input::Observed(Observation::Moved { from: from.clone(), to: to.clone() }));
        }
        for path in [to, from] {
            self.tell_seen(at, path);
        }
    }

    fn tell_seen(&mut self, at: HostId, path: &RelPath) {
        let path = path.clone();
        let seen = self.folder(at).seen(&path);
        let observation = match seen {
            Some(seen) => Observation::Found { path, seen },
            None => Observation::Missing { path },
        };
        self.world.input(at, Input::Observed(observation));
    }

    fn remove_on_mount(&mut self, at: HostId, path: &RelPath) {
        let host = &self.world.hosts[at];
        if host.engine.view().away(path).is_none() {
            let is_file = self.folder(at).at(path).is_some_and(|object| object.kind != ObjectKind::Dir);
            if is_file && self.change(at, |folder| folder.remove(path)) {
                self.tell_seen(at, path);
            }
            return;
        }
        // Of which version that is somebody knows who has it.
        let Some(stamp) = stamp_of(host, path) else { return };
        let holds = |other: &Host| {
            let mut files = other.folder.files();
            let path = files.find(|at| is_as_told(other, at) && stamp_of(other, at) == Some(stamp))?;
            version_at(&other.folder, path)
        };
        let Some(version) = self.world.hosts.iter().find_map(holds) else { return };
        self.writes.ended.insert(version);
        self.world.input(at, Input::Observed(Observation::Sighted { path: path.clone() }));
        self.world.input(at, Input::Observed(Observation::Missing { path: path.clone() }));
    }

    fn at_new(&mut self, at: u8, dir: u8, name: u8, change: impl FnOnce(&mut Folder, &RelPath) -> Option<Vec<Look>>) {
        if let Some(path) = self.new_path(at, dir, name) {
            self.change(self.device(at), |folder| change(folder, &path));
        }
    }

    fn at_nth(&mut self, at: u8, entry: u8, change: impl FnOnce(&mut Folder, &RelPath) -> Option<Vec<Look>>) {
        let at = self.device(at);
        let entries: Vec<RelPath> = self.folder(at).paths().cloned().collect();
        if let Some(path) = entries.get(usize::from(entry) % entries.len().max(1)).cloned() {
            self.change(at, |folder| change(folder, &path));
        }
    }

    fn new_path(&self, at: u8, dir: u8, name: u8) -> Option<RelPath> {
        let dirs: Vec<RelPath> = self.folder(self.device(at)).dirs().cloned().collect();
        let name = Name::new(&[b'a' + name % 4]).ok()?;
        dirs.get(usize::from(dir) % dirs.len())?.join(name).ok()
    }

    fn write_down(&mut self, at: HostId) {
        let view = self.world.hosts[at].engine.view();
        let Some(mut part) = view.begin_memory() else { return };
        loop {
            part = match view.collect_memory(part, 1 + view.totals().steps as usize % COLLECTED_AT_ONCE) {
                Collected::Part(part) => part,
                Collected::Whole(memory) => return self.memories[at] = memory,
                Collected::Overtaken => panic!("nothing happened meanwhile"),
            }
        }
    }

    /// A device's process ends, and starts again with its folder and what it remembers.
    pub fn restart(&mut self, at: HostId, age: Age) {
        let host = &mut self.world.hosts[at];
        match age {
            Age::Now => host.write_down(),
            Age::Told => {}
            Age::Old => host.written = self.memories[at].clone().without_standings(),
        }
        self.world.end_process(at);
        let base = self.world.now.as_micros();
        let config = &mut self.world.hosts[at].config;
        config.version_base = config.version_base.max(base) + 1_000_000;
        self.world.start_process(at);
        let memory = self.world.hosts[at].written.clone();
        // What is written down can be read: it keeps every rule.
        let (entries, removed, held) = (memory.entries(), memory.removed(), memory.held());
        let entries_again = entries.iter().map(|(path, record, revision)| (path, record.clone(), revision.clone()));
        let again = Entries::of(entries_again)
            .and_then(|entries| Memory::new(entries, removed.to_vec(), held, memory.standings().clone()));
        assert_eq!(again.as_ref(), Ok(&memory), "host {at} remembers what makes no share");
        if !entries.is_empty() {
            self.world.input(at, Input::Recalled(memory));
        }
        self.begin(at);
    }

    /// Mends everything, waits until all is quiet, and checks that all devices hold the same and that nothing is lost.
    ///
    /// # Panics
    /// If that is not so.
    pub fn settle(&mut self) {
        self.world.heal_all();
        let rest = self.world.aftermath_ends() - self.world.now + Duration::from_secs(1);
        self.world.drive_for(rest);
        for at in 0..self.world.hosts.len() {
            self.world.rescan(at);
        }
        self.world.drive_for(rest);
        self.world.drive();
        self.check();
    }

    fn check(&self) {
        let all = self.world.hosts.len();
        for at in 0..all {
            let host = &self.world.hosts[at];
            let folder = &host.engine.replica.folder;
            assert!(folder.is_idle(), "host {at} still has to do something in its folder: {folder:?}");
            let behind = host.engine.replica.folder.behind.iter().next();
            assert!(behind.is_none(), "host {at} has something else in its folder: {behind:?}");
            let (tree, first) = (self.world.tree_of(at), self.world.tree_of(0));
            for (path, record) in &tree {
                assert_eq!(Some(record), first.get(path), "{path} of host {at} is something else on host 0");
                let seen = host.folder.seen(path);
                let there = seen.as_ref().map(|seen| (seen.mode, seen.modified, seen.xattrs.as_ref()));
                let told = (record.mode, record.modified, Some(&record.xattrs));
                assert_eq!(there, Some(told), "{path} in the folder of host {at}");
            }
            assert_eq!(
                tree.len(),
                first.len(),
                "host {at} lacks {:?}",
                first.keys().find(|path| !tree.contains_key(*path))
            );
            assert_eq!(host.folder.paths().count(), tree.len(), "host {at} has more in its folder than in its tree");
            assert_eq!(contents_of(&host.folder), contents_of(self.folder(0)), "the bytes on host {at}");
        }
        let alive = versions_in(self.folder(0));
        for (version, path) in &self.writes.written {
            let is_kept = alive.contains_key(version) || self.writes.ended.contains(version);
            assert!(is_kept, "what was written to {path} (version {version:#x}) is nowhere");
        }
    }
}

/// Every version of a file that is in a folder, with where.
fn versions_in(folder: &Folder) -> BTreeMap<u64, RelPath> {
    contents_of(folder).into_iter().map(|(path, version)| (version, path)).collect()
}

fn contents_of(folder: &Folder) -> BTreeMap<RelPath, u64> {
    folder.files().filter_map(|path| Some((path.clone(), version_at(folder, path)?))).collect()
}

/// Which bytes a device says that a path has.
fn stamp_of(host: &Host, path: &RelPath) -> Option<Stamp> {
    let ino = host.engine.view().resolve(path)?;
    match host.engine.tree.get(ino)?.record.kind {
        Kind::File { stamp, .. } => Some(stamp),
        Kind::Dir | Kind::Symlink { .. } => None,
    }
}

/// Whether a device's folder holds at a path what the device says that the path has.
fn is_as_told(host: &Host, path: &RelPath) -> bool {
    let node = host.engine.tree.resolve(path.names()).and_then(|ino| host.engine.tree.get(ino));
    let Some(Origin::Local(facts)) = node.map(|node| node.origin) else { return false };
    host.folder.seen(path).is_some_and(|seen| seen.facts == facts)
}

fn version_at(folder: &Folder, path: &RelPath) -> Option<u64> {
    match folder.at(path)?.kind {
        // Of an empty file nothing is to be kept.
        ObjectKind::File { version, size_bytes } if size_bytes > 0 => Some(version),
        ObjectKind::File { .. } | ObjectKind::Dir | ObjectKind::Symlink(_) => None,
    }
}
