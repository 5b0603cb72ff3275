//! What is done in the folder is what was asked for, and what somebody else does meanwhile is never lost.

use super::*;
use crate::folder::lacking::Lacking;
use crate::folder::look::{Sight, look_in};
use crate::store::suite::{identity, path, sample, write};
use crate::store::{DiskStore, MemoryStore, Store};
use crate::xattrs::read_in;
use farshore_engine::chunk::CHUNK_SIZE;
use rustix::fs::XattrFlags;
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MODIFIED: FileTime = FileTime { seconds: 1_234_567_890, nanos: 123_456_789 };

type Act = Box<dyn FnMut(usize)>;

thread_local! {
    /// What a program does, and how many moments it has had for that.
    static PROGRAM: RefCell<Option<(Act, usize)>> = const { RefCell::new(None) };
}

/// Has the program of this thread act, if there is one.
pub(super) fn meanwhile() {
    let taken = PROGRAM.with(RefCell::take);
    if let Some((mut act, moment)) = taken {
        act(moment);
        PROGRAM.with(|program| program.replace(Some((act, moment + 1))));
    }
}

/// A folder in which operations are done.
struct Bench {
    applier: Applier,
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let beneath = Arc::new(Beneath::open(dir.path()).unwrap());
        Bench { applier: Applier::new(beneath, Lacking::default()), dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, bytes: &str) -> Facts {
        fs::write(self.at(name), bytes).unwrap();
        self.facts(name)
    }

    fn make_dir(&self, name: &str) -> Facts {
        fs::create_dir(self.at(name)).unwrap();
        self.facts(name)
    }

    /// What a look at a path says.
    fn facts(&self, name: &str) -> Facts {
        facts(&rustix::fs::lstat(self.at(name)).unwrap())
    }

    fn apply_all(&self, ops: Vec<Apply>, contents: &Contents) -> Vec<Result<Facts, ApplyError>> {
        let prepared = self.applier.prepare(ops, contents);
        self.applier.apply(prepared)
    }

    /// Does one operation; content 1 is there to be published.
    fn apply(&self, op: Apply) -> Result<Facts, ApplyError> {
        self.apply_all(vec![op], &contents()).remove(0)
    }

    /// While an operation is done, a program does something in a certain moment. Says whether there was one.
    fn apply_with(&self, op: Apply, moment: usize, act: fn(&Path)) -> (Result<Facts, ApplyError>, bool) {
        let target = self.at(&op.paths().next().unwrap().to_string());
        let program = move |now: usize| {
            if now == moment {
                act(&target);
            }
        };
        PROGRAM.with(|slot| slot.replace(Some((Box::new(program), 0))));
        let done = self.apply(op);
        let (_, moments) = PROGRAM.with(RefCell::take).unwrap();
        (done, moments > moment)
    }

    /// All that is in the folder, and nothing is left out of sight.
    fn tree(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        list(self.dir.path(), self.dir.path(), &mut found);
        found.sort();
        let is_left = |(name, _): &&(String, String)| name.starts_with(".farshore/applying/");
        assert_eq!(found.iter().find(is_left), None);
        found.retain(|(name, _)| !name.starts_with(".farshore"));
        found
    }

    /// Whether some file in the folder has these bytes.
    fn holds(&self, bytes: &str) -> bool {
        self.tree().iter().any(|(_, text)| text == bytes)
    }
}

fn list(root: &Path, dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let text = match (meta.is_dir(), meta.is_symlink()) {
            (true, _) => {
                list(root, &path, found);
                "a directory".to_owned()
            }
            (_, true) => format!("-> {}", fs::read_link(&path).unwrap().display()),
            _ => String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
        };
        found.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text));
    }
}

const NEW: &str = "the bytes of the peer";

