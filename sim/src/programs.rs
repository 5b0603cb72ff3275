//! What programs do while things go wrong: some read what the owner shares, one changes it.

use crate::folder::{SimFolder, path};
use crate::kernel::OpenFile;
use crate::lots::Lots;
use crate::plan::draw_size;
use crate::world::Stage;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::path::RelPath;
use farshore_engine::{AttrKind, DirEntryName, Ino};
use std::time::Duration;
use tokio::time::Instant;

/// The most files that one program has open.
const MAX_OPEN: usize = 4;

/// A program that looks around, opens, reads and closes at random, until its time is over.
pub(crate) async fn read_for_a_while(stage: Stage, mut lots: Lots, time: Duration) {
    let until = Instant::now() + time;
    let mut open: Vec<OpenFile> = Vec::new();
    while Instant::now() < until {
        // What is here is answered in no time, and time has to pass.
        tokio::time::sleep(lots.millis(1..=40)).await;
        match lots.below(20) {
            0..4 => open_something(&stage, &mut lots, &mut open),
            4..6 if !open.is_empty() => {
                let file = open.swap_remove(lots.below(open.len() as u64) as usize);
                stage.kernel.release(file);
                if lots.chance(30) {
                    stage.kernel.forget(file.ino);
                }
            }
            6..14 if !open.is_empty() => read_at_random(&stage, &mut lots, &open).await,
            14..17 if !open.is_empty() => {
                // Errors are right while things go wrong; wrong bytes never are.
                let _ = stage.kernel.read_to_end(*lots.pick(&open), large_piece(&mut lots)).await;
            }
            17 if !open.is_empty() => {
                let file = *lots.pick(&open);
                let _ = tokio::time::timeout(lots.millis(1..=4_000), stage.kernel.fetch_all(file)).await;
            }
            18 if lots.chance(20) => keep_or_drop(&stage, &mut lots),
            _ => {
                look_around(&stage, Ino::ROOT);
                tokio::time::sleep(lots.millis(0..=300)).await;
            }
        }
    }
    open.into_iter().for_each(|file| stage.kernel.release(file));
}

fn open_something(stage: &Stage, lots: &mut Lots, open: &mut Vec<OpenFile>) {
    // What the owner has; the reader may not have heard of it, or of its end.
    let paths = stage.folder.paths();
    if paths.is_empty() || open.len() >= MAX_OPEN {
        return;
    }
    let (path, _) = lots.pick(&paths);
    if let Ok(file) = stage.kernel.open(path) {
        open.push(file);
    }
}

/// Pins something, or takes a pin back, or lets go of something.
fn keep_or_drop(stage: &Stage, lots: &mut Lots) {
    let pinned: Vec<RelPath> = stage.kernel.node().view(|view| view.pins().cloned().collect());
    let paths = stage.folder.paths();
    // Refusals are right: the reader may not know of it.
    let _ = match lots.below(4) {
        0 if !paths.is_empty() => stage.kernel.pin(path(&lots.pick(&paths).0)),
        1 | 2 if !pinned.is_empty() => stage.kernel.unpin(lots.pick(&pinned).clone()),
        _ if !paths.is_empty() => stage.kernel.evict(path(&lots.pick(&paths).0)).map(drop),
        _ => Ok(()),
    };
}

async fn read_at_random(stage: &Stage, lots: &mut Lots, open: &[OpenFile]) {
    let file = *lots.pick(open);
    let Ok(attr) = stage.kernel.attr(file.ino) else { return };
    // Up to the end, and sometimes beyond it.
    let offset = lots.below(attr.size_bytes + attr.size_bytes / 8 + 1);
    let len = piece(lots);
    let _ = stage.kernel.read(file, offset, len).await;
}

fn piece(lots: &mut Lots) -> u32 {
    *lots.pick(&[1, 4_096, 50_001, 128 * 1024, 1024 * 1024])
}

fn large_piece(lots: &mut Lots) -> u32 {
    *lots.pick(&[50_001, 128 * 1024, 1024 * 1024])
}

/// Lists everything, as `find` does.
fn look_around(stage: &Stage, dir: Ino) {
    let Ok(entries) = stage.kernel.list(dir, || {}) else { return };
    for entry in entries {
        let is_entry = matches!(entry.name, DirEntryName::Name(_));
        if is_entry && entry.attr.kind == AttrKind::Dir {
            look_around(stage, entry.attr.ino);
        }
    }
}

/// Changes the owner's folder `count` times within `time`.
pub(crate) async fn edit(folder: SimFolder, mut lots: Lots, count: u64, time: Duration) {
    for number in 0..count {
        tokio::time::sleep(lots.millis(0..=2 * time.as_millis() as u64 / (count + 1))).await;
        edit_once(&folder, &mut lots, number);
    }
}

fn edit_once(folder: &SimFolder, lots: &mut Lots, number: u64) {
    let paths = folder.paths();
    let dirs: Vec<String> = std::iter::once(String::new())
        .chain(paths.iter().map(|(path, _)| path).filter(|path| folder.is_dir(path)).map(|path| format!("{path}/")))
        .collect();
    let files: Vec<(&str, u64)> = paths.iter().filter_map(|(path, size)| Some((path.as_str(), (*size)?))).collect();
    let new = format!("{}n{number}", lots.pick(&dirs));
    let what = lots.below(16);
    if files.is_empty() || what < 2 {
        return folder.write(&new, draw_size(lots));
    }
    let (file, size_bytes) = *lots.pick(&files);
    match what {
        2 | 3 => folder.write(file, draw_size(lots)),
        4 => folder.edit_in_secret(file),
        5 => folder.replace(file, draw_size(lots)),
        6 => folder.remove(file),
        7 => folder.rename(file, &new),
        8 => folder.set_mode(file, 0o600 + (number as u16 % 64)),
        9 => folder.make_dir(&new),
        10 => folder.link(&new, file),
        11..15 => {
            let chunk = lots.below(size_bytes.div_ceil(CHUNK_SIZE).max(1));
            let resized = if lots.chance(20) { draw_size(lots) } else { size_bytes };
            folder.edit_chunk(file, chunk, resized);
        }
        _ => {
            // A directory with all that is in it, to a place outside of it.
            let (path, _) = lots.pick(&paths);
            let inside = new.starts_with(&format!("{path}/"));
            if !inside && lots.chance(70) {
                folder.rename(path, &new);
            } else if !inside {
                folder.remove(path);
            }
        }
    }
}
