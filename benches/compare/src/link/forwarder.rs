//! One direction of a line: a thread that takes packets from one device, and one that gives them to the other in time.

use super::Shape;
use super::pacer::Pacer;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The largest piece that the kernel hands over: a header of the device's, and 64 KiB.
const MAX_PIECE_BYTES: usize = 10 + 65_536;

/// The threads of one direction. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Forwarder {
    line: Arc<Line>,
    /// Closing it wakes the thread that takes.
    end: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

/// What both threads know.
#[derive(Debug)]
struct Line {
    begun: Instant,
    is_up: AtomicBool,
    carried_bytes: AtomicU64,
    on_the_way: Mutex<OnTheWay>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OnTheWay {
    /// In the order of their arrival.
    pieces: VecDeque<Piece>,
    is_over: bool,
}

/// Packets that the kernel handed over as one: it cuts large sends into packets of the device's size only where a
/// device cannot do that itself, and ours claims that it can, because a system call for each packet would cost more than
/// what is measured.
#[derive(Debug)]
struct Piece {
    arrives: Duration,
    wire_bytes: u64,
    bytes: Vec<u8>,
}

impl Forwarder {
    pub(super) fn start(from: OwnedFd, to: OwnedFd, shape: Shape) -> io::Result<Forwarder> {
        ioctl_fionbio(&from, true)?;
        let (ended, end) = io::pipe()?;
        let line = Arc::new(Line {
            begun: Instant::now(),
            is_up: AtomicBool::new(true),
            carried_bytes: AtomicU64::new(0),
            on_the_way: Mutex::default(),
            changed: Condvar::new(),
        });
        let (taking, giving) = (line.clone(), line.clone());
        let threads = vec![
            thread::Builder::new().name("line takes".to_owned()).spawn(move || taking.take(&from, &ended, shape))?,
            thread::Builder::new().name("line gives".to_owned()).spawn(move || giving.give(&to))?,
        ];
        Ok(Forwarder { line, end: Some(end), threads })
    }

    pub(super) fn set_up(&self, is_up: bool) {
        let mut on_the_way = self.line.on_the_way();
        self.line.is_up.store(is_up, Ordering::Relaxed);
        if !is_up {
            on_the_way.pieces.clear();
        }
    }

    pub(super) fn carried_bytes(&self) -> u64 {
        self.line.carried_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.end.take());
        self.line.on_the_way().is_over = true;
        self.line.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Its panic was printed already.
            let _ = thread.join();
        }
    }
}

impl Line {
    /// Takes packets until `ended` is closed.
    fn take(&self, from: &OwnedFd, ended: &PipeReader, shape: Shape) {
        let mut pacer = Pacer::new(shape);
        let mut buffer = vec![0; MAX_PIECE_BYTES];
        loop {
            match read(from, &mut buffer) {
                Ok(count) => self.send(&mut pacer, &buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut wanted = [PollFd::new(from, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
                    match poll(&mut wanted, None) {
                        Ok(_) if wanted[1].revents().is_empty() => {}
                        Err(Errno::INTR) => {}
                        Ok(_) | Err(_) => return,
                    }
                }
                Err(error) => {
                    eprintln!("the line is broken: its device cannot be read: {error}");
                    return;
                }
            }
        }
    }

    fn send(&self, pacer: &mut Pacer, bytes: &[u8]) {
        let wire_bytes = wire_bytes(bytes);
        let Some(arrives) = pacer.send(self.begun.elapsed(), wire_bytes) else { return };
        let mut on_the_way = self.on_the_way();
        if self.is_up.load(Ordering::Relaxed) {
            on_the_way.pieces.push_back(Piece { arrives, wire_bytes, bytes: bytes.to_vec() });
            self.changed.notify_all();
        }
    }

    /// Gives what has arrived to the other device, until the end.
    fn give(&self, to: &OwnedFd) {
        while let Some(piece) = self.next() {
            // What a device does not take is lost, as on any line.
            let _ = write(to, &piece.bytes);
        }
    }

    /// The next piece, when it is time; `None` at the end.
    fn next(&self) -> Option<Piece> {
        let mut on_the_way = self.on_the_way();
        loop {
            if on_the_way.is_over {
                return None;
            }
            let now = self.begun.elapsed();
            let wait = match on_the_way.pieces.front() {
                Some(piece) if piece.arrives <= now => {
                    self.carried_bytes.fetch_add(piece.wire_bytes, Ordering::Relaxed);
                    return on_the_way.pieces.pop_front();
                }
                Some(piece) => piece.arrives - now,
                None => Duration::MAX,
            };
            let woken = self.changed.wait_timeout(on_the_way, wait);
            on_the_way = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn on_the_way(&self) -> MutexGuard<'_, OnTheWay> {
        self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a piece is on a wire of packets of at most the device's size: each of its packets repeats the headers. The
/// piece begins with a `virtio_net_hdr`, whose third field is the length of the headers and whose fourth is how much
/// follows them in each packet, zero if the piece is one packet.
fn wire_bytes(piece: &[u8]) -> u64 {
    let field = |at: usize| piece.get(at..at + 2).map_or(0, |two| u64::from(u16::from_ne_bytes([two[0], two[1]])));
    let (headers, payload) = (field(2), field(4));
    let bytes = piece.len().saturating_sub(VIRTIO_HEADER_BYTES) as u64;
    match payload {
        0 => bytes,
        payload => bytes + headers * bytes.saturating_sub(headers).div_ceil(payload).saturating_sub(1),
    }
}

const VIRTIO_HEADER_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(headers: u16, payload: u16, len: usize) -> Vec<u8> {
        let mut piece = vec![0; VIRTIO_HEADER_BYTES + len];
        piece[2..4].copy_from_slice(&headers.to_ne_bytes());
        piece[4..6].copy_from_slice(&payload.to_ne_bytes());
        piece
    }

    #[test]
    fn each_packet_of_a_piece_has_headers() {
        assert_eq!(wire_bytes(&piece(0, 0, 60)), 60, "one packet");
        assert_eq!(wire_bytes(&piece(52, 1448, 52 + 1448)), 1500);
        assert_eq!(wire_bytes(&piece(52, 1448, 52 + 1448 + 1)), 1500 + 53);
        assert_eq!(wire_bytes(&piece(52, 1448, 52 + 10 * 1448)), 10 * 1500);
        assert_eq!(wire_bytes(&[]), 0);
    }
}