fn whole(store: &dyn Store, number: u64, bytes: &[u8]) -> Arc<dyn Stored> {
    let stored = store.create(&identity(number, bytes.len() as u64), &path("somewhere")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    for chunk in 0..(bytes.len() as u64).div_ceil(CHUNK_SIZE) {
        runtime.block_on(write(&stored, &bytes, chunk)).unwrap();
    }
    stored
}

fn contents() -> Contents {
    Contents::from([(ContentId(1), whole(&MemoryStore::default(), 1, NEW.as_bytes()))])
}

fn publish_at(name: &str, expect: Option<Facts>) -> Apply {
    Apply::Publish {
        path: path(name),
        content: Some(ContentId(1)),
        mode: 0o640,
        modified: MODIFIED,
        xattrs: Xattrs::default(),
        expect,
    }
}

fn link_at(name: &str, expect: Option<Facts>) -> Apply {
    Apply::MakeSymlink { path: path(name), target: b"target"[..].into(), modified: MODIFIED, expect }
}

fn rename(from: &str, to: &str, expect: Facts, over: Option<Facts>) -> Apply {
    Apply::Rename {
        from: path(from),
        to: path(to),
        mode: 0o640,
        modified: MODIFIED,
        xattrs: Xattrs::default(),
        expect,
        over,
    }
}

fn attributes(name: &str, expect: Option<Facts>) -> Apply {
    Apply::SetAttributes { path: path(name), mode: 0o640, modified: MODIFIED, xattrs: None, expect }
}

/// It is there, as it was asked for, and the engine hears the facts that a look finds.
#[track_caller]
fn is_made(bench: &Bench, name: &str, done: Result<Facts, ApplyError>, mode: u32) {
    assert_eq!(done, Ok(bench.facts(name)));
    let meta = bench.at(name).symlink_metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, mode);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (MODIFIED.seconds, MODIFIED.nanos.into()));
}

