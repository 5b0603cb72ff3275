//! The power fails at every moment of three lives of a store. What was done and not made durable has reached the disk or
//! not, each step by itself. Whatever is found then: nothing is believed that is not right, and nothing that was saved is
//! lost.

use super::super::DiskStore;
use super::super::trouble::{Done, Fault, Trouble};
use crate::store::suite::{identity, part, path, sample, write};
use crate::store::{Store, Stored};
use bytes::Bytes;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::{ContentIdentity, Trust};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// From this many steps on, not every mix of those that may be lost is tried, but only some.
const ALL_MIXES: usize = 6;
/// How many.
const SOME_MIXES: u64 = 12;

/// The contents of the story: a large one, and many small ones.
fn contents() -> Vec<(ContentIdentity, Bytes)> {
    let len = |number| if number == 0 { CHUNK_SIZE + 100 } else { 50 };
    (0..12).map(|number| (identity(number, len(number)), sample(number, len(number)))).collect()
}

/// A chunk that was saved, after so many steps. It may be given up from another step on.
struct Promise {
    from: usize,
    until: usize,
    content: usize,
    chunk: u64,
}

/// What was done to the disk, and what was promised.
struct Story {
    done: Vec<Done>,
    promises: Vec<Promise>,
}

/// Lives three lives. Call number `fault` of one of the saves fails, if one is given.
async fn live(contents: &[(ContentIdentity, Bytes)], fault: Option<usize>) -> Story {
    let dir = scratch();
    let trouble = Trouble::none();
    let mut promises: Vec<Promise> = Vec::new();
    let promise = |content, chunk| Promise { from: trouble.done().len(), until: usize::MAX, content, chunk };
    {
        let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
        let open: Vec<Arc<dyn Stored>> =
            contents.iter().map(|(id, _)| store.create(id, &path("dir/name")).unwrap()).collect();
        let put = |content: usize, chunk| write(&open[content], &contents[content].1, chunk);
        put(0, 0).await.unwrap();
        put(1, 0).await.unwrap();
        store.save(vec![Arc::clone(&open[0]), Arc::clone(&open[1])]).await.unwrap();
        promises.extend([promise(0, 0), promise(1, 0)]);
        // Written again, and the first attempt to save it may fail.
        put(0, 0).await.unwrap();
        put(0, 1).await.unwrap();
        if let Some(fault) = fault {
            trouble.plan(fault, Fault::Error(Errno::IO));
        }
        let saved = store.save(vec![Arc::clone(&open[0])]).await;
        trouble.heal();
        if saved.is_err() {
            store.save(vec![Arc::clone(&open[0])]).await.unwrap();
        }
        promises.push(promise(0, 1));
        for content in 2..contents.len() {
            put(content, 0).await.unwrap();
        }
        store.save(open.clone()).await.unwrap();
        promises.extend((2..contents.len()).map(|content| promise(content, 0)));
        store.close().await.unwrap();
    }
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    let (stored, _) = store.resume(contents[0].0.key(), Some(&contents[0].0)).await.unwrap().unwrap();
    write(&stored, &contents[0].1, 1).await.unwrap();
    // One goes, one begins anew, and one goes and comes back.
    let give_up = |promises: &mut Vec<Promise>, content| {
        let given_up = promises.iter_mut().filter(|promise| promise.content == content);
        given_up.for_each(|promise| promise.until = trouble.done().len());
    };
    for content in [1, 2, 3] {
        give_up(&mut promises, content);
    }
    store.evict(contents[1].0.key());
    drop(store.create(&contents[2].0, &path("anew")).unwrap());
    let anew = store.create(&contents[3].0, &path("anew")).unwrap();
    write(&anew, &contents[3].1, 0).await.unwrap();
    drop((anew, stored));
    store.close().await.unwrap();
    promises.push(promise(3, 0));
    drop(store);
    // Nothing is saved in this one.
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    give_up(&mut promises, 4);
    drop(store.create(&contents[4].0, &path("anew")).unwrap());
    store.close().await.unwrap();
    Story { done: trouble.done(), promises }
}

