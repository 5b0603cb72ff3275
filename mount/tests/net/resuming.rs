//! Who is killed follows its peers from where it stood; who may have told more than it knows has them list anew.

use crate::both_ways::{Files, node, tell};
use crate::memory::{Memory, OWNER};
use crate::owner::{Owner, hello, name, until};
use farshore::net::serve;
use farshore::net::transport::Transport;
use farshore::node::{Node, Remembered, Route};
use farshore::store::{MemoryStore, Store};
use farshore_engine::{Config, Input, PeerEvent, TreeUpdate};
use farshore_proto::ShareId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SHARE: ShareId = ShareId([3; 16]);

/// A guest that changes the share too, and how many listings it was told.
struct Guest {
    node: Arc<Node>,
    listings: Arc<AtomicUsize>,
}

impl Guest {
    /// It has never been stopped: the process before it was killed.
    fn start(network: &Memory, store: &MemoryStore, life: u64) -> Guest {
        let store = Arc::new(store.clone());
        let node = node(network, life, |parts| {
            parts.config = Config { keeps_folder: true, ..parts.config.clone() };
            parts.folder = Some(Arc::new(Files(Owner::new())));
            parts.peers = BTreeMap::from([(OWNER, Route { addresses: vec!["owner".into()], hello: hello() })]);
            parts.store = store;
            parts.remembered = Some(Remembered::Folder(SHARE));
        });
        let listings = Arc::<AtomicUsize>::default();
        let count = listings.clone();
        node.record(Box::new(move |step| {
            if let Input::Peer(_, PeerEvent::Tree { updates, .. }) = step.input {
                let begun = updates.iter().filter(|update| matches!(update, TreeUpdate::Begin { .. })).count();
                count.fetch_add(begun, Ordering::Relaxed);
            }
        }));
        node.follow_peers();
        Guest { node, listings }
    }

    /// How many listings it was told until it knew this file, and nothing was left to be noted.
    async fn listings_until(&self, file: &str, store: &MemoryStore) -> usize {
        until(|| self.node.view(|view| view.resolve(&name(file)).is_some())).await;
        until(|| {
            let stands = self.node.view(|view| view.peers().map(|peer| peer.position).collect::<Vec<_>>());
            let noted = store.memory(SHARE).map(|memory| memory.standings().values().map(|at| at.position).collect());
            noted == Some(stands)
        })
        .await;
        self.listings.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_killed_follows_from_where_it_stood() {
    let network = Memory::new();
    let files = Owner::new();
    let folder = Arc::new(Files(files.clone()));
    let owner = node(&network.of(OWNER), 7, |parts| {
        parts.config = Config { keeps_folder: true, ..parts.config.clone() };
        parts.folder = Some(folder);
    });
    let listener = network.listen("owner").await.unwrap();
    let server = tokio::spawn(serve(listener, owner.clone(), std::future::pending()));
    tell(&owner, &files, "a");
    let first = MemoryStore::default();
    let before = Guest::start(&network, &first, 1);
    assert_eq!(before.listings_until("a", &first).await, 1, "it knew nothing");
    let second = first.next_life();
    tell(&owner, &files, "b");
    let killed = Guest::start(&network, &second, 2);
    assert_eq!(killed.listings_until("b", &second).await, 0);
    assert!(killed.node.view(|view| view.resolve(&name("a")).is_some()));
    second.lose_power();
    let third = second.next_life();
    tell(&owner, &files, "c");
    let switched_off = Guest::start(&network, &third, 3);
    assert_eq!(switched_off.listings_until("c", &third).await, 1, "what it has told may be lost");
    // A clean stop is no loss, whenever the machine begins to run again.
    switched_off.node.shut_down().await;
    third.lose_power();
    let fourth = third.next_life();
    tell(&owner, &files, "d");
    let stopped = Guest::start(&network, &fourth, 4);
    assert_eq!(stopped.listings_until("d", &fourth).await, 0);
    for node in [before.node, killed.node, stopped.node, owner] {
        node.shut_down().await;
    }
    server.abort();
}
