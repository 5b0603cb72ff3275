//! How much is kept of what was fetched, and what goes first.

use crate::CHUNK;
use core::time::Duration;
use farshore_engine::testing::{Hand, Pair, Spoil, World, path};
use farshore_engine::*;

const FILES: [(&str, u64); 4] = [("a", 2 * CHUNK), ("b", 2 * CHUNK), ("c", 2 * CHUNK), ("dir/d", 2 * CHUNK)];

fn with_cache(chunks: u64) -> Pair {
    Pair::with(Config { cache_bytes: Some(chunks * CHUNK), ..Config::default() }, &FILES)
}

/// Opens, reads whole and closes.
fn use_file(pair: &mut Pair, file: &str) {
    let handle = pair.open(file);
    let bytes = pair.read_now(handle, 0, 2 * CHUNK as u32).unwrap();
    assert!(bytes == pair.owner_bytes(file));
    pair.drive();
    pair.release(Pair::FOLLOWER, handle).unwrap();
    pair.drive();
}

fn stored(world: &World) -> Vec<String> {
    let view = world.hosts[Pair::FOLLOWER].engine.view();
    let contents = view.contents().filter(|content| content.stored_bytes > 0).map(|content| content.path.to_string());
    let mut paths: Vec<String> = contents.chain(view.held().map(|held| held.path.to_string())).collect();
    paths.sort();
    paths
}

fn fetched(pair: &Pair) -> u64 {
    pair.hosts[Pair::FOLLOWER].engine.view().totals().fetched_bytes
}

fn ask(pair: &mut Pair, request: Request) -> Result<Reply, Errno> {
    pair.ask_now(Pair::FOLLOWER, request)
}

#[test]
fn what_was_used_least_recently_goes_first() {
    let mut pair = with_cache(4);
    for file in ["a", "b", "a", "c"] {
        use_file(&mut pair, file);
    }
    assert_eq!(stored(&pair), ["a", "c"]);
    use_file(&mut pair, "b");
    assert_eq!(stored(&pair), ["b", "c"]);
    pair.settle();
}

#[test]
fn what_is_open_stays_and_goes_when_it_is_closed() {
    let mut pair = with_cache(1);
    let handle = pair.open("a");
    pair.read_now(handle, 0, 2 * CHUNK as u32).unwrap();
    pair.drive();
    use_file(&mut pair, "b");
    assert_eq!(stored(&pair), ["a"]);
    assert!(pair.read_now(handle, 5, 100).unwrap() == pair.owner_bytes("a")[5..105]);
    pair.release(Pair::FOLLOWER, handle).unwrap();
    assert!(stored(&pair).is_empty());
    pair.settle();
}

#[test]
fn what_is_pinned_stays_and_is_fetched() {
    let mut pair = with_cache(2);
    assert_eq!(ask(&mut pair, Request::Pin { path: path("dir") }), Ok(Reply::Pinned));
    pair.drive();
    assert_eq!(stored(&pair), ["dir/d"]);
    for file in ["a", "b", "c"] {
        use_file(&mut pair, file);
    }
    assert_eq!(stored(&pair), ["dir/d"]);
    pair.cut();
    use_file(&mut pair, "dir/d");
    pair.heal();
    assert_eq!(ask(&mut pair, Request::Unpin { path: path("dir") }), Ok(Reply::Unpinned));
    assert_eq!(ask(&mut pair, Request::Unpin { path: path("dir") }), Err(Errno::NoEntry));
    use_file(&mut pair, "a");
    assert_eq!(stored(&pair), ["a"]);
    pair.settle();
}

#[test]
fn what_is_new_below_a_pin_or_edited_is_fetched_too() {
    let mut pair = Pair::new(&FILES);
    ask(&mut pair, Request::Pin { path: path("dir") }).unwrap();
    pair.drive();
    pair.create("dir/new", 3 * CHUNK);
    pair.edit("dir/d", 4 * CHUNK);
    pair.drive();
    pair.drive_for(Duration::from_secs(1));
    let view = pair.hosts[Pair::FOLLOWER].engine.view();
    let whole = |content: &view::ContentView| content.have_chunks == content.total_chunks;
    assert_eq!(view.contents().filter(whole).map(|content| content.total_chunks).collect::<Vec<_>>(), [3, 4]);
    pair.rename("dir", "elsewhere");
    pair.drive();
    let pins: Vec<_> = pair.hosts[Pair::FOLLOWER].engine.view().pins().cloned().collect();
    assert_eq!(pins, [path("elsewhere")], "a pin goes with what it is on");
    pair.settle();
}

