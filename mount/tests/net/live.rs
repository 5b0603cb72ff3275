//! What is done on the mount of one's own folder, as those hear it who follow.

use crate::table::until;
use farshore::folder::WhileWritten;
use farshore::fuse::{MountOptions, Mounted};
use farshore::live;
use farshore::sharing::{ShareOptions, Sharing};
use farshore::state::State;
use farshore_engine::Notice;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A path, and the size of what is there now, if anything is.
type News = (String, Option<u64>);

/// A folder that is shared and mounted by its owner, and what was announced of it.
struct Stage {
    dir: TempDir,
    sharing: Sharing,
    mounted: Mounted,
    announced: Arc<Mutex<Vec<News>>>,
}

impl Stage {
    /// `None`, and a loud word about it, if this machine has no FUSE.
    async fn new() -> Option<Stage> {
        if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
            eprintln!("\n*** SKIPPED: no /dev/fuse ({error}) ***\n");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (folder, root) = (dir.path().join("folder"), dir.path().join("own"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&root).unwrap();
        let state = State::open(Some(dir.path().join("state"))).unwrap();
        let (listen, advertise) = ("127.0.0.1:0".into(), Vec::new());
        let sharing = Sharing::start(
            state,
            ShareOptions {
                folder,
                listen,
                advertise,
                new_ticket: false,
                writable: false,
                while_written: WhileWritten::default(),
            },
        )
        .await
        .unwrap();
        let announced: Arc<Mutex<Vec<News>>> = Arc::default();
        let heard = announced.clone();
        sharing.node().on_notice(Box::new(move |notice| {
            if let Notice::Announced { path, record } = notice {
                heard.lock().unwrap().push((path.to_string(), record.as_ref().map(|record| record.size_bytes())));
            }
        }));
        let options = MountOptions { read_only: false, ..MountOptions::default() };
        let mounted = live::mount(sharing.live().unwrap(), &root, options).unwrap();
        Some(Stage { dir, sharing, mounted, announced })
    }

    /// Does something on the mount, in several threads.
    async fn work(&self, threads: usize, work: impl Fn(&Path, usize) + Clone + Send + 'static) {
        let workers = (0..threads).map(|thread| {
            let (root, work) = (self.mounted.mountpoint().clone(), work.clone());
            tokio::task::spawn_blocking(move || work(&root, thread))
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
    }

    /// Ends it when the thread that watches has seen everything: when it has seen what comes after. Returns what was
    /// announced.
    async fn end(self) -> Vec<News> {
        fs::write(self.dir.path().join("folder/after"), "").unwrap();
        let is_told = || self.announced.lock().unwrap().iter().any(|(path, _)| path == "after");
        until("the watcher catches up", is_told).await;
        let left: Vec<String> =
            self.sharing.node().view(|view| view.tree().map(|(path, _)| path.to_string()).collect());
        assert_eq!(left, ["after"]);
        let mounted = self.mounted;
        tokio::task::spawn_blocking(move || mounted.unmount().unwrap()).await.unwrap();
        self.sharing.stop().await;
        self.announced.lock().unwrap().clone()
    }
}

/// Makes files and directories with names that are never used again, renames them and removes them: always many of them,
/// so that the thread that watches gets to looking at them meanwhile.
fn live_and_die(root: &Path, thread: usize) {
    for round in 0..3 {
        let name = |number: usize, stage: &str| root.join(format!("{thread}-{round}-{number}-{stage}"));
        let each = |work: &dyn Fn(usize)| (0..150).for_each(work);
        each(&|number| {
            fs::write(name(number, "f0"), "text").unwrap();
            fs::create_dir(name(number, "d0")).unwrap();
            fs::write(name(number, "d0/leaf"), "leaf").unwrap();
        });
        each(&|number| fs::rename(name(number, "f0"), name(number, "f1")).unwrap());
        each(&|number| fs::rename(name(number, "d0"), name(number, "d1")).unwrap());
        each(&|number| fs::remove_file(name(number, "f1")).unwrap());
        each(&|number| fs::remove_dir_all(name(number, "d1")).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_back_from_the_dead() {
    let Some(stage) = Stage::new().await else { return };
    stage.work(3, live_and_die).await;
    let mut stages: BTreeMap<String, char> = BTreeMap::new();
    for (path, size) in stage.end().await {
        // What lies in a directory goes by its name; only the last letter of that changes.
        let mut thing = path.split('/').next().unwrap().to_owned();
        let Some(now) = thing.pop().filter(char::is_ascii_digit) else { continue };
        let before = stages.entry(thing).or_insert('0');
        assert!(size.is_none() || now >= *before, "{path} is announced again");
        *before = match (size, now, path.contains('/')) {
            (None, '1', false) => '2',
            (None, ..) => *before,
            (Some(_), ..) => now,
        };
    }
    assert!(stages.values().any(|stage| *stage == '2'), "nothing was seen to its end");
}

/// Renames files, and makes others under the old names at once.
fn rename_and_reuse(root: &Path, thread: usize) {
    for number in 0..200 {
        let (old, new) = (root.join(format!("{thread}-{number}-old")), root.join(format!("{thread}-{number}-new")));
        fs::write(&old, "renamed").unwrap();
        fs::rename(&old, &new).unwrap();
        fs::write(&old, "another one").unwrap();
    }
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{thread}-")) {
            fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_used_again_is_not_taken_for_what_was_renamed() {
    let Some(stage) = Stage::new().await else { return };
    stage.work(2, rename_and_reuse).await;
    for (path, size) in stage.end().await {
        let is_right = !path.ends_with("new") || matches!(size, None | Some(7));
        assert!(is_right, "{path} is announced with {size:?} bytes");
    }
}
