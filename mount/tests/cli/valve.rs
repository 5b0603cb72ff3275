//! A way to the owner on which things can be stopped in the middle.

use farshore::ticket::Ticket;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Passes what the owner sends up to a number of bytes, then holds the rest back until it is opened.
pub(crate) struct Valve {
    address: SocketAddr,
    target: String,
    flow: Arc<Flow>,
}

struct Flow {
    left_bytes: Mutex<u64>,
    opened: Condvar,
}

impl Valve {
    /// A way to `target`, on which `first_bytes` pass.
    pub(crate) fn new(target: &str, first_bytes: u64) -> Valve {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let flow = Arc::new(Flow { left_bytes: Mutex::new(first_bytes), opened: Condvar::new() });
        let (to, shared) = (target.to_owned(), flow.clone());
        // It ends with the test process; it holds nothing but a port.
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                if let Ok(owner) = TcpStream::connect(&to) {
                    connect(caller, owner, shared.clone());
                }
            }
        });
        Valve { address, target: target.to_owned(), flow }
    }

    /// The same ticket by this way.
    pub(crate) fn ticket(&self, ticket: &str) -> String {
        let ticket = Ticket::parse(ticket).unwrap();
        assert_eq!(ticket.addresses(), [self.target.as_str()]);
        Ticket::new(ticket.share(), ticket.owner(), *ticket.secret(), vec![self.address.to_string()]).unwrap().encode()
    }

    /// Whether as much has passed as may.
    pub(crate) fn is_shut(&self) -> bool {
        *self.flow.left_bytes.lock().unwrap() == 0
    }

    /// Lets everything pass from now on.
    pub(crate) fn open(&self) {
        *self.flow.left_bytes.lock().unwrap() = u64::MAX;
        self.flow.opened.notify_all();
    }
}

fn connect(caller: TcpStream, owner: TcpStream, flow: Arc<Flow>) {
    let (from_caller, to_owner) = (caller.try_clone().unwrap(), owner.try_clone().unwrap());
    thread::spawn(move || {
        // How either direction ends makes no difference: then both do.
        let _ = pass(&from_caller, &to_owner, |_| {});
        hang_up(&from_caller, &to_owner);
    });
    thread::spawn(move || {
        let _ = pass(&owner, &caller, |count| flow.take(count));
        hang_up(&owner, &caller);
    });
}

fn hang_up(one: &TcpStream, other: &TcpStream) {
    for stream in [one, other] {
        // It may be down already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, before: impl Fn(usize)) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                before(count);
                to.write_all(&buffer[..count])?;
            }
        }
    }
}

impl Flow {
    /// Waits until `count` bytes may pass.
    fn take(&self, count: usize) {
        let mut left = self.left_bytes.lock().unwrap();
        if *left < count as u64 {
            *left = 0;
        }
        left = self.opened.wait_while(left, |left| *left == 0).unwrap();
        *left = left.saturating_sub(count as u64);
    }
}
