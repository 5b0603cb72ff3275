//! Listings of one's own folder that the kernel remembers: they are those of this moment all the same.

use crate::far::Halves;
use crate::fixture::eventually;
use farshore::fuse::Operation;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, RawDir};
use std::fs;
use std::mem::MaybeUninit;

/// How often the kernel has asked for names.
fn asked(halves: &Halves) -> u64 {
    [Operation::Readdir, Operation::Readdirplus].map(|operation| halves.stats().operation(operation).count).iter().sum()
}

/// Waits until a directory is listed from memory.
fn remembered(halves: &Halves, dir: &str) {
    eventually("it is listed from memory", || {
        let before = asked(halves);
        halves.list(dir);
        asked(halves) == before
    });
}

#[test]
fn a_directory_that_stays_as_it_is_is_listed_from_memory() {
    let Some(halves) = Halves::new() else { return };
    fs::create_dir(halves.there("dir")).unwrap();
    for number in 0..1000 {
        fs::write(halves.there(&format!("dir/near {number:04}")), "").unwrap();
        halves.far.put(&format!("dir/far {number:04}"), b"far");
    }
    remembered(&halves, "dir");
    let before = asked(&halves);
    for _ in 0..10 {
        assert_eq!(halves.list("dir").len(), 2000);
    }
    assert_eq!(asked(&halves), before);
}

#[test]
fn whatever_changes_is_in_the_next_listing() {
    let Some(halves) = Halves::new() else { return };
    let far = &halves.far;
    fs::create_dir(halves.there("dir")).unwrap();
    fs::write(halves.there("dir/b"), "here").unwrap();
    let changes: [(&dyn Fn(), &[&str]); 8] = [
        (&|| fs::write(halves.there("dir/a"), "past the mount").unwrap(), &["a", "b"]),
        (&|| fs::write(halves.here("dir/c"), "on the mount").unwrap(), &["a", "b", "c"]),
        (&|| fs::remove_file(halves.there("dir/a")).unwrap(), &["b", "c"]),
        (&|| far.put_unheard("dir/z", b"far"), &["b", "c", "z"]),
        (&|| far.come("dir/z"), &["b", "c", "z"]),
        (&|| fs::rename(halves.there("dir/z"), halves.there("dir/y")).unwrap(), &["b", "c", "y"]),
        (&|| far.put("dir/x", b"far"), &["b", "c", "x", "y"]),
        (&|| far.remove("dir/x"), &["b", "c", "y"]),
    ];
    for (change, names) in changes {
        remembered(&halves, "dir");
        change();
        assert_eq!(halves.list("dir"), names);
        assert_eq!(halves.list("dir"), names);
    }
}

/// The names that are read at once where a listing stands, with room for a few.
fn next_names(dir: impl AsFd) -> Vec<String> {
    let (mut room, mut names) = ([MaybeUninit::uninit(); 1000], Vec::new());
    let mut listing = RawDir::new(dir, &mut room);
    while let Some(entry) = listing.next() {
        names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        if listing.is_buffer_empty() {
            break;
        }
    }
    names
}

#[test]
fn a_listing_goes_on_though_others_list_and_remove() {
    let Some(halves) = Halves::new() else { return };
    for number in 0..500 {
        fs::write(halves.there(&format!("file {number:04}")), "").unwrap();
    }
    remembered(&halves, "");
    let open = || rustix::fs::open(halves.root(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let read = |dir: OwnedFd| std::iter::repeat_with(move || next_names(&dir)).take_while(|names| !names.is_empty());
    let order: Vec<String> = read(open()).flatten().collect();
    let (mut listed, mut removed) = (Vec::<String>::new(), Vec::<String>::new());
    for names in read(open()) {
        listed.extend(names);
        // The one that would come next goes, and other programs see that.
        if let Some(next) = order.get(listed.len() + removed.len()).filter(|next| next.starts_with("file")) {
            fs::remove_file(halves.here(next)).unwrap();
            removed.push(next.clone());
        }
        halves.list("");
        halves.list("");
    }
    let [listed, expected] = [listed, order].map(|mut names| {
        names.retain(|name| !removed.contains(name));
        names
    });
    assert!(listed == expected && removed.len() > 10, "{listed:?} without {removed:?}");
}
