//! More connections to a peer that is far away.
//!
//! One TCP connection has at most a send buffer of bytes on its way, and usual systems grant it 4 MiB: on a line with a round trip of
//! 100 ms that is 40 MB/s, whatever the line carries. So large files of such a peer come over several connections: the first stream of a
//! file, by which its owner keeps it open, stays on the first connection, and each of the others has one of these.

use super::client::Link;
use super::transport::Transport;
use farshore_engine::{DialError, PeerId};
use farshore_proto::Hello;
use farshore_proto::v1::farshore_client::FarshoreClient;
use futures_util::future::join_all;
use std::future::pending;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;
use tonic::transport::Channel;

/// A peer is far away if its answer to the greeting took so long.
const FAR: Duration = Duration::from_millis(30);

/// So many connections are made besides the first: as many as a file has other streams.
const MORE: usize = 3;

/// The pause before one that was lost, or could not be made, is made again.
const PAUSE: Duration = Duration::from_secs(10);

/// The connections besides the first.
#[derive(Default)]
pub(super) struct Lanes {
    open: Mutex<Vec<(u64, FarshoreClient<Channel>)>>,
    wanted: Notify,
}

impl Lanes {
    /// The connection on which stream number `stream` of a file is to travel; `None` for the first one.
    pub(super) fn of_stream(&self, stream: usize) -> Option<FarshoreClient<Channel>> {
        let open = self.lock();
        let lane = stream.checked_sub(1)?.checked_rem(open.len())?;
        open.get(lane).map(|(_, client)| client.clone())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// A large file is being fetched.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Makes them once they are wanted, and again whenever they are lost, if the peer, who was reached at `address`, is far away: the
    /// greeting took it this long. Never returns; dropping it hangs up on all of them.
    pub(super) async fn keep(
        &self,
        transport: &dyn Transport,
        (peer, address): (PeerId, &String),
        hello: &Hello,
        round_trip: Duration,
    ) {
        if round_trip >= FAR {
            self.wanted.notified().await;
            join_all((0..MORE as u64).map(|number| self.keep_one(number, transport, (peer, address), hello))).await;
        }
        pending().await
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, FarshoreClient<Channel>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_one(
        &self,
        number: u64,
        transport: &dyn Transport,
        (peer, address): (PeerId, &String),
        hello: &Hello,
    ) {
        loop {
            match Link::dial(transport, slice::from_ref(address), peer, hello).await {
                Ok(link) => {
                    self.lock().push((number, link.client()));
                    link.closed().await;
                    self.lock().retain(|(open, _)| *open != number);
                }
                Err(DialError::Unreachable) => {}
                // One connection is more than it wants already.
                Err(DialError::Denied | DialError::Incompatible) => return,
            }
            sleep(PAUSE).await;
        }
    }
}
