//! Following a tree.

use crate::memory::{OWNER, Weather, within};
use crate::owner::{Owner, dial, hello, name, start};
use farshore::net::{Link, Watch, WatchEnd};
use farshore_engine::record::{FileTime, Kind, Record, Stamp};
use farshore_engine::{DeviceTag, Dot, Errno, Position, TreeUpdate, WatchCursor, Xattrs};
use farshore_proto::Members;

fn entry(index: u64) -> TreeUpdate {
    let kind = Kind::File { size_bytes: index, stamp: Stamp(index) };
    let record = Record { kind, mode: 0o600, modified: FileTime { seconds: 5, nanos: 6 }, xattrs: Xattrs::default() };
    let revision = Dot { author: DeviceTag(1), counter: index + 1 }.into();
    TreeUpdate::Entry { path: name(&format!("{}/{index}", "d".repeat(200))), record, revision }
}

/// The next updates that are not none.
async fn news(watch: &mut Watch) -> Result<Vec<TreeUpdate>, WatchEnd> {
    loop {
        let updates = watch.next().await?;
        if !updates.is_empty() {
            return Ok(updates);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn updates_arrive_in_order_however_many() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let position = Position { epoch: 4, seq: 9 };
    let mut updates = vec![TreeUpdate::Begin { position }];
    updates.extend((0..5000).map(entry));
    updates.push(TreeUpdate::End { settled: 1 });
    owner.tell(Ok(updates.clone()));
    let mut watch = link.watch(position).await.unwrap();
    let mut received = Vec::new();
    while received.len() < updates.len() {
        received.extend(within(watch.next()).await.unwrap());
    }
    assert_eq!(received, updates);
    assert_eq!(owner.cursors.lock().unwrap()[0], WatchCursor::at(position));
}

#[tokio::test(start_paused = true)]
async fn extended_attributes_are_told() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let TreeUpdate::Entry { path, record, revision } = entry(1) else { panic!() };
    // More than a batch of several has room for, with those of one more.
    let xattrs = Xattrs::default().with(b"user.a", &[7; 65_536]).with(b"user.b", &[8; 60_000]);
    let marked = TreeUpdate::Entry { path, record: Record { xattrs, ..record }, revision };
    owner.tell(Ok(vec![marked.clone(), marked.clone(), marked.clone()]));
    let mut watch = link.watch(Position::default()).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 3 {
        received.extend(within(watch.next()).await.unwrap());
    }
    assert_eq!(received, vec![marked; 3]);
}

/// The same device may have the share in a folder of its own, and it may not be told what it has changed there.
#[tokio::test(start_paused = true)]
async fn who_introduces_members_knows_who_only_looks_on() {
    let (_tell, told) = tokio::sync::watch::channel(Members::new());
    let position = Position { epoch: 4, seq: 9 };
    let (looking, member) = (hello(), hello().of_member(Vec::new()));
    let cursor = WatchCursor::at(position);
    for (owner, hello, expected) in [
        (Owner::introducing(told.clone()), &looking, cursor.clone().looking_on()),
        (Owner::introducing(told), &member, cursor.clone()),
        (Owner::new(), &looking, cursor),
    ] {
        let running = start(owner.clone()).await;
        let link = Link::dial(&running.network, &["owner".into()], OWNER, hello).await.unwrap();
        owner.tell(Ok(vec![entry(1)]));
        within(link.watch(position).await.unwrap().next()).await.unwrap();
        assert_eq!(owner.cursors.lock().unwrap()[0], expected);
    }
}

/// Whoever begins to follow has to know that there is nothing more to hear.
#[tokio::test(start_paused = true)]
async fn that_there_is_nothing_to_tell_is_told() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let mut watch = link.watch(Position::default()).await.unwrap();
    owner.tell(Ok(Vec::new()));
    assert_eq!(within(watch.next()).await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn no_news_for_an_hour_is_no_reason_to_end() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let mut watch = link.watch(Position::default()).await.unwrap();
    let quiet = tokio::time::timeout(std::time::Duration::from_secs(3600), news(&mut watch)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    owner.tell(Ok(vec![TreeUpdate::End { settled: 1 }]));
    assert_eq!(within(news(&mut watch)).await, Ok(vec![TreeUpdate::End { settled: 1 }]));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_cannot_go_on_ends_the_watch_and_not_the_link() {
    let owner = Owner::new();
    let running = start(owner.clone()).await;
    let link = dial(&running.network).await.unwrap();
    let mut watch = link.watch(Position::default()).await.unwrap();
    owner.tell(Err(Errno::Io));
    assert_eq!(within(news(&mut watch)).await, Err(WatchEnd::StreamLost));
    owner.tell(Ok(vec![TreeUpdate::End { settled: 1 }]));
    let mut again = link.watch(Position::default()).await.unwrap();
    assert_eq!(within(news(&mut again)).await, Ok(vec![TreeUpdate::End { settled: 1 }]));
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_ends_the_watch() {
    for weather in [Weather::Cut, Weather::Silent] {
        let running = start(Owner::new()).await;
        let link = dial(&running.network).await.unwrap();
        let mut watch = link.watch(Position::default()).await.unwrap();
        running.network.set(weather);
        assert_eq!(within(watch.next()).await, Err(WatchEnd::LinkLost));
        within(link.closed()).await;
        assert_eq!(link.watch(Position::default()).await.err(), Some(WatchEnd::LinkLost));
    }
}