#[test]
fn a_pin_outlives_the_process_and_a_download_that_it_began_goes_on() {
    let mut pair = Pair::new(&[("a", 40 * CHUNK)]);
    ask(&mut pair, Request::Pin { path: path("a") }).unwrap();
    pair.drive_for(Duration::from_millis(20));
    pair.cut();
    pair.drive_for(Duration::from_secs(2));
    pair.restart_follower(Pair::FOLLOWER, true);
    pair.heal();
    pair.drive_for(Duration::from_secs(30));
    let view = pair.hosts[Pair::FOLLOWER].engine.view();
    let ino = view.resolve(&path("a")).unwrap();
    assert_eq!(view.content(ino).unwrap().have_chunks, 40);
    pair.settle();
}

#[test]
fn evicting_lets_go_of_what_may_go_and_says_what_stays() {
    let mut pair = Pair::new(&FILES);
    for (file, _) in FILES {
        use_file(&mut pair, file);
    }
    let handle = pair.open("a");
    ask(&mut pair, Request::Pin { path: path("b") }).unwrap();
    let evicted = ask(&mut pair, Request::Evict { path: path("") });
    assert_eq!(evicted, Ok(Reply::Evicted { files: 2, kept_files: 2, freed_bytes: 4 * CHUNK }));
    assert_eq!(stored(&pair), ["a", "b"]);
    assert_eq!(ask(&mut pair, Request::Evict { path: path("nothing") }), Err(Errno::NoEntry));
    pair.release(Pair::FOLLOWER, handle).unwrap();
    pair.settle();
}

#[test]
fn what_was_kept_from_an_earlier_life_counts_and_goes_first() {
    let mut pair = with_cache(4);
    use_file(&mut pair, "a");
    use_file(&mut pair, "b");
    pair.restart_follower(Pair::FOLLOWER, true);
    let listed = |world: &World| world.hosts[Pair::FOLLOWER].engine.view().peers().any(|peer| peer.listed);
    assert!(pair.drive_bounded(Duration::from_secs(60), listed));
    assert_eq!(stored(&pair), ["a", "b"]);
    use_file(&mut pair, "b");
    use_file(&mut pair, "c");
    assert_eq!(stored(&pair), ["b", "c"]);
    pair.settle();
}

#[test]
fn what_the_owner_has_no_more_does_not_stay() {
    let mut pair = Pair::new(&FILES);
    use_file(&mut pair, "a");
    use_file(&mut pair, "b");
    pair.cut();
    pair.remove("a");
    pair.restart_follower(Pair::FOLLOWER, true);
    pair.heal();
    let listed = |world: &World| world.hosts[Pair::FOLLOWER].engine.view().peers().any(|peer| peer.listed);
    assert!(pair.drive_bounded(Duration::from_secs(60), listed));
    assert_eq!(stored(&pair), ["b"], "found gone when it came back");
    pair.remove("b");
    pair.drive();
    assert!(stored(&pair).is_empty(), "removed while nobody had asked for it");
    pair.settle();
}

#[test]
fn what_was_kept_of_a_file_that_is_empty_now_does_not_stay() {
    let mut pair = Pair::new(&FILES);
    ask(&mut pair, Request::Pin { path: path("dir") }).unwrap();
    pair.drive();
    assert_eq!(stored(&pair), ["dir/d"]);
    pair.cut();
    pair.edit("dir/d", 0);
    pair.restart_follower(Pair::FOLLOWER, true);
    pair.heal();
    let listed = |world: &World| world.hosts[Pair::FOLLOWER].engine.view().peers().any(|peer| peer.listed);
    assert!(pair.drive_bounded(Duration::from_secs(60), listed));
    assert!(stored(&pair).is_empty(), "no version of it has anything in common with it");
    pair.settle();
}

#[test]
fn what_has_lost_its_pinned_name_does_not_stay() {
    let mut pair = with_cache(1);
    ask(&mut pair, Request::Pin { path: path("dir/d") }).unwrap();
    let handle = pair.open("dir/d");
    pair.drive();
    pair.rename("c", "dir/d");
    pair.drive();
    // The kernel still knows what had the name before.
    pair.release(Pair::FOLLOWER, handle).unwrap();
    use_file(&mut pair, "a");
    let stored_bytes = pair.hosts[Pair::FOLLOWER].engine.view().stored_bytes();
    assert_eq!(stored_bytes, 2 * CHUNK, "what has the name now");
    assert!(stored(&pair) == ["dir/d"]);
    pair.settle();
}

