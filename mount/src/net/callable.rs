//! Being called by a device that cannot reach us: we dial it a second time, and are the server on that connection.
//!
//! What comes in there is served like any caller ([`BackDoor::open`] gives a listener), by the same server with the same
//! limits. That it was we who dialled makes one difference: it is known who can be at the other end.

use super::CONNECT_LIMIT;
use super::line::{Line, raised};
use super::transport::{Caller, Conn, Listener, Role, Transport};
use farshore_engine::PeerId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

/// The pause before a connection is made again; it doubles each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A connection that has lasted for so long was worth something, and the pause after it is short again.
const WORTHWHILE: Duration = Duration::from_secs(60);

/// Where those come in that we have dialled to be called by them.
pub struct BackDoor {
    callers: mpsc::Sender<Caller>,
}

impl BackDoor {
    /// A back door, and what the server behind it listens at.
    #[must_use]
    pub fn open() -> (BackDoor, Box<dyn Listener>) {
        let (callers, taken) = mpsc::channel(1);
        (BackDoor { callers }, Box::new(Dialled { taken }))
    }

    /// Keeps a connection over which `peer`, who was reached at `address`, can call us, and makes it again whenever it is
    /// lost, unless `calls_anyway` says that it calls over another one. Never returns; dropping it hangs up.
    pub async fn stay_callable(
        &self,
        transport: &dyn Transport,
        address: &str,
        peer: PeerId,
        calls_anyway: impl Fn() -> bool,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            if !calls_anyway() {
                self.be_called(transport, address, peer).await;
            }
            if began.elapsed() >= WORTHWHILE {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Makes one connection. Returns when it has ended.
    async fn be_called(&self, transport: &dyn Transport, address: &str, peer: PeerId) {
        let conn = match timeout(CONNECT_LIMIT, transport.connect(address, peer, Role::Server)).await {
            Ok(Ok(conn)) if conn.peer == peer => conn,
            Ok(Ok(_)) => return tracing::debug!("another device than {peer:?} answers at {address}"),
            Ok(Err(error)) => return tracing::debug!("cannot become callable by {peer:?} at {address}: {error}"),
            Err(_) => {
                return tracing::debug!("cannot become callable by {peer:?}: no answer within {CONNECT_LIMIT:?}");
            }
        };
        // Dropping the first hangs up.
        let (_alive, ended) = watch::channel(false);
        let (line, end) = Line::new(conn.io, |_| (), raised(ended).boxed());
        let proved = async move { Ok(Conn { io: Box::new(line), ..conn }) };
        if self.callers.send(proved.boxed()).await.is_ok() {
            end.closed().await;
            tracing::debug!("the connection over which {peer:?} can call has ended");
        }
    }
}

/// What we have dialled, as callers.
struct Dialled {
    taken: mpsc::Receiver<Caller>,
}

impl Listener for Dialled {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Caller>> {
        async {
            match self.taken.recv().await {
                Some(caller) => Ok(caller),
                // The door was closed.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn address(&self) -> String {
        "connections that were dialled from here".to_owned()
    }
}
