//! What a link keeps: its delay, its rate, a cut. Bounds are on the side that a busy machine cannot break: a line may be
//! slower than it should, never faster.

use farshore_compare::link::{Link, Namespace, Shape};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything that should happen soon may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// `None`, and a loud word about it, if this machine does not let us make links.
fn link(shape: Shape) -> Option<Link> {
    match Link::new(shape) {
        Ok(link) => Some(link),
        Err(error) => {
            let _ = writeln!(io::stderr(), "\n*** SKIPPED: {error} ***\n");
            None
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A listener at the far end, and the address it is reached at.
fn listen(link: &Link) -> (TcpListener, SocketAddr) {
    let listener = link.far.namespace.run(|| TcpListener::bind((link.far.address, 0))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connection over the link: its near end, its far end.
fn connect(link: &Link) -> (TcpStream, TcpStream) {
    let (listener, address) = listen(link);
    let near = link.near.namespace.run(|| TcpStream::connect_timeout(&address, SOON)).unwrap().unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
    }
    (near, far)
}

/// The devices that a process in a namespace sees, with their states and addresses.
fn devices(namespace: &Namespace) -> Vec<String> {
    let mut command = Command::new("ip");
    command.args(["-brief", "-4", "address"]).stdout(Stdio::piped());
    let output = namespace.spawn(&mut command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_round_trip_takes_at_least_twice_the_delay() {
    let Some(link) = link(Shape::new(ms(60), 1_000_000_000)) else { return };
    let far = link.far.namespace.run(|| UdpSocket::bind((link.far.address, 0))).unwrap().unwrap();
    let near = link.near.namespace.run(|| UdpSocket::bind((link.near.address, 0))).unwrap().unwrap();
    near.connect(far.local_addr().unwrap()).unwrap();
    near.set_read_timeout(Some(SOON)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 16];
            let (count, from) = far.recv_from(&mut buffer).unwrap();
            far.send_to(&buffer[..count], from).unwrap();
        });
        let begun = Instant::now();
        near.send(b"hello").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(near.recv(&mut buffer).unwrap(), 5);
        assert!(begun.elapsed() >= ms(60), "{:?}", begun.elapsed());
    });
}

#[test]
fn bytes_come_whole_and_not_faster_than_the_rate() {
    // 10 MB/s.
    let Some(link) = link(Shape::new(ms(4), 80_000_000)) else { return };
    let (mut near, mut far) = connect(&link);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let before = link.carried_bytes();
    let begun = Instant::now();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            far.write_all(&sent).unwrap();
            drop(far);
        });
        let mut received = Vec::new();
        near.read_to_end(&mut received).unwrap();
        received
    });
    let took = begun.elapsed();
    assert!(received == sent, "other bytes came out than went in");
    assert!(took >= ms(400), "4 MB at 10 MB/s came in {took:?}");
    let carried = link.carried_bytes() - before;
    assert!(carried > 4_000_000, "{carried} bytes, less than were sent");
}

#[test]
fn what_is_sent_while_the_link_is_cut_comes_when_it_is_healed() {
    let Some(link) = link(Shape::new(ms(2), 1_000_000_000)) else { return };
    let (mut near, mut far) = connect(&link);
    near.write_all(b"a").unwrap();
    let mut byte = [0];
    far.read_exact(&mut byte).unwrap();
    // The acknowledgement may be on its way; what comes after it is not.
    link.cut();
    let before = link.carried_bytes();
    near.write_all(b"b").unwrap();
    far.set_read_timeout(Some(ms(300))).unwrap();
    let nothing = far.read(&mut byte).unwrap_err();
    assert!(matches!(nothing.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{nothing}");
    assert_eq!(link.carried_bytes(), before);
    link.heal();
    far.set_read_timeout(Some(SOON)).unwrap();
    far.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"b");
}

#[test]
fn processes_of_a_namespace_see_its_devices_and_no_others() {
    let Some(link) = link(Shape::new(ms(2), 1_000_000_000)) else { return };
    assert_eq!(devices(&link.near.namespace), ["lo UNKNOWN 127.0.0.1/8", "line UNKNOWN 10.77.0.1/24"]);
    assert_eq!(devices(&link.far.namespace), ["lo UNKNOWN 127.0.0.1/8", "line UNKNOWN 10.77.0.2/24"]);
}

#[test]
fn the_devices_go_with_the_link() {
    let Some(link) = link(Shape::new(ms(2), 1_000_000_000)) else { return };
    let namespace = {
        let link = link;
        link.near.namespace
    };
    assert_eq!(devices(&namespace), ["lo UNKNOWN 127.0.0.1/8"]);
}