#[test]
fn what_is_renamed_to_below_a_pin_is_fetched() {
    let mut pair = Pair::new(&FILES);
    pair.create("other/e", 3 * CHUNK);
    ask(&mut pair, Request::Pin { path: path("dir") }).unwrap();
    pair.drive();
    pair.rename("a", "dir/a");
    pair.rename("other", "dir/other");
    pair.drive();
    pair.drive_for(Duration::from_secs(1));
    assert_eq!(stored(&pair), ["dir/a", "dir/d", "dir/other/e"]);
    pair.settle();
}

#[test]
fn a_full_disk_has_room_when_something_may_go() {
    let mut pair = Pair::new(&FILES);
    use_file(&mut pair, "a");
    pair.hosts[Pair::FOLLOWER].store_faults = Some((StoreError::NoSpace, 1));
    use_file(&mut pair, "b");
    assert_eq!(stored(&pair), ["b"]);
    pair.settle();
}

#[test]
fn a_file_is_fetched_whole_when_it_is_opened_if_that_is_wanted() {
    let config = Config { prefetch_on_open: true, max_prefetches: 2, ..Config::default() };
    let names: Vec<String> = (0..5).map(|index| format!("f{index}")).collect();
    let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 30 * CHUNK)).collect();
    let mut pair = Pair::with(config, &files);
    let handles: Vec<Handle> = names.iter().map(|name| pair.open(name)).collect();
    let active = |world: &World| {
        let view = world.hosts[Pair::FOLLOWER].engine.view();
        view.contents().filter(|content| content.open_chunks > 0).count()
    };
    let mut most = 0;
    assert!(pair.drive_bounded(Duration::from_secs(60), |world| {
        most = most.max(active(world));
        let view = world.hosts[Pair::FOLLOWER].engine.view();
        view.contents().filter(|content| content.have_chunks == 30).count() == 5
    }));
    assert_eq!(most, 2, "so many at once");
    for handle in handles {
        pair.release(Pair::FOLLOWER, handle).unwrap();
    }
    pair.settle();
}

#[test]
fn fetching_whole_at_open_ends_with_the_last_close() {
    let config = Config { prefetch_on_open: true, ..Config::default() };
    let mut pair = Pair::with(config, &[("a", 400 * CHUNK)]);
    let handle = pair.open("a");
    pair.drive_for(Duration::from_millis(10));
    pair.release(Pair::FOLLOWER, handle).unwrap();
    pair.drive();
    let view = pair.hosts[Pair::FOLLOWER].engine.view();
    assert!(view.contents().all(|content| content.have_chunks < 400 && content.open_chunks == 0));
    assert_eq!(pair.hosts[Pair::FOLLOWER].store.frames_held(), 0);
}

#[test]
fn a_pin_keeps_what_the_owner_renames() {
    let mut pair = with_cache(2);
    ask(&mut pair, Request::Pin { path: path("dir") }).unwrap();
    pair.drive();
    pair.rename("dir", "elsewhere");
    pair.drive();
    use_file(&mut pair, "a");
    assert_eq!(stored(&pair), ["elsewhere/d"]);
    let fetched = fetched(&pair);
    pair.restart_follower(Pair::FOLLOWER, true);
    pair.drive_for(Duration::from_secs(30));
    assert_eq!(stored(&pair), ["elsewhere/d"]);
    assert_eq!((self::fetched(&pair), fetched > 0), (0, true), "nothing had to come again");
    pair.settle();
}

#[test]
fn what_is_renamed_into_a_pinned_directory_is_fetched() {
    let mut pair = Pair::new(&FILES);
    ask(&mut pair, Request::Pin { path: path("dir") }).unwrap();
    pair.drive();
    pair.rename("a", "dir/a");
    pair.drive();
    assert_eq!(stored(&pair), ["dir/a", "dir/d"]);
    pair.settle();
}

#[test]
fn a_file_that_was_renamed_is_found_after_a_restart_though_another_took_its_name() {
    // Also if the rename happened while nobody looked.
    for while_away in [false, true] {
        let mut pair = Pair::new(&FILES);
        use_file(&mut pair, "a");
        pair.drive_for(Duration::from_secs(3));
        if while_away {
            pair.cut();
        }
        pair.rename("a", "a2");
        pair.create("a", 2 * CHUNK);
        pair.drive_for(Duration::from_secs(3));
        pair.restart_follower(Pair::FOLLOWER, true);
        pair.heal();
        let listed = |world: &World| world.hosts[Pair::FOLLOWER].engine.view().peers().any(|peer| peer.listed);
        assert!(pair.drive_bounded(Duration::from_secs(60), listed));
        use_file(&mut pair, "a");
        let before = fetched(&pair);
        use_file(&mut pair, "a2");
        assert_eq!(fetched(&pair), before, "it was here, while away: {while_away}");
        pair.settle();
    }
}

