//! Looks that somebody has asked for, and the place that nobody looks at.

use super::*;

impl Heard {
    /// How often it was told that something is at a path, and how often that nothing is.
    fn told(&self, of: &str) -> (usize, usize) {
        let count = |is_it: &dyn Fn(&Observation) -> bool| self.log.iter().filter(|(_, told)| is_it(told)).count();
        let of = path(of);
        let found = count(&|told| matches!(told, Observation::Found { path, .. } if *path == of));
        (found, count(&|told| matches!(told, Observation::Missing { path } if *path == of)))
    }
}

fn inode(path: &Path) -> u64 {
    path.symlink_metadata().unwrap().ino()
}

#[test]
fn who_asks_is_told_what_is_there_also_if_that_is_nothing() {
    let rig = Rig::with(|rig| rig.write("file", b"1"));
    let recheck = rig.watcher.as_ref().unwrap().recheck();
    recheck.look_and_tell(&path("file"), None);
    rig.wait("the file is told again", |heard| heard.told("file") == (2, 0));
    // Neither it nor its directory was ever there.
    recheck.look_and_tell(&path("nowhere/file"), None);
    rig.wait("that nothing is there is told", |heard| heard.told("nowhere/file") == (0, 1));
}

#[test]
fn a_directory_is_told_with_all_that_it_holds_unless_it_is_the_one_that_is_known() {
    let rig = Rig::with(|rig| {
        rig.mkdir("dir");
        rig.write("dir/inner", b"1");
    });
    let recheck = rig.watcher.as_ref().unwrap().recheck();
    recheck.look_and_tell(&path("dir"), Some(inode(&rig.at("dir"))));
    rig.wait("it is told", |heard| heard.told("dir") == (2, 0));
    for (known, times) in [(None, 2), (Some(1), 3)] {
        recheck.look_and_tell(&path("dir"), known);
        rig.wait("what it holds is told", |heard| heard.told("dir/inner") == (times, 0));
    }
    rig.settle();
}

#[test]
fn what_happens_in_the_private_place_is_not_told() {
    let rig = Rig::beside(Some("private"), |rig| {
        rig.mkdir("private/inner");
        rig.mkdir("other/private");
    });
    let known = |heard: &Heard| -> Vec<String> { heard.tree.keys().map(ToString::to_string).collect() };
    assert_eq!(known(&rig.heard.0.lock().unwrap()), ["other", "other/private"]);
    rig.write("private/inner/file", b"1");
    fs::remove_dir_all(rig.at("private")).unwrap();
    rig.mkdir("private");
    rig.rename("private", "shown");
    rig.write("last", b"1");
    rig.wait("what came last is told", |heard| heard.told("last") == (1, 0));
    assert_eq!(known(&rig.heard.0.lock().unwrap()), ["last", "other", "other/private", "shown"]);
    rig.rename("shown", "private");
    rig.wait("it is gone for everybody else", |heard| heard.told("shown").1 > 0);
    assert_eq!(rig.heard.0.lock().unwrap().told("private"), (0, 0));
}
