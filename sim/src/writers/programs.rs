//! What programs do that write: some in a folder itself, and some through a mount of it, which also shows what is not in the
//! folder yet.

use super::folder::Replica;
use super::works::{Edit, Version};
use super::world::Stage;
use crate::lots::Lots;
use crate::plan::draw_size;
use farshore::node::Answer;
use farshore_engine::path::{Name, RelPath};
use farshore_engine::record::{FileTime, Kind};
use farshore_engine::{Observation, Reply, Request};
use std::time::Duration;
use tokio::time::Instant;

/// The names that things get: few, so that programs meet.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// How deep directories are made at most.
const MAX_DEPTH: usize = 4;

/// How long a program waits for a file to come.
const PATIENCE: Duration = Duration::from_secs(3);

/// Changes a folder `count` times within `time`, without asking anybody, and whether or not anybody runs there.
pub(super) async fn write_behind(folder: Replica, mut lots: Lots, count: u64, time: Duration) {
    for _ in 0..count {
        tokio::time::sleep(lots.millis(0..=2 * time.as_millis() as u64 / (count + 1))).await;
        write_once(&folder, &mut lots);
    }
}

/// One change of what is in the folder. What cannot be done is not done.
pub(super) fn write_once(folder: &Replica, lots: &mut Lots) {
    let paths = folder.paths();
    let all: Vec<&RelPath> = paths.iter().map(|(path, _)| path).collect();
    let files: Vec<&RelPath> = paths.iter().filter(|(_, is_dir)| !is_dir).map(|(path, _)| path).collect();
    let new = new_path(&paths, lots);
    let what = lots.below(20);
    if files.is_empty() || what < 5 {
        folder.write(&new, Edit::Whole(draw_small(lots)));
        return;
    }
    let (file, any) = (*lots.pick(&files), *lots.pick(&all));
    match what {
        5..9 => folder.write(file, draw_edit(lots)),
        9 => folder.replace(file, draw_edit(lots)),
        10 | 11 => folder.rename(file, &new),
        12 => folder.rename(any, &new),
        13 => folder.remove(file),
        14 => folder.remove(any),
        15 | 16 => folder.make_dir(&new),
        17 => folder.link(&new, &format!("t{}", lots.below(1_000))),
        18 => folder.set_mode(any, draw_mode(lots)),
        _ => {
            folder.sync();
            true
        }
    };
}

/// A path in some directory that is there.
fn new_path(paths: &[(RelPath, bool)], lots: &mut Lots) -> RelPath {
    let dirs: Vec<&RelPath> = paths.iter().filter(|(_, is_dir)| *is_dir).map(|(path, _)| path).collect();
    let root = RelPath::ROOT;
    let dir = match dirs.is_empty() || lots.chance(40) {
        true => &root,
        false => *lots.pick(&dirs),
    };
    let dir = if dir.names().len() < MAX_DEPTH { dir } else { &root };
    let name: &&str = lots.pick(&NAMES);
    join(dir, name)
}

fn join(dir: &RelPath, name: &str) -> RelPath {
    let joined = Name::new(name.as_bytes()).ok().and_then(|name| dir.join(name).ok());
    joined.unwrap_or_else(|| panic!("{name} in {dir} is no path"))
}

/// A size: mostly small, for there is much to write.
pub(super) fn draw_small(lots: &mut Lots) -> u64 {
    match lots.below(8) {
        0 => 0,
        7 => draw_size(lots),
        _ => lots.within(16..=5_000),
    }
}

fn draw_edit(lots: &mut Lots) -> Edit {
    match lots.below(8) {
        0..3 => Edit::Whole(draw_small(lots)),
        3 | 4 => Edit::Append(lots.within(16..=5_000)),
        5 => Edit::Cut(draw_small(lots)),
        _ => Edit::Patch(draw_small(lots), lots.within(16..=5_000)),
    }
}

fn draw_mode(lots: &mut Lots) -> u16 {
    0o600 + lots.below(64) as u16
}

/// A program that works on a mount at random, until its time is over.
pub(super) async fn work_on_mount(stage: Stage, mut lots: Lots, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::time::sleep(lots.millis(1..=1_500)).await;
        let away = away(&stage);
        if away.is_empty() || lots.chance(50) {
            work_here(&stage, &mut lots);
        } else {
            let at = lots.pick(&away).clone();
            work_away(&stage, &mut lots, &at).await;
        }
    }
}

/// The files that peers have and the folder has not.
pub(super) fn away(stage: &Stage) -> Vec<RelPath> {
    stage.node.view(|view| {
        let paths: Vec<RelPath> = view.tree().map(|(path, _)| path).collect();
        let mut away: Vec<RelPath> = paths.into_iter().filter(|path| view.away(path).is_some()).collect();
        away.sort();
        away
    })
}

fn is_away(stage: &Stage, at: &RelPath) -> bool {
    stage.node.view(|view| view.away(at).is_some())
}