#[test]
fn a_full_disk_lets_no_more_go_than_is_needed() {
    let names: Vec<String> = (0..40).map(|index| format!("f{index:02}")).collect();
    let mut files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 4 * CHUNK)).collect();
    files.push(("large", 40 * CHUNK));
    let mut pair = Pair::with(Config { ahead_bytes: 64 << 20, ..Config::default() }, &files);
    for name in &names {
        let handle = pair.open(name);
        pair.fetch_all(Pair::FOLLOWER, handle);
        pair.drive();
        pair.release(Pair::FOLLOWER, handle).unwrap();
    }
    pair.drive();
    assert_eq!(stored(&pair).len(), 40);
    pair.hosts[Pair::FOLLOWER].store_faults = Some((StoreError::NoSpace, 30));
    let handle = pair.open("large");
    pair.fetch_all(Pair::FOLLOWER, handle);
    pair.drive_for(Duration::from_secs(20));
    let gone = 41 - stored(&pair).len();
    assert!((1..=16).contains(&gone), "{gone} files went for 30 chunks that were refused at about the same time");
    pair.settle();
}

/// A file was edited, and edited again, each time while its reader was stopped: two versions of it are held.
#[test]
fn of_several_old_versions_of_a_pinned_file_one_is_compared_and_the_others_go() {
    let mut hand = Hand::following(Config::default(), &[]);
    let held = |key, chunks| stored::Held {
        key: ContentKey(key),
        path: path("a"),
        stored_bytes: chunks * CHUNK,
        last_used: key as u64,
    };
    hand.give(Input::Held { held: vec![held(1, 5), held(2, 2), held(3, 1)], pins: vec![path("a")] });
    let out = hand.list(&[("a", 14 * CHUNK)]);
    let evicted: Vec<u128> = out
        .iter()
        .filter_map(|output| match output {
            Output::Effect(_, Effect::Evict { key }) => Some(key.0),
            _ => None,
        })
        .collect();
    assert_eq!(evicted, [2, 3]);
    let is_compared =
        |output: &Output| matches!(output, Output::Effect(_, Effect::Resume { base: Some(base), .. }) if base.0 == 1);
    assert!(out.iter().any(is_compared), "{out:?}");
}

#[test]
fn there_are_only_so_many_pins() {
    let mut hand = Hand::following(Config::default(), &[("a", 0), ("b", 0)]);
    let pins = (1..4096).map(|index| path(&format!("f{index}"))).collect();
    hand.give(Input::Held { held: Vec::new(), pins });
    let mut pin = |file: &str| {
        let (id, out) = hand.ask(Request::Pin { path: path(file) });
        Hand::reply(&out, id)
    };
    assert_eq!(pin("a"), Some(Ok(Reply::Pinned)));
    assert_eq!(pin("b"), Some(Err(Errno::TooMany)));
    assert_eq!(pin("a"), Some(Ok(Reply::Pinned)), "it is one of them");
}

#[test]
fn a_pinned_file_that_was_empty_is_fetched_when_it_is_not_any_more() {
    let mut pair = Pair::new(&[("dir/a", 0)]);
    ask(&mut pair, Request::Pin { path: path("dir") }).unwrap();
    pair.drive();
    pair.edit("dir/a", 3 * CHUNK);
    pair.drive();
    assert_eq!(stored(&pair), ["dir/a"]);
    pair.settle();
}

/// The connection stays, so that nothing else would be a reason to try again.
#[test]
fn a_pinned_file_that_its_owner_could_not_read_for_a_while_is_fetched_later() {
    let mut pair = Pair::new(&[("a", CHUNK)]);
    pair.spoils.extend(std::iter::repeat_n(Spoil::Refuse(FetchError::OwnerIo), 5));
    ask(&mut pair, Request::Pin { path: path("a") }).unwrap();
    pair.drive_for(Duration::from_secs(8));
    assert!(pair.spoils.is_empty() && stored(&pair).is_empty(), "all attempts have failed");
    pair.drive_for(Duration::from_secs(12));
    assert_eq!(stored(&pair), ["a"]);
    pair.settle();
}