#[test]
fn what_is_asked_for_is_done_with_mode_and_time() {
    let bench = Bench::new();
    let make_dir =
        |name| Apply::MakeDir { path: path(name), mode: 0o750, modified: MODIFIED, xattrs: Xattrs::default() };
    is_made(&bench, "dir", bench.apply(make_dir("dir")), 0o750);
    is_made(&bench, "dir/inner", bench.apply(make_dir("dir/inner")), 0o750);
    is_made(&bench, "dir/link", bench.apply(link_at("dir/link", None)), 0o777);
    is_made(&bench, "file", bench.apply(publish_at("file", None)), 0o640);
    let empty = Apply::Publish {
        path: path("empty"),
        content: None,
        mode: 0o400,
        modified: MODIFIED,
        xattrs: Xattrs::default(),
        expect: None,
    };
    is_made(&bench, "empty", bench.apply(empty), 0o400);
    let moved = bench.apply(rename("file", "dir/file", bench.facts("file"), None));
    is_made(&bench, "dir/file", moved, 0o640);
    assert_eq!(
        bench.tree(),
        [
            ("dir", "a directory"),
            ("dir/file", NEW),
            ("dir/inner", "a directory"),
            ("dir/link", "-> target"),
            ("empty", ""),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
    for name in ["dir", ""] {
        fs::set_permissions(bench.at(name), fs::Permissions::from_mode(0o700)).unwrap();
        is_made(&bench, name, bench.apply(attributes(name, None)), 0o640);
    }
    let linked = Apply::SetAttributes {
        path: path("dir/link"),
        mode: 0o600,
        modified: MODIFIED,
        xattrs: None,
        expect: Some(bench.facts("dir/link")),
    };
    is_made(&bench, "dir/link", bench.apply(linked), 0o777);
    for name in ["dir/inner", "dir/link", "dir/file"] {
        let expect = bench.facts(name);
        assert!(bench.apply(Apply::Remove { path: path(name), expect }).is_ok());
        assert!(!bench.at(name).exists(), "{name}");
    }
}

/// A file is as long as the content that it is compared with: the engine asks only then.
#[test]
fn what_lost_its_name_gets_another_one_unless_it_is_what_took_it() {
    let bench = Bench::new();
    let keep_copy = |expect, unless: bool| Apply::KeepCopy {
        path: path("file"),
        to: path("copy"),
        expect,
        unless: unless.then_some(ContentId(1)),
    };
    let before = bench.put("file", NEW);
    assert_eq!(bench.apply(keep_copy(before, true)), Err(ApplyError::Same));
    assert_eq!(bench.apply(keep_copy(Facts { inode: 1, ..before }, true)), Err(ApplyError::Changed));
    assert_eq!(bench.tree(), [("file".to_owned(), NEW.to_owned())]);
    let other = NEW.replace('y', "z");
    let before = bench.put("file", &other);
    assert_eq!(bench.apply(keep_copy(before, true)), Ok(bench.facts("copy")));
    assert_eq!(bench.tree(), [("copy".to_owned(), other.clone())]);
    let before = bench.put("file", NEW);
    assert_eq!(bench.apply(keep_copy(before, false)), Err(ApplyError::Changed), "the name is taken");
    fs::remove_file(bench.at("copy")).unwrap();
    assert_eq!(bench.apply(keep_copy(before, false)), Ok(bench.facts("copy")));
}

#[test]
fn what_is_expected_is_replaced() {
    let bench = Bench::new();
    let before = bench.put("file", "old");
    is_made(&bench, "file", bench.apply(publish_at("file", Some(before))), 0o640);
    let before = bench.facts("file");
    is_made(&bench, "file", bench.apply(link_at("file", Some(before))), 0o777);
    let (before, other) = (bench.facts("file"), bench.put("other", "other"));
    is_made(&bench, "file", bench.apply(rename("other", "file", other, Some(before))), 0o640);
    assert_eq!(bench.tree(), [("file".to_owned(), "other".to_owned())]);
}

#[test]
fn what_is_not_expected_stays() {
    let bench = Bench::new();
    let (edited, dir) = (bench.put("edited", "old"), bench.make_dir("dir"));
    fs::write(bench.at("edited"), "edited").unwrap();
    let other = bench.put("other", "other");
    bench.put("dir/inner", "inner");
    symlink("dir", bench.at("way")).unwrap();
    let gone = Facts { inode: 1, ..edited };
    let before = bench.tree();
    let make_dir =
        |name| Apply::MakeDir { path: path(name), mode: 0o750, modified: MODIFIED, xattrs: Xattrs::default() };
    for op in [
        make_dir("edited"),
        make_dir("dir"),
        make_dir("nowhere/dir"),
        make_dir("way/dir"),
        make_dir("edited/dir"),
        link_at("edited", None),
        link_at("edited", Some(edited)),
        link_at("gone", Some(gone)),
        publish_at("edited", None),
        publish_at("edited", Some(edited)),
        publish_at("gone", Some(gone)),
        publish_at("dir", Some(dir)),
        link_at("dir", Some(dir)),
        rename("other", "dir", other, Some(dir)),
        publish_at("nowhere/file", None),
        publish_at("way/file", None),
        Apply::Remove { path: path("edited"), expect: edited },
        Apply::Remove { path: path("gone"), expect: gone },
        Apply::Remove { path: path("dir"), expect: gone },
        Apply::Remove { path: path("dir"), expect: dir },
        rename("edited", "new", edited, None),
        rename("other", "edited", other, None),
        rename("other", "edited", other, Some(edited)),
        rename("gone", "new", gone, None),
        rename("other", "nowhere/new", other, None),
        attributes("edited", Some(edited)),
        attributes("edited", None),
        attributes("gone", Some(gone)),
    ] {
        assert_eq!(bench.apply(op.clone()), Err(ApplyError::Changed), "{op:?}");
        assert_eq!(bench.tree(), before, "{op:?}");
    }
}

#[test]
fn the_private_place_is_out_of_reach() {
    let bench = Bench::new();
    let file = bench.put("file", "bytes");
    fs::create_dir(bench.at(".farshore")).unwrap();
    let secret = bench.put(".farshore/secret", "secret");
    for op in [
        Apply::MakeDir { path: path(".farshore/dir"), mode: 0o755, modified: MODIFIED, xattrs: Xattrs::default() },
        publish_at(".farshore", None),
        rename("file", ".farshore/file", file, None),
        rename(".farshore/secret", "secret", secret, None),
        Apply::Remove { path: path(".farshore/secret"), expect: secret },
        attributes(".farshore", None),
    ] {
        assert_eq!(bench.apply(op.clone()), Err(ApplyError::Io), "{op:?}");
    }
    assert!(bench.at(".farshore/secret").exists() && bench.at("file").exists());
    // The same name elsewhere is a name like any other.
    bench.make_dir("dir");
    assert!(bench.apply(publish_at("dir/.farshore", None)).is_ok());
}

/// A file system that is mounted in the folder: nothing can be moved between the two.
#[test]
fn what_is_on_another_file_system_is_trouble_and_stays() {
    let bench = Bench::new();
    let is_elsewhere = |path: &Path| fs::metadata(path).unwrap().dev() != fs::metadata(bench.dir.path()).unwrap().dev();
    let mounted = tempfile::tempdir_in("/dev/shm").ok().filter(|mounted| is_elsewhere(mounted.path()));
    // The machine has one file system only.
    let Some(mounted) = mounted else { return };
    fs::write(mounted.path().join("file"), "there").unwrap();
    let open = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    };
    let (name, other) = (Name::new(b"file").unwrap(), Name::new(b"other").unwrap());
    let there = Place { directory: open(mounted.path()), name: &name };
    bench.put("other", "here");
    let here = Place { directory: open(bench.dir.path()), name: &other };
    let (file, before) = (there.stat().unwrap(), here.stat().unwrap());
    let trouble = Refusal::Disk(Errno::XDEV);
    let applier = &bench.applier;
    assert_eq!(applier.remove(&there, &file), Err(trouble));
    assert_eq!(applier.rename(&here, &before, &there, Some(&file)), Err(trouble));
    let item = || {
        let item = applier.aside.item(&applier.beneath).unwrap();
        fs::write(bench.at(".farshore/applying").join(item.name()), "new").unwrap();
        item.made()
    };
    let wanted = || Attributes { mode: Some(0o600), modified: MODIFIED, xattrs: None };
    assert_eq!(applier.put(item(), wanted(), &there, Some(facts(&file))).err(), Some(trouble));
    fs::remove_file(mounted.path().join("file")).unwrap();
    assert_eq!(applier.put(item(), wanted(), &there, None).err(), Some(trouble));
    assert_eq!(applier.rename(&here, &before, &there, None), Err(trouble));
    assert_eq!(fs::read(bench.at("other")).unwrap(), b"here");
    // What leads out of the folder is another matter.
    assert_eq!(Refusal::of_opening(Errno::XDEV), Refusal::Changed);
}

type Damage = fn(&Path);

/// What a program may do to a file, by its path. Each leaves these bytes behind.
const ACTS: [(&str, Damage); 4] = [
    ("edits it", |path| fs::write(path, "mine").unwrap()),
    ("puts another one in its place", |path| {
        fs::write(path.with_extension("tmp"), "mine").unwrap();
        fs::rename(path.with_extension("tmp"), path).unwrap();
    }),
    ("renames it", |path| {
        if path.exists() {
            fs::write(path, "mine").unwrap();
            fs::rename(path, path.with_extension("mine")).unwrap();
        } else {
            fs::write(path.with_extension("mine"), "mine").unwrap();
        }
    }),
    ("makes one anew", |path| {
        _ = fs::remove_file(path);
        fs::write(path, "mine").unwrap();
    }),
];

/// In whatever moment a program does something: what it has written is there, and the engine will notice.
#[test]
fn what_a_program_does_meanwhile_is_never_lost() {
    type Make = fn(&Bench) -> Apply;
    let ops: [(&str, Make); 9] = [
        ("publish", |_| publish_at("file", None)),
        ("publish over", |bench| publish_at("file", Some(bench.put("file", "old")))),
        ("link over", |bench| link_at("file", Some(bench.put("file", "old")))),
        ("remove", |bench| Apply::Remove { path: path("file"), expect: bench.put("file", "old") }),
        ("rename", |bench| rename("file", "new", bench.put("file", "old"), None)),
        ("rename over", |bench| {
            let over = bench.put("new", "over");
            rename("file", "new", bench.put("file", "old"), Some(over))
        }),
        ("keep a copy", |bench| {
            let expect = bench.put("file", "old");
            Apply::KeepCopy { path: path("file"), to: path("new"), expect, unless: Some(ContentId(1)) }
        }),
        ("attributes", |bench| attributes("file", Some(bench.put("file", "old")))),
        ("empty", |_| Apply::Publish {
            path: path("file"),
            content: None,
            mode: 0o600,
            modified: MODIFIED,
            xattrs: Xattrs::default(),
            expect: None,
        }),
    ];
    for (name, op) in ops {
        for (doing, act) in ACTS {
            let mut moment = 0;
            loop {
                let bench = Bench::new();
                let op = op(&bench);
                let target = op.target().to_string();
                let (done, had_moment) = bench.apply_with(op, moment, act);
                if !had_moment {
                    assert!(moment > 0, "{name}: a program never had a moment");
                    break;
                }
                let what = format!("{name}: in moment {moment} a program {doing}: {done:?}, {:?}", bench.tree());
                assert!(bench.holds("mine"), "{what}");
                // What was made is what the engine believes, or it looks again.
                if let (Ok(believed), Ok(there)) = (done, rustix::fs::lstat(bench.at(&target))) {
                    let is_file = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile;
                    let is_mine = is_file && fs::read(bench.at(&target)).unwrap() == b"mine";
                    assert!(!is_mine || believed != facts(&there), "{what}");
                }
                moment += 1;
            }
        }
    }
}

#[test]
fn a_file_of_the_store_is_published_without_being_copied_and_read_on() {
    let bench = Bench::new();
    let store = DiskStore::open(bench.dir.path()).unwrap();
    let script = b"#!/bin/sh\nexit 7\n";
    let stored = whole(&store, 1, script);
    let inode = stored.file().unwrap().metadata().unwrap().ino();
    let contents = Contents::from([(ContentId(1), stored.clone())]);
    let op = Apply::Publish {
        path: path("script"),
        content: Some(ContentId(1)),
        mode: 0o755,
        modified: MODIFIED,
        xattrs: Xattrs::default(),
        expect: Some(bench.put("script", "old")),
    };
    is_made(&bench, "script", bench.apply_all(vec![op], &contents).remove(0), 0o755);
    assert_eq!(bench.facts("script").inode, inode);
    assert_eq!(bench.at("script").metadata().unwrap().nlink(), 1);
    assert_eq!(std::process::Command::new(bench.at("script")).status().unwrap().code(), Some(7));
    fs::rename(bench.at("script"), bench.at("elsewhere")).unwrap();
    let mut bytes = vec![0; script.len()];
    stored.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, script);
    // Once more, as long as nobody has written to it.
    let once_more = || bench.apply_all(vec![publish_at("once more", None)], &contents).remove(0);
    is_made(&bench, "once more", once_more(), 0o640);
    assert_ne!(bench.facts("once more").inode, inode);
    fs::remove_file(bench.at("once more")).unwrap();
    fs::write(bench.at("elsewhere"), b"#!/bin/sh\nexit 8\n").unwrap();
    assert_eq!(once_more(), Err(ApplyError::Io));
    drop((stored, contents));
    assert_eq!(store.held(), []);
    assert_eq!(fs::read_dir(bench.at(".farshore/partial")).unwrap().count(), 0);
}