/// A change of what is in the folder, which is told at once. What is away has its name as if it was here.
fn work_here(stage: &Stage, lots: &mut Lots) {
    let folder = &stage.device.folder;
    let paths = folder.paths();
    let dirs: Vec<&RelPath> = paths.iter().filter(|(_, is_dir)| *is_dir).map(|(path, _)| path).collect();
    let new = new_path(&paths, lots);
    if !dirs.is_empty() && lots.chance(20) {
        // A directory takes along what is away in it.
        let from = *lots.pick(&dirs);
        if !is_away(stage, &new) && folder.rename(from, &new) {
            let taken_along = away(stage).into_iter().filter(|path| from.is_prefix_of(path));
            taken_along
                .filter_map(|path| version_away(stage, &path))
                .for_each(|version| folder.works().handle(version));
            folder.tell_moved(&stage.node, false, from, &new);
        }
        return;
    }
    if is_away(stage, &new) {
        return;
    }
    // Others are told by the watcher, some time.
    write_once_if(folder, lots, |path| !is_away(stage, path));
    if lots.chance(80) {
        folder.tell(&stage.node);
    }
}

/// One change of the folder, none of which makes anything where `may` forbids it.
fn write_once_if(folder: &Replica, lots: &mut Lots, may: impl Fn(&RelPath) -> bool) {
    let paths = folder.paths();
    let files: Vec<&RelPath> = paths.iter().filter(|(_, is_dir)| !is_dir).map(|(path, _)| path).collect();
    let new = new_path(&paths, lots);
    let what = lots.below(8);
    if files.is_empty() || what < 3 {
        if may(&new) {
            folder.write(&new, Edit::Whole(draw_small(lots)));
        }
        return;
    }
    let file = *lots.pick(&files);
    match what {
        3 | 4 => folder.write(file, draw_edit(lots)),
        5 => may(&new) && folder.rename(file, &new),
        6 => folder.remove(file),
        _ => folder.set_mode(file, draw_mode(lots)),
    };
}

/// What a file that is away holds.
fn version_away(stage: &Stage, at: &RelPath) -> Option<Version> {
    let record =
        stage.node.view(|view| view.tree().find(|(path, _)| path == at).map(|(_, record)| record.kind.clone()));
    match record {
        Some(Kind::File { stamp, .. }) => stage.device.folder.works().by_stamp(stamp),
        Some(Kind::Dir | Kind::Symlink { .. }) | None => None,
    }
}

/// Something that is done to a file that is away.
async fn work_away(stage: &Stage, lots: &mut Lots, at: &RelPath) {
    let (folder, node) = (&stage.device.folder, &stage.node);
    let Some(version) = version_away(stage, at) else { return };
    let note = |what: &str| stage.history.note(stage.device.host, format_args!("away: {what} {at}"));
    match lots.below(8) {
        0 => {
            note("remove");
            folder.works().end(version);
            node.observe(vec![Observation::Sighted { path: at.clone() }, Observation::Missing { path: at.clone() }]);
        }
        1 => {
            let to = new_path(&folder.paths(), lots);
            if folder.seen(&to).is_some() || is_away(stage, &to) {
                return;
            }
            note(&format!("rename to {to}"));
            folder.works().handle(version);
            node.observe(vec![Observation::Sighted { path: at.clone() }, Observation::Moved { from: at.clone(), to }]);
        }
        2 => {
            note("chmod");
            folder.works().handle(version);
            let modified = lots.chance(50).then(|| FileTime { seconds: lots.below(100_000) as i64, nanos: 0 });
            let (path, mode) = (at.clone(), Some(draw_mode(lots)));
            node.observe(vec![Observation::Amended { path, mode, modified, xattrs: None }]);
        }
        3 => {
            // Whoever cuts it wants nothing of it.
            if folder.write(at, Edit::Whole(0)) {
                note("cut");
                folder.works().end(version);
                node.observe(vec![Observation::Sighted { path: at.clone() }, folder.look(at)]);
            }
        }
        4 | 5 => read_away(stage, at, version).await,
        _ => {
            let brought = tokio::time::timeout(PATIENCE, node.reply(Request::Bring { path: at.clone() })).await;
            if matches!(brought, Ok(Ok(_))) && folder.seen(at).is_some() && folder.write(at, draw_edit(lots)) {
                folder.tell(node);
            }
        }
    }
}

/// Reads a file that is away: whatever goes wrong, no wrong byte comes.
async fn read_away(stage: &Stage, at: &RelPath, version: u64) {
    let node = &stage.node;
    let Some(ino) = node.view(|view| view.away(at)).map(|attr| attr.ino) else { return };
    let opened = node.reply(Request::Open { ino, write: false, whole_from: None }).await;
    let Ok(Reply::Opened(opened)) = opened else { return };
    let right = stage.device.folder.works().bytes(version);
    let request = Request::Read { handle: opened.handle, offset: 0, len: 128 * 1024 };
    if let Ok(Answer::Bytes(bytes)) = node.ask_and_wait(request).await {
        let mut read = vec![0; bytes.len()];
        // It may have come, and a file of the folder is none that is read here.
        if opened.local.is_none() && bytes.read_into(&mut read).is_ok() {
            let is_right = right.get(..read.len()).is_some_and(|right| right == &read[..]);
            let other = stage.device.folder.works();
            assert!(is_right || other.begins_with(&read), "{} bytes of {at} that nobody has written", read.len());
            stage.history.note(stage.device.host, format_args!("away: {} bytes of {at}", read.len()));
        }
    }
    let _released = node.reply(Request::Release { handle: opened.handle }).await;
}
