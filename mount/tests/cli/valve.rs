//! A way to the owner on which things can be stopped, slowed down, cut and counted.

use farshore::ticket::Ticket;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Passes what the owner sends up to a number of bytes, then holds the rest back until it is opened.
pub(crate) struct Valve {
    address: SocketAddr,
    target: String,
    way: Arc<Way>,
}

struct Way {
    flow: Mutex<Flow>,
    opened: Condvar,
    /// How many bytes may pass each second, if that is limited.
    bytes_per_second: Option<u64>,
}

struct Flow {
    /// How many bytes of the owner may pass.
    left_bytes: u64,
    /// How many bytes of the owner have passed.
    passed_bytes: u64,
    /// When the next bytes may pass on a slow way.
    free_at: Instant,
    /// Those that are not over.
    connections: Vec<Weak<Connection>>,
}

struct Connection {
    caller: TcpStream,
    owner: TcpStream,
}

impl Valve {
    /// A way to `target`, on which `first_bytes` pass.
    pub(crate) fn new(target: &str, first_bytes: u64) -> Valve {
        Valve::with(target, first_bytes, None)
    }

    /// A way that is open, on which no more than this passes each second.
    pub(crate) fn slow(target: &str, bytes_per_second: u64) -> Valve {
        Valve::with(target, u64::MAX, Some(bytes_per_second))
    }

    fn with(target: &str, left_bytes: u64, bytes_per_second: Option<u64>) -> Valve {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let flow = Flow { left_bytes, passed_bytes: 0, free_at: Instant::now(), connections: Vec::new() };
        let way = Arc::new(Way { flow: Mutex::new(flow), opened: Condvar::new(), bytes_per_second });
        let (to, shared) = (target.to_owned(), way.clone());
        // It ends with the test process; it holds nothing but a port.
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                if let Ok(owner) = TcpStream::connect(&to) {
                    connect(Connection { caller, owner }, shared.clone());
                }
            }
        });
        Valve { address, target: target.to_owned(), way }
    }

    /// The same ticket by this way.
    pub(crate) fn ticket(&self, ticket: &str) -> String {
        let ticket = Ticket::parse(ticket).unwrap();
        assert_eq!(ticket.addresses(), [self.target.as_str()]);
        Ticket::new(ticket.share(), ticket.owner(), *ticket.secret(), vec![self.address.to_string()]).unwrap().encode()
    }

    /// Whether as much has passed as may.
    pub(crate) fn is_shut(&self) -> bool {
        self.way.flow.lock().unwrap().left_bytes == 0
    }

    /// How many bytes of the owner have passed, in all.
    pub(crate) fn passed_bytes(&self) -> u64 {
        self.way.flow.lock().unwrap().passed_bytes
    }

    /// Lets everything pass from now on.
    pub(crate) fn open(&self) {
        self.way.flow.lock().unwrap().left_bytes = u64::MAX;
        self.way.opened.notify_all();
    }

    /// Lets nothing pass from now on. Nobody is told.
    pub(crate) fn shut(&self) {
        self.way.flow.lock().unwrap().left_bytes = 0;
    }

    /// Ends every connection, with what is on its way.
    pub(crate) fn cut(&self) {
        let connections = std::mem::take(&mut self.way.flow.lock().unwrap().connections);
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| connection.hang_up());
    }
}

fn connect(connection: Connection, way: Arc<Way>) {
    let connection = Arc::new(connection);
    {
        let connections = &mut way.flow.lock().unwrap().connections;
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
    }
    let to_owner = connection.clone();
    thread::spawn(move || {
        // How either direction ends makes no difference: then both do.
        let _ = pass(&to_owner.caller, &to_owner.owner, |_| {});
        to_owner.hang_up();
    });
    thread::spawn(move || {
        let _ = pass(&connection.owner, &connection.caller, |count| way.take(count));
        connection.hang_up();
    });
}

impl Connection {
    fn hang_up(&self) {
        for stream in [&self.caller, &self.owner] {
            // It may be down already.
            let _ = stream.shutdown(Shutdown::Both);
        }
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

impl Way {
    /// Waits until `count` bytes may pass.
    fn take(&self, count: usize) {
        let count = count as u64;
        let mut flow = self.flow.lock().unwrap();
        if flow.left_bytes < count {
            flow.left_bytes = 0;
        }
        flow = self.opened.wait_while(flow, |flow| flow.left_bytes == 0).unwrap();
        flow.left_bytes = flow.left_bytes.saturating_sub(count);
        flow.passed_bytes += count;
        let Some(bytes_per_second) = self.bytes_per_second else { return };
        // What was not used is not made up for.
        let begin = flow.free_at.max(Instant::now());
        flow.free_at = begin + Duration::from_micros(count * 1_000_000 / bytes_per_second);
        drop(flow);
        thread::sleep(begin.saturating_duration_since(Instant::now()));
    }
}