#[test]
fn what_was_refused_stays_in_the_store() {
    let bench = Bench::new();
    let store = DiskStore::open(bench.dir.path()).unwrap();
    let contents = Contents::from([(ContentId(1), whole(&store, 1, NEW.as_bytes()))]);
    bench.put("file", "mine");
    assert_eq!(bench.apply_all(vec![publish_at("file", None)], &contents), [Err(ApplyError::Changed)]);
    let partial = fs::read_dir(bench.at(".farshore/partial")).unwrap().next().unwrap().unwrap();
    assert_eq!(partial.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(bench.at("file")).unwrap();
    is_made(&bench, "file", bench.apply_all(vec![publish_at("file", None)], &contents).remove(0), 0o640);
}

#[test]
fn many_files_are_published_in_one_batch() {
    let bench = Bench::new();
    let store = DiskStore::open(bench.dir.path()).unwrap();
    let bytes = |number: u64| sample(number, 100 + number);
    let numbers = 1..=3 * ONE_BY_ONE as u64;
    let contents = numbers.clone().map(|number| (ContentId(number), whole(&store, number, &bytes(number)))).collect();
    let publish = |number: u64| Apply::Publish {
        path: path(&number.to_string()),
        content: Some(ContentId(number)),
        mode: 0o644,
        modified: MODIFIED,
        xattrs: Xattrs::default(),
        expect: None,
    };
    let done = bench.apply_all(numbers.clone().map(publish).collect(), &contents);
    for (number, done) in numbers.zip(done) {
        is_made(&bench, &number.to_string(), done, 0o644);
        assert_eq!(fs::read(bench.at(&number.to_string())).unwrap(), bytes(number));
    }
}

/// Otherwise that would be a change of ours, which is told to everybody.
#[test]
fn a_directory_has_its_time_in_the_end_whatever_is_done_in_it() {
    let bench = Bench::new();
    bench.make_dir("there");
    bench.make_dir("as it was");
    bench.put("as it was/file", "bytes");
    let expect = bench.facts("as it was/file");
    // The private place is made once.
    drop(bench.applier.aside.item(&bench.applier.beneath));
    let times = || ["", "as it was"].map(|name| bench.at(name).metadata().unwrap().modified().unwrap());
    let before = times();
    let make_dir =
        |name| Apply::MakeDir { path: path(name), mode: 0o755, modified: MODIFIED, xattrs: Xattrs::default() };
    let ops = vec![
        Apply::Remove { path: path("as it was/file"), expect },
        make_dir("dir"),
        make_dir("dir/inner"),
        publish_at("dir/inner/file", None),
        attributes("there", None),
        link_at("there/link", None),
        attributes("there/link", None),
    ];
    let done = bench.apply_all(ops, &contents());
    assert_eq!(done.last(), Some(&Err(ApplyError::Changed)), "it is no directory");
    assert_eq!(times(), before);
    for name in ["dir", "dir/inner", "there"] {
        let meta = bench.at(name).metadata().unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (MODIFIED.seconds, MODIFIED.nanos.into()), "{name}");
    }
}

