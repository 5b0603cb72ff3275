//! Of a share that all change, whoever has a file's bytes can bring them.

use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::event::{Change, Observation};
use farshore_engine::path::RelPath;
use farshore_engine::testing::{FetchSeen, Hand, file_record, path};
use farshore_engine::*;
use std::collections::BTreeSet;
use std::time::Duration;

/// Another peer that is followed.
const OTHER: PeerId = PeerId([8; 32]);

const KIB: u64 = 1024;

/// A device with a folder that follows two peers. The first has told of these files.
fn with_two(config: Config, files: &[(&str, u64)]) -> (Hand, LinkId) {
    let mut hand = Hand::new(Config { keeps_folder: true, ..config });
    hand.give(Input::Observed(Observation::ScanBegin { path: RelPath::ROOT }));
    hand.found("", SeenKind::Dir, 0o755, 1, (1, 1));
    hand.give(Input::Observed(Observation::ScanEnd { path: RelPath::ROOT }));
    let out = hand.give(Input::Command(Command::Follow { peer: OTHER }));
    hand.connect(&out);
    let other = hand.link;
    let out = hand.give(Input::Command(Command::Follow { peer: Hand::PEER }));
    hand.connect(&out);
    hand.list(files);
    (hand, other)
}

fn away(hand: &Hand, at: &str) -> Ino {
    hand.engine.view().away(&path(at)).unwrap().ino
}

/// Begins to read the beginning of a file.
fn read(hand: &mut Hand, at: &str) -> (Handle, ReqId, FetchSeen) {
    let ino = away(hand, at);
    let Ok(Reply::Opened(opened)) = hand.ask_now(Request::Open { ino, write: false, whole_from: None }) else {
        panic!("{at} cannot be opened")
    };
    let (id, out) = hand.read(opened.handle, 0, 4096);
    (opened.handle, id, Hand::fetches(&out).remove(0))
}

/// Begins to bring a file into the folder.
fn bring(hand: &mut Hand, at: &str) -> Vec<FetchSeen> {
    let (_, out) = hand.ask(Request::Bring { path: path(at) });
    Hand::fetches(&out)
}

fn only(config: Config) -> Config {
    Config { read_ahead_chunks: 0, ..config }
}

#[test]
fn who_has_not_got_it_yet_is_no_failure_and_another_is_asked() {
    let (mut hand, _) = with_two(only(Config::default()), &[("f", 700)]);
    let (_, id, first) = read(&mut hand, "f");
    assert_eq!(first.peer, Hand::PEER, "who told of it has it for sure");
    let out = hand.fail(&first, FetchError::NotYet);
    let [second] = &Hand::fetches(&out)[..] else { panic!("{out:?}") };
    assert_eq!((second.peer, second.urgent, second.stamp), (OTHER, true, first.stamp));
    let out = hand.bring(second);
    assert!(matches!(Hand::reply(&out, id), Some(Ok(Reply::Read(_)))), "{out:?}");
}

#[test]
fn of_what_nobody_has_yet_a_reader_waits_for_longer_than_its_attempts() {
    let (mut hand, _) = with_two(only(Config::default()), &[("f", 700)]);
    let (_, id, mut fetch) = read(&mut hand, "f");
    // Both are asked again and again, more often than an attempt could fail.
    for _ in 0..2 * more_than_all_retries() {
        let mut out = hand.fail(&fetch, FetchError::NotYet);
        while Hand::fetches(&out).is_empty() {
            assert_eq!(Hand::reply(&out, id), None);
            out = hand.pass(Duration::from_millis(100));
        }
        fetch = Hand::fetches(&out).remove(0);
    }
    let out = hand.bring(&fetch);
    assert!(matches!(Hand::reply(&out, id), Some(Ok(Reply::Read(_)))), "{out:?}");
}

/// More attempts than a read has.
fn more_than_all_retries() -> u32 {
    Config::default().max_retries + 1
}

