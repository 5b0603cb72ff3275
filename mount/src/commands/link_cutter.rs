//! A link that can be cut: passes bytes between callers and one address, until it is told to stop for a while.

use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A link on this machine, between whoever connects to [`LinkCutter::address`] and another address.
pub(super) struct LinkCutter {
    address: SocketAddr,
    is_up: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl LinkCutter {
    /// A link to `target`, which is up.
    pub(super) async fn start(target: SocketAddr) -> io::Result<LinkCutter> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (is_up, state) = watch::channel(true);
        let task = tokio::spawn(run(listener, target, state));
        Ok(LinkCutter { address, is_up, task })
    }

    /// Where callers connect to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every connection, and lets no new one through.
    pub(super) fn cut(&self) {
        self.is_up.send_replace(false);
    }

    /// Lets new connections through again.
    pub(super) fn heal(&self) {
        self.is_up.send_replace(true);
    }
}

impl Drop for LinkCutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, target: SocketAddr, mut is_up: watch::Receiver<bool>) {
    let mut passing = JoinSet::new();
    loop {
        tokio::select! {
            caller = listener.accept() => {
                let up = *is_up.borrow();
                if let (Ok((caller, _)), true) = (caller, up) {
                    passing.spawn(pass(caller, target));
                }
            }
            changed = is_up.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*is_up.borrow() {
                    passing.shutdown().await;
                }
            }
            Some(_) = passing.join_next() => {}
        }
    }
}

async fn pass(mut caller: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut callee = TcpStream::connect(target).await?;
    caller.set_nodelay(true)?;
    callee.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut caller, &mut callee).await?;
    Ok(())
}