#[test]
fn a_store_on_another_disk_is_copied_from() {
    // On most machines this is another file system; where it is not, the law holds all the same.
    let elsewhere = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (bench, store) = (Bench::new(), DiskStore::open(elsewhere.path()).unwrap());
    let contents = Contents::from([(ContentId(1), whole(&store, 1, NEW.as_bytes()))]);
    is_made(&bench, "file", bench.apply_all(vec![publish_at("file", None)], &contents).remove(0), 0o640);
    assert!(bench.holds(NEW));
    drop(contents);
    assert_eq!(fs::read_dir(elsewhere.path().join(".farshore/partial")).unwrap().count(), 0);
}

/// All that is under `user.` at a name.
fn xattrs(bench: &Bench, name: &str) -> Xattrs {
    read_in(bench.applier.beneath.root(), name).unwrap_or_default()
}

#[test]
fn extended_attributes_are_there_before_a_name_is_and_replace_what_was_there() {
    let bench = Bench::new();
    let one = Xattrs::default().with(b"user.a", b"1").with(b"user.b", &[0; 300]);
    let publish = |xattrs: &Xattrs, content, expect| Apply::Publish {
        path: path("file"),
        content,
        // Nobody may write it, not even its owner.
        mode: 0o400,
        modified: MODIFIED,
        xattrs: xattrs.clone(),
        expect,
    };
    is_made(&bench, "file", bench.apply(publish(&one, Some(ContentId(1)), None)), 0o400);
    if xattrs(&bench, "file").is_empty() {
        return eprintln!("skipped: {} has no extended attributes", bench.dir.path().display());
    }
    assert_eq!(xattrs(&bench, "file"), one);
    is_made(&bench, "file", bench.apply(publish(&Xattrs::default(), None, Some(bench.facts("file")))), 0o400);
    assert_eq!(xattrs(&bench, "file"), Xattrs::default(), "it is another file");

    let two = Xattrs::default().with(b"user.b", b"2").with(b"user.c", b"");
    let dir = Apply::MakeDir { path: path("dir"), mode: 0o550, modified: MODIFIED, xattrs: one.clone() };
    is_made(&bench, "dir", bench.apply(dir), 0o550);
    assert_eq!(xattrs(&bench, "dir"), one);
    for name in ["file", "dir"] {
        let set = |xattrs| Apply::SetAttributes {
            path: path(name),
            mode: 0o500,
            modified: MODIFIED,
            xattrs,
            expect: Some(bench.facts(name)),
        };
        is_made(&bench, name, bench.apply(set(Some(two.clone()))), 0o500);
        assert_eq!(xattrs(&bench, name), two);
        is_made(&bench, name, bench.apply(set(None)), 0o500);
        assert_eq!(xattrs(&bench, name), two, "they stay");
    }
    let before = bench.facts("file");
    rustix::fs::setxattr(bench.at("file"), "user.mine", b"", XattrFlags::empty()).unwrap();
    let late = Apply::SetAttributes {
        path: path("file"),
        mode: 0o500,
        modified: MODIFIED,
        xattrs: Some(one),
        expect: Some(before),
    };
    assert_eq!(bench.apply(late), Err(ApplyError::Changed), "somebody has set one meanwhile");
    assert_eq!(xattrs(&bench, "file"), two.with(b"user.mine", b""));
}