#[test]
fn a_reader_goes_on_with_another_peer_and_what_has_come_stays() {
    let (mut hand, other) = with_two(only(Config::default()), &[("f", 700 * KIB)]);
    let (handle, id, first) = read(&mut hand, "f");
    let of_first = hand.arrive(first.effect, 0..1);
    assert!(matches!(Hand::reply(&of_first, id), Some(Ok(Reply::Read(_)))));
    let (id, out) = hand.read(handle, 300 * KIB, 4096);
    assert!(Hand::fetches(&out).is_empty(), "it is on its way");
    let link = hand.link;
    let out = hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    let fetches = Hand::fetches(&out);
    assert!(fetches.iter().all(|fetch| fetch.peer == OTHER), "{fetches:?}");
    assert!(fetches.iter().all(|fetch| !fetch.frames.contains(&0)), "that frame is here: {fetches:?}");
    let urgent = fetches.iter().find(|fetch| fetch.urgent).unwrap();
    let out = hand.bring(urgent);
    assert!(matches!(Hand::reply(&out, id), Some(Ok(Reply::Read(_)))), "{out:?}");
    // With nobody left it waits.
    let (id, out) = hand.read(handle, 600 * KIB, 4096);
    let out = [out, hand.give(Input::Peer(OTHER, PeerEvent::LinkDown { link: other }))].concat();
    assert_eq!(Hand::reply(&out, id), None);
}

#[test]
fn a_large_file_comes_from_all_who_have_it_at_once() {
    let (mut hand, _) = with_two(Config::default(), &[("large", 64 * CHUNK_SIZE), ("small", 4 * CHUNK_SIZE)]);
    let small = bring(&mut hand, "small");
    assert!(small.iter().all(|fetch| fetch.peer == Hand::PEER), "{small:?}");
    for fetch in &small {
        hand.bring(fetch);
    }
    let fetches = bring(&mut hand, "large");
    let chunks: BTreeSet<u64> = fetches.iter().map(|fetch| fetch.chunk).collect();
    assert_eq!(chunks.len(), fetches.len(), "each is asked of one");
    let of = |peer| fetches.iter().filter(|fetch| fetch.peer == peer).count();
    assert!(of(OTHER).abs_diff(of(Hand::PEER)) <= 1, "{} and {}", of(OTHER), of(Hand::PEER));
    // Who has not got it is asked no more: what it was asked for comes from the other.
    let refused = fetches.iter().find(|fetch| fetch.peer == OTHER).unwrap();
    let mut out = hand.fail(refused, FetchError::NotYet);
    for fetch in fetches.iter().filter(|fetch| fetch.peer == OTHER && fetch.effect != refused.effect) {
        out.extend(hand.fail(fetch, FetchError::NotYet));
    }
    for fetch in fetches.iter().filter(|fetch| fetch.peer == Hand::PEER) {
        out.extend(hand.bring(fetch));
    }
    let again = Hand::fetches(&out);
    assert!(again.iter().any(|fetch| fetch.chunk == refused.chunk), "{again:?}");
    assert!(again.iter().all(|fetch| fetch.peer == Hand::PEER), "{again:?}");
    assert_eq!(hand.engine.view().totals().failed_fetches, 0);
}

#[test]
fn who_brings_more_is_asked_for_more() {
    let (mut hand, _) = with_two(Config::default(), &[("large", 256 * CHUNK_SIZE)]);
    let mut open = bring(&mut hand, "large");
    let mut asked = [0; 2];
    while !open.is_empty() {
        // In each turn one brings four chunks, and the other one.
        for (peer, most) in [(Hand::PEER, 4), (OTHER, 1)] {
            let now: Vec<FetchSeen> = open.iter().filter(|fetch| fetch.peer == peer).take(most).cloned().collect();
            open.retain(|fetch| !now.contains(fetch));
            asked[usize::from(peer == OTHER)] += now.len();
            for fetch in &now {
                let out = hand.bring(fetch);
                open.extend(Hand::fetches(&out));
                for (store, _) in Hand::stores(&out) {
                    let out = hand.give(Input::Done(store, Done::Stored(Ok(()))));
                    open.extend(Hand::fetches(&out));
                }
            }
        }
        open.extend(Hand::fetches(&hand.pass(Duration::from_millis(100))));
    }
    assert_eq!(asked.iter().sum::<usize>(), 256, "{asked:?}");
    assert!(asked[0] > 2 * asked[1], "{asked:?}");
}

#[test]
fn who_had_not_got_it_may_have_it_when_nobody_else_is_left() {
    let (mut hand, _) = with_two(only(Config::default()), &[("large", 20 * CHUNK_SIZE)]);
    let fetches = bring(&mut hand, "large");
    let of_other: Vec<FetchSeen> = fetches.iter().filter(|fetch| fetch.peer == OTHER).cloned().collect();
    for fetch in &of_other {
        hand.fail(fetch, FetchError::NotYet);
    }
    let link = hand.link;
    let out = hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    let again = Hand::fetches(&out);
    assert!(!again.is_empty() && again.iter().all(|fetch| fetch.peer == OTHER), "{again:?}");
}

