//! What the kernel tells of interfaces, addresses and routes.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::io;
use std::time::Duration;

/// What is listened to: links, addresses and routes.
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE;

/// The kernel sends no datagram of more than this (`NLMSG_GOODSIZE` is a page, 8 KiB at most).
const DATAGRAM_BYTES: usize = 16 * 1024;

/// Bytes of the header of a message: its length, its type, its flags, its number, its sender.
const HEADER_BYTES: usize = 16;

/// Where, behind the header, the flags of a link are.
const LINK_FLAGS_AT: usize = 8;

/// The flags of a link that carries something.
const RUNNING: u32 = (libc::IFF_UP | libc::IFF_RUNNING) as u32;

/// Listens to the kernel.
#[derive(Debug)]
pub(super) struct RouteNews {
    socket: OwnedFd,
}

impl RouteNews {
    pub(super) fn open() -> io::Result<RouteNews> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE, whose number is zero.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS as u32))?;
        Ok(RouteNews { socket })
    }

    /// Waits until the kernel tells something, or for `limit`, and takes everything that it has told. Says whether anything
    /// of it means that a peer may be reached that could not be before.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut is_worth_it = false;
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((count, _)) => is_worth_it |= brings_something_up(&buffer[..count]),
                // There was more than the socket could hold, so nobody knows what.
                Err(Errno::NOBUFS) => is_worth_it = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(is_worth_it),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether one of the messages in a datagram says that an address or a route is new, or that a link is running.
pub(super) fn brings_something_up(mut datagram: &[u8]) -> bool {
    while let Some((header, _)) = datagram.split_first_chunk::<HEADER_BYTES>() {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        // What does not fit together says nothing, nor what comes after it.
        let Some(body) = datagram.get(HEADER_BYTES..len) else { return false };
        let is_up = match kind {
            libc::RTM_NEWADDR | libc::RTM_NEWROUTE => true,
            libc::RTM_NEWLINK => {
                let flags = body.get(LINK_FLAGS_AT..).and_then(|rest| rest.first_chunk());
                flags.is_some_and(|flags| u32::from_ne_bytes(*flags) & RUNNING == RUNNING)
            }
            _ => false,
        };
        if is_up {
            return true;
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}