#[test]
fn set_id_bits_are_not_taken_from_peers_and_stay_where_they_are() {
    let bench = Bench::new();
    let published = Apply::Publish {
        path: path("file"),
        content: None,
        mode: 0o6755,
        modified: MODIFIED,
        xattrs: Xattrs::default(),
        expect: None,
    };
    is_made(&bench, "file", bench.apply(published), 0o755);
    fs::set_permissions(bench.at("file"), fs::Permissions::from_mode(0o4755)).unwrap();
    let op = Apply::SetAttributes {
        path: path("file"),
        mode: 0o2711,
        modified: MODIFIED,
        xattrs: None,
        expect: Some(bench.facts("file")),
    };
    is_made(&bench, "file", bench.apply(op), 0o4711);
}

/// It would be tried again at once, and for ever, if it were said that something has changed.
#[test]
fn a_directory_that_holds_what_is_not_shared_is_tried_again_later() {
    let bench = Bench::new();
    let expect = bench.make_dir("dir");
    let pipe = bench.at("dir/pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let remove = || bench.apply(Apply::Remove { path: path("dir"), expect });
    assert_eq!(remove(), Err(ApplyError::Io));
    fs::remove_file(pipe).unwrap();
    assert!(remove().is_ok() && !bench.at("dir").exists());
}

/// What an earlier process left behind when it was killed goes, and what was not given away stays.
#[test]
fn what_a_killed_process_left_behind_is_removed_at_the_next_start() {
    let bench = Bench::new();
    let store = DiskStore::open(bench.dir.path()).unwrap();
    let (given, waiting) = (whole(&store, 1, NEW.as_bytes()), whole(&store, 2, b"other bytes"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.save(vec![given.clone(), waiting.clone()])).unwrap();
    let beneath = Beneath::open(bench.dir.path()).unwrap();
    for stored in [&given, &waiting] {
        let item = bench.applier.aside.item(&beneath).unwrap();
        stored.lend(item.directory(), item.name()).unwrap();
    }
    fs::rename(bench.at(".farshore/applying/0"), bench.at("file")).unwrap();
    fs::create_dir(bench.at(".farshore/applying/dir")).unwrap();
    symlink("nowhere", bench.at(".farshore/applying/link")).unwrap();
    drop((given, waiting, store));
    let store = DiskStore::open(bench.dir.path()).unwrap();
    assert_eq!(fs::read_dir(bench.at(".farshore/applying")).unwrap().count(), 0);
    let held: Vec<_> = store.held().into_iter().map(|held| held.key).collect();
    assert_eq!(held, [identity(2, 11).key()], "what has a name in the folder is not the store's to write to");
    assert!(bench.holds(NEW));
}

#[test]
fn what_was_made_is_seen_as_it_was_told() {
    let bench = Bench::new();
    let done = bench.apply(publish_at("file", None)).unwrap();
    let seen = look_in(bench.applier.beneath.root(), "file");
    let Sight::There(there) = seen else { panic!("{seen:?}") };
    assert_eq!(there.seen.facts, done);
}