/// Lives two lives: the first is killed between two saves, the second goes on with what it left and ends well. Between
/// them the system may let go of what was written, and tell nobody.
async fn be_killed(contents: &[(ContentIdentity, Bytes)], lets_go: bool) -> Story {
    let dir = scratch();
    let trouble = Trouble::none();
    let (id, bytes) = &contents[0];
    {
        let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
        let stored = store.create(id, &path("dir/name")).unwrap();
        write(&stored, bytes, 0).await.unwrap();
        write(&stored, bytes, 1).await.unwrap();
    }
    let is_soon = |done: &Done| matches!(done, Done::Rename(_, to) if to.ends_with(".soon"));
    assert_eq!(trouble.done().iter().filter(|done| is_soon(done)).count(), 1);
    let killed_at = trouble.done().len();
    let store = DiskStore::open_with(dir.path(), &trouble).unwrap();
    let (stored, resumed) = store.resume(id.key(), Some(id)).await.unwrap().unwrap();
    assert_eq!((resumed.chunks.have(), resumed.trust), (2, Trust::Hashed));
    for chunk in 0..2 {
        assert!(Arc::clone(&stored).verify(chunk).await.unwrap());
    }
    drop(stored);
    store.close().await.unwrap();
    let mut done = trouble.done();
    if lets_go {
        done.insert(killed_at, Done::SyncFailed(None));
    }
    let from = done.len();
    let promise = |chunk| Promise { from, until: usize::MAX, content: 0, chunk };
    Story { promises: vec![promise(0), promise(1)], done }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A step that may be lost in a crash.
#[derive(Debug, Clone)]
enum Step {
    Link(String, usize),
    Unlink(String),
    SetLen(usize, u64),
    Write(usize, u64, Vec<u8>),
}

impl Step {
    fn file(&self) -> Option<usize> {
        match self {
            Step::Link(..) | Step::Unlink(_) => None,
            Step::SetLen(file, _) | Step::Write(file, ..) => Some(*file),
        }
    }
}

/// A disk in mid-air.
#[derive(Default, Clone)]
struct Disk {
    /// Which file has which name, for whoever looks before the crash.
    names: BTreeMap<String, usize>,
    files: usize,
    /// In order; and of each whether it is durable, and whether the system has let go of it.
    steps: Vec<(Step, Fate)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pending,
    /// It was not made durable when it should have been: it may be lost, whatever is done to its file later.
    Adrift,
    Durable,
}

/// What is left after a crash.
#[derive(Default)]
struct Wreck {
    names: BTreeMap<String, usize>,
    files: BTreeMap<usize, Vec<u8>>,
}

impl Disk {
    fn push(&mut self, step: Step) {
        self.steps.push((step, Fate::Pending));
    }

    fn set(&mut self, from: Fate, to: Fate, which: impl Fn(&Step) -> bool) {
        self.steps.iter_mut().filter(|(step, fate)| *fate == from && which(step)).for_each(|(_, fate)| *fate = to);
    }

    fn apply(&mut self, done: &Done) {
        match done {
            // It has failed.
            Done::CreateNew(name) if self.names.contains_key(name) => {}
            Done::Create(name) | Done::CreateNew(name) => {
                if let Some(file) = self.names.get(name) {
                    return self.push(Step::SetLen(*file, 0));
                }
                self.names.insert(name.clone(), self.files);
                self.push(Step::Link(name.clone(), self.files));
                self.files += 1;
            }
            Done::SetLen(name, len) => self.push(Step::SetLen(self.names[name], *len)),
            Done::Write(name, offset, bytes) => {
                // One half may be there without the other.
                let (first, second) = bytes.split_at(bytes.len() / 2);
                self.push(Step::Write(self.names[name], *offset, first.to_vec()));
                self.push(Step::Write(self.names[name], offset + first.len() as u64, second.to_vec()));
            }
            Done::Sync(name) => {
                let file = self.names[name];
                self.set(Fate::Pending, Fate::Durable, |step| step.file() == Some(file));
            }
            Done::SyncAll => self.set(Fate::Pending, Fate::Durable, |_| true),
            Done::SyncNames(dir) => {
                let is_private = dir == ".farshore";
                self.set(Fate::Pending, Fate::Durable, |step| match step {
                    Step::Link(name, _) | Step::Unlink(name) => (name == "clean") == is_private,
                    Step::SetLen(..) | Step::Write(..) => false,
                });
            }
            Done::SyncFailed(name) => {
                let file = name.as_ref().map(|name| self.names[name]);
                self.set(
                    Fate::Pending,
                    Fate::Adrift,
                    |step| matches!(step, Step::Write(of, ..) if file.is_none_or(|file| file == *of)),
                );
            }
            Done::Rename(from, to) => {
                let file = self.names.remove(from).expect("it was made");
                self.names.insert(to.clone(), file);
                self.push(Step::Link(to.clone(), file));
                self.push(Step::Unlink(from.clone()));
            }
            Done::Remove(name) => {
                if self.names.remove(name).is_some() {
                    self.push(Step::Unlink(name.clone()));
                }
            }
        }
    }

    /// How many steps may be lost.
    fn undecided(&self) -> usize {
        self.steps.iter().filter(|(_, fate)| *fate != Fate::Durable).count()
    }

    /// The wreck, if of the steps that may be lost those survive that `survives` says, by their number.
    fn wreck(&self, survives: impl Fn(usize) -> bool) -> Wreck {
        let mut wreck = Wreck::default();
        let mut number = 0;
        for (step, fate) in &self.steps {
            if *fate != Fate::Durable {
                number += 1;
                if !survives(number - 1) {
                    continue;
                }
            }
            match step {
                Step::Link(name, file) => _ = wreck.names.insert(name.clone(), *file),
                Step::Unlink(name) => _ = wreck.names.remove(name),
                Step::SetLen(file, len) => wreck.files.entry(*file).or_default().resize(*len as usize, 0),
                Step::Write(file, offset, bytes) => {
                    let all = wreck.files.entry(*file).or_default();
                    let end = *offset as usize + bytes.len();
                    all.resize(all.len().max(end), 0);
                    all[*offset as usize..end].copy_from_slice(bytes);
                }
            }
        }
        wreck
    }
}

impl Wreck {
    fn lay_out(&self, dir: &Path) {
        let private = dir.join(".farshore");
        std::fs::create_dir_all(private.join("partial")).unwrap();
        for (name, file) in &self.names {
            let dir = if name == "clean" { private.clone() } else { private.join("partial") };
            let made = std::fs::File::create(dir.join(name)).unwrap();
            let bytes = self.files.get(file).map_or(&[][..], Vec::as_slice);
            made.write_all_at(bytes, 0).unwrap();
        }
    }
}

/// What is found in a wreck: which chunks are there and right.
async fn look(wreck: &Wreck, contents: &[(ContentIdentity, Bytes)]) -> BTreeSet<(usize, u64)> {
    let dir = scratch();
    wreck.lay_out(dir.path());
    let store = DiskStore::open(dir.path()).unwrap();
    let mut found = BTreeSet::new();
    for (number, (id, bytes)) in contents.iter().enumerate() {
        let Some((stored, resumed)) = store.resume(id.key(), Some(id)).await.unwrap() else { continue };
        for chunk in resumed.chunks.present() {
            let is_believed = match resumed.trust {
                Trust::Verified => true,
                Trust::Hashed => Arc::clone(&stored).verify(chunk).await.unwrap(),
                Trust::Claimed => panic!("nobody wrote version 1"),
            };
            if is_believed {
                let right = part(bytes, chunk);
                let mut into = vec![0; right.len()];
                stored.read(chunk * CHUNK_SIZE, &mut into).unwrap();
                assert_eq!(xxh3_64(&into), xxh3_64(&right), "chunk {chunk} of content {number} is believed and wrong");
                found.insert((number, chunk));
            }
        }
    }
    found
}

async fn crash_everywhere(story: &Story, contents: &[(ContentIdentity, Bytes)]) -> u64 {
    let mut disk = Disk::default();
    let mut crashes = 0;
    for at in 0..=story.done.len() {
        let undecided = disk.undecided();
        let all = 1_u64 << undecided.min(ALL_MIXES);
        let mixes = if undecided <= ALL_MIXES { all } else { SOME_MIXES };
        for mix in 0..mixes {
            let survives = |step: usize| match (undecided <= ALL_MIXES, mix) {
                (true, mix) => mix >> step & 1 == 1,
                (false, 0) => false,
                (false, 1) => true,
                // Nearly all, nearly none, and half of them, by chance.
                (false, mix) => {
                    let dice = xxh3_64(&[at as u64, mix, step as u64].map(u64::to_le_bytes).concat()) % 8;
                    dice < [1, 4, 7][mix as usize % 3]
                }
            };
            let found = look(&disk.wreck(survives), contents).await;
            crashes += 1;
            for promise in &story.promises {
                if (promise.from..promise.until).contains(&at) {
                    let Promise { content, chunk, .. } = promise;
                    let is_there = found.contains(&(*content, *chunk));
                    assert!(is_there, "chunk {chunk} of content {content} was saved; crash after {at}, mix {mix:b}");
                }
            }
        }
        if let Some(done) = story.done.get(at) {
            disk.apply(done);
        }
    }
    crashes
}

#[tokio::test]
async fn whenever_the_power_fails_nothing_wrong_is_believed_and_nothing_saved_is_lost() {
    let contents = contents();
    let story = live(&contents, None).await;
    assert!(crash_everywhere(&story, &contents).await > 1_000);
}

#[tokio::test]
async fn what_was_not_durable_when_its_process_was_killed_is_made_so_before_it_is_believed() {
    let contents = contents();
    for lets_go in [false, true] {
        let story = be_killed(&contents, lets_go).await;
        assert!(crash_everywhere(&story, &contents[..1]).await > 100);
    }
}

#[tokio::test]
async fn the_same_holds_when_the_disk_could_not_make_the_bytes_durable_at_first() {
    let contents = contents();
    let mut stories = 0;
    for fault in 0.. {
        let story = live(&contents, Some(fault)).await;
        let failed = story.done.iter().filter(|done| matches!(done, Done::SyncFailed(_))).count();
        if failed > 0 {
            stories += 1;
            crash_everywhere(&story, &contents).await;
        } else if fault > 20 {
            break;
        }
    }
    assert_eq!(stories, 2, "the bytes, and the sidecar");
}
