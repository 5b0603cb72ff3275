//! Trying at once when it may be worth it: the network has changed, or the machine has slept.
//!
//! A peer that is away is called again and again, less and less often. When an interface, an address or a route comes up, or
//! the machine wakes, there is no need to wait for the next call. Where the system does not tell, the calls go on as they
//! would.

mod netlink;
#[cfg(test)]
mod tests;

use self::netlink::RouteNews;
use crate::node::Node;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Weak;
use std::time::Duration;
use std::{io, thread};

/// The shortest time between two attempts for such a reason.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked whether the machine has slept.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A clock that counts sleep is ahead of one that does not by at least this much after a sleep worth the name.
const SLEPT_AT_LEAST: Duration = Duration::from_secs(1);

/// From now on, `node` tries to reach its peers whenever that may have become possible. Ends soon after the node is gone.
pub fn try_when_worth_it(node: Weak<Node>) {
    // Before this returns: what changes from now on is noticed.
    let news = RouteNews::open().inspect_err(not_told).ok();
    let watching = thread::Builder::new().name("waking".to_owned()).spawn(move || watch(&node, news));
    if let Err(error) = watching {
        tracing::debug!("nobody watches for changes of the network: {error}");
    }
}

fn not_told(error: &io::Error) {
    tracing::debug!("the system does not tell when the network changes: {error}");
}

fn watch(node: &Weak<Node>, mut news: Option<RouteNews>) {
    let mut asleep = time_asleep();
    loop {
        let has_changed = match &news {
            Some(open) => open.wait(LOOK_EVERY).unwrap_or_else(|error| {
                not_told(&error);
                news = None;
                false
            }),
            None => {
                thread::sleep(LOOK_EVERY);
                false
            }
        };
        let before = std::mem::replace(&mut asleep, time_asleep());
        let has_slept = asleep.saturating_sub(before) >= SLEPT_AT_LEAST;
        // Not held while it waits: a node that nobody else holds goes.
        let Some(node) = node.upgrade() else { return };
        if has_changed || has_slept {
            tracing::debug!(has_changed, has_slept, "peers that are away are tried at once");
            node.network_changed();
            drop(node);
            thread::sleep(AT_MOST_EVERY);
        }
    }
}

/// How long the machine has slept since it was started.
fn time_asleep() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order the difference is never too small: what passes between the two is counted as sleep once and for all.
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}
