//! A shaped link: two network namespaces with their own TCP, and between them a line that delays, paces, and can be cut.
//!
//! Each namespace has a TUN device. What the kernel sends into one is read here, kept for as long as the line takes, and
//! written into the other. So what crosses it is real TCP with its windows, losses and retransmissions, which a proxy
//! that accepts and dials would hide. Nothing of it has a name outside of this process: when the process is gone, by
//! whatever end, the kernel removes devices and namespaces.

mod forwarder;
mod namespace;
mod pacer;

pub use namespace::Namespace;

use forwarder::Forwarder;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;
use tun_rs::DeviceBuilder;

/// The device of either side, in its own namespace.
const DEVICE: &str = "line";

/// The largest packet on the line, in bytes: that of the internet.
const MTU: u16 = 1500;

/// Packets that the kernel keeps for a device before it drops one. More than a full window of small ones: the queue that
/// counts is the line's own.
const DEVICE_QUEUE_PACKETS: u32 = 10_000;

/// The smallest queue, in bytes: a few of the bursts that the kernel sends in one piece.
const MIN_QUEUE_BYTES: u64 = 512 * 1024;

/// What a line is like, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How long a packet is on its way, once it has left the queue: half of the round trip.
    pub delay: Duration,
    /// How much leaves the queue, in bits a second, headers of IP and TCP included.
    pub bits_per_second: u64,
    /// How much waits at most; what does not fit is lost.
    pub queue_bytes: u64,
}

impl Shape {
    /// A line with this round trip and rate, and with the queue of a usual router: what is on the way in one round trip.
    #[must_use]
    pub fn new(round_trip: Duration, bits_per_second: u64) -> Shape {
        let on_the_way = u128::from(bits_per_second) * round_trip.as_micros() / 8_000_000;
        let queue_bytes = u64::try_from(on_the_way).unwrap_or(u64::MAX).max(MIN_QUEUE_BYTES);
        Shape { delay: round_trip / 2, bits_per_second, queue_bytes }
    }
}

/// One end of a link.
#[derive(Debug)]
pub struct End {
    /// Where its processes run.
    pub namespace: Namespace,
    /// Where they are reached from the other end.
    pub address: Ipv4Addr,
    device: OwnedFd,
}

/// Two ends and the line between them. Both directions are alike. Dropping it ends the line.
#[derive(Debug)]
pub struct Link {
    /// One end.
    pub near: End,
    /// The other.
    pub far: End,
    to_near: Forwarder,
    to_far: Forwarder,
}

/// Why there is no link, and what to do about it.
#[derive(Debug)]
pub struct LinkError {
    doing: &'static str,
    why: String,
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "cannot {}: {}", self.doing, self.why)
    }
}

impl std::error::Error for LinkError {}

impl Link {
    /// Makes two namespaces and joins them.
    ///
    /// # Errors
    /// If this is not root, `/dev/net/tun` or one of the programs `ip` and `unshare` is missing, or the kernel refuses.
    pub fn new(shape: Shape) -> Result<Link, LinkError> {
        check_machine()?;
        let near = End::new(Ipv4Addr::new(10, 77, 0, 1))?;
        let far = End::new(Ipv4Addr::new(10, 77, 0, 2))?;
        let forward = |from: &End, to: &End| {
            let devices = from.device.try_clone().and_then(|from| Ok((from, to.device.try_clone()?)));
            devices.and_then(|(from, to)| Forwarder::start(from, to, shape)).map_err(failed("start the line"))
        };
        let (to_far, to_near) = (forward(&near, &far)?, forward(&far, &near)?);
        Ok(Link { near, far, to_near, to_far })
    }

    /// From now on everything is lost, also what is on its way.
    pub fn cut(&self) {
        self.to_near.set_up(false);
        self.to_far.set_up(false);
    }

    /// Packets get through again.
    pub fn heal(&self) {
        self.to_near.set_up(true);
        self.to_far.set_up(true);
    }

    /// How much was delivered so far, both directions together, in bytes with the headers of IP and TCP.
    #[must_use]
    pub fn carried_bytes(&self) -> u64 {
        self.to_near.carried_bytes() + self.to_far.carried_bytes()
    }
}

impl End {
    fn new(address: Ipv4Addr) -> Result<End, LinkError> {
        let namespace = Namespace::new().map_err(failed("make a network namespace"))?;
        let device = namespace
            .run(|| DeviceBuilder::new().name(DEVICE).mtu(MTU).offload(true).build_sync()?.as_fd().try_clone_to_owned())
            .flatten()
            .map_err(failed("make a TUN device"))?;
        let end = End { namespace, address, device };
        let queue = DEVICE_QUEUE_PACKETS.to_string();
        let mtu = MTU.to_string();
        // IPv6 would send packets of its own.
        end.ip(&["link", "set", DEVICE, "addrgenmode", "none", "txqueuelen", &queue, "mtu", &mtu, "up"])?;
        end.ip(&["address", "add", &format!("{address}/24"), "dev", DEVICE])?;
        end.ip(&["link", "set", "lo", "up"])?;
        Ok(end)
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), LinkError> {
        let mut command = Command::new("ip");
        command.args(arguments);
        let output = self.namespace.run(move || command.output()).flatten();
        let output = output.map_err(failed("set up a TUN device"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LinkError { doing: "set up a TUN device", why: format!("ip {}: {said}", arguments.join(" ")) })
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> LinkError {
    move |error| LinkError { doing, why: error.to_string() }
}

/// Says what is missing before anything is made.
fn check_machine() -> Result<(), LinkError> {
    let missing = |why: String| Err(LinkError { doing: "shape a link", why });
    if !rustix::process::geteuid().is_root() {
        return missing("network namespaces need root; run it as root".to_owned());
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        return missing(format!("/dev/net/tun ({error}); load the kernel module `tun`"));
    }
    for (program, package) in [("ip", "iproute2"), ("unshare", "util-linux")] {
        if let Err(error) = Command::new(program).arg("-V").output() {
            return missing(format!("the program `{program}` ({error}); install the package {package}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_holds_what_is_on_the_way_in_a_round_trip() {
        let shape = Shape::new(Duration::from_millis(100), 1_000_000_000);
        assert_eq!((shape.delay, shape.queue_bytes), (Duration::from_millis(50), 12_500_000));
        assert_eq!(Shape::new(Duration::from_millis(1), 1_000_000).queue_bytes, MIN_QUEUE_BYTES);
    }
}