#[test]
fn what_only_one_has_who_is_away_holds_up_nothing_that_others_have() {
    let all = Config { fetches_all: true, max_prefetches: 1, ..only(Config::default()) };
    let (mut hand, other) = with_two(all, &[]);
    let out = hand.put("first", file_record(700, 1), false);
    let fetch = Hand::fetches(&out).remove(0);
    let link = hand.link;
    let mut out = hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    // The other one has not got it.
    for _ in 0..3 {
        for fetch in Hand::fetches(&out) {
            out = hand.fail(&fetch, FetchError::NotYet);
        }
    }
    assert_eq!(fetch.peer, Hand::PEER);
    let record = file_record(800, 2);
    let revision = Dot { author: DeviceTag::of(&OTHER), counter: 1 }.into();
    let put =
        TreeUpdate::Event { seq: 1, change: Change::Put { path: path("second"), record, revision, replaced: false } };
    let begin = TreeUpdate::Begin { position: Position { epoch: 1, seq: 0 } };
    let updates = vec![begin, TreeUpdate::End { settled: 0 }, put];
    let out = hand.give(Input::Peer(OTHER, PeerEvent::Tree { link: other, updates }));
    assert!(Hand::fetches(&out).iter().any(|fetch| fetch.path == "second" && fetch.peer == OTHER), "{out:?}");
}

#[test]
fn what_nobody_has_holds_up_nobody_who_waits_for_another_file() {
    let large = CHUNK_SIZE + 700;
    let one_at_once = Config { max_prefetches: 1, ahead_bytes: CHUNK_SIZE, ..only(Config::default()) };
    let (mut hand, _) = with_two(one_at_once, &[("f", large), ("g", large)]);
    let mut asked = bring(&mut hand, "f");
    let (waiting, out) = hand.ask(Request::Bring { path: path("g") });
    assert!(Hand::fetches(&out).is_empty(), "one at once");
    let other = loop {
        let Some(fetch) = asked.pop() else { panic!("nobody is asked for g") };
        if fetch.path == "g" {
            break fetch;
        }
        asked.extend(Hand::fetches(&hand.fail(&fetch, FetchError::NotYet)));
    };
    let out = hand.bring(&other);
    assert!(!Hand::stores(&out).is_empty() && Hand::reply(&out, waiting).is_none(), "the rest of it is to come");
}

#[test]
fn what_nobody_has_is_asked_for_less_and_less_often() {
    let all = Config { fetches_all: true, ..only(Config::default()) };
    let (mut hand, _) = with_two(all, &[]);
    let mut out = hand.put("f", file_record(700, 1), false);
    let (mut asked, until) = (0, hand.now + Duration::from_secs(600));
    while hand.now < until {
        let fetches = Hand::fetches(&out);
        asked += fetches.len();
        out = match fetches.first() {
            Some(fetch) => hand.fail(fetch, FetchError::NotYet),
            None => hand.pass(Duration::from_millis(500)),
        };
    }
    assert!((10..60).contains(&asked), "{asked}");
}

#[test]
fn who_does_not_want_to_wait_is_told_at_once_that_who_has_it_is_away() {
    let fail = Config { on_disconnect: OnDisconnect::Fail, ..only(Config::default()) };
    let (mut hand, _) = with_two(fail, &[("f", 700)]);
    let (_, id, first) = read(&mut hand, "f");
    let link = hand.link;
    let out = hand.give(Input::Peer(Hand::PEER, PeerEvent::LinkDown { link }));
    let [second] = &Hand::fetches(&out)[..] else { panic!("{out:?}") };
    assert_ne!(second.peer, first.peer);
    let out = hand.fail(second, FetchError::NotYet);
    assert_eq!(Hand::reply(&out, id), Some(Err(Errno::Io)));
}

#[test]
fn who_fails_again_and_again_is_not_the_only_one_who_is_asked() {
    let (mut hand, _) = with_two(only(Config::default()), &[("f", 700)]);
    let (_, id, mut fetch) = read(&mut hand, "f");
    for _ in 0..3 {
        if fetch.peer == OTHER {
            break;
        }
        let mut out = hand.fail(&fetch, FetchError::StreamLost);
        while Hand::fetches(&out).is_empty() {
            out = hand.pass(Duration::from_millis(100));
        }
        fetch = Hand::fetches(&out).remove(0);
    }
    assert_eq!(fetch.peer, OTHER);
    let out = hand.bring(&fetch);
    assert!(matches!(Hand::reply(&out, id), Some(Ok(Reply::Read(_)))), "{out:?}");
}
