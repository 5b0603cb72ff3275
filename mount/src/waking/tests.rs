use super::netlink::brings_something_up;
use crate::joining::{Absence, join};
use crate::net::transport::{Conn, Listener, Role, Transport};
use crate::store::MemoryStore;
use crate::ticket::{Secret, ShareId, Ticket};
use farshore_engine::{Config, PeerId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use std::io::{self, Write};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A message of this type, with this body.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let len = 16 + body.len();
    let mut bytes = (len as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// The body of a message about a link with these flags.
fn link(flags: i32) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(flags.to_ne_bytes());
    body.extend([0; 4]);
    body
}

#[test]
fn what_comes_up_is_told_from_what_goes_down() {
    let running = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_BROADCAST;
    assert!(brings_something_up(&message(libc::RTM_NEWLINK, &link(running))));
    assert!(brings_something_up(&message(libc::RTM_NEWADDR, &[0; 8])));
    assert!(brings_something_up(&message(libc::RTM_NEWROUTE, &[0; 12])));
    assert!(!brings_something_up(&message(libc::RTM_NEWLINK, &link(libc::IFF_UP))), "no carrier");
    assert!(!brings_something_up(&message(libc::RTM_DELLINK, &link(running))));
    assert!(!brings_something_up(&message(libc::RTM_DELADDR, &[0; 8])));
    let both = [message(libc::RTM_DELADDR, &[0; 7]), message(libc::RTM_NEWADDR, &[0; 8])].concat();
    assert!(brings_something_up(&both), "the second one, behind one that is filled up");
}

#[test]
fn what_is_cut_off_says_nothing() {
    let whole = message(libc::RTM_NEWLINK, &link(libc::IFF_UP | libc::IFF_RUNNING));
    for len in 0..whole.len() {
        assert!(!brings_something_up(&whole[..len]), "{len}");
    }
    for len in [0_u32, 1, 15, 17, u32::MAX] {
        let mut bytes = message(libc::RTM_NEWADDR, &[]);
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        assert!(!brings_something_up(&bytes), "{len}");
    }
}

proptest! {
    #[test]
    fn bad_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0_u32..64, kind in 0_u16..32) {
        brings_something_up(&bytes);
        let mut headed = len.to_ne_bytes().to_vec();
        headed.extend(kind.to_ne_bytes());
        headed.extend(&bytes);
        brings_something_up(&headed);
    }
}

/// A network in which nobody is ever reached, and that tells when somebody is tried.
struct Void(mpsc::UnboundedSender<()>);

impl Transport for Void {
    fn connect<'a>(&'a self, _: &'a str, _: PeerId, _: Role) -> BoxFuture<'a, io::Result<Conn>> {
        // The test may have seen enough.
        let _ = self.0.send(());
        async { Err(io::ErrorKind::NetworkUnreachable.into()) }.boxed()
    }

    fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }
}

/// Set in the process that has a network of its own.
const INSIDE: &str = "FARSHORE_TEST_IN_A_NETWORK_OF_ITS_OWN";

/// Runs this test once more, in a network of its own, in which nothing is up. `None` if that cannot be had.
fn in_a_network_of_its_own(test: &str) -> Option<Output> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--"]);
        command
    };
    let probe = unshare().args(["ip", "link", "set", "lo", "up"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        // Past the harness, which shows what a test prints only when it fails.
        let _ = writeln!(io::stderr(), "\n*** SKIPPED: no network of its own can be made here (unshare, ip) ***\n");
        return None;
    }
    let mut command = unshare();
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    Some(command.output().unwrap())
}

#[test]
fn an_interface_that_comes_up_ends_the_wait() {
    if std::env::var_os(INSIDE).is_none() {
        let Some(inside) = in_a_network_of_its_own("waking::tests::an_interface_that_comes_up_ends_the_wait") else {
            return;
        };
        let said = String::from_utf8_lossy(&inside.stdout);
        assert!(inside.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (tried, mut tries) = mpsc::unbounded_channel();
        let owner = PeerId([1; 32]);
        let ticket = Ticket::new(ShareId([2; 16]), owner, Secret([3; 16]), vec!["192.0.2.1:1".to_owned()]).unwrap();
        let hour = Duration::from_secs(3_600);
        let config = Config { redial_base: hour, redial_cap: hour, ..Config::default() };
        let joining = tokio::spawn(async move {
            join(&ticket, Arc::new(Void(tried)), Arc::new(MemoryStore::default()), config, Absence::IsAnError).await
        });
        tries.recv().await.expect("it is tried at the beginning");
        let ip = |what: &[&str]| assert!(Command::new("ip").args(what).status().unwrap().success());
        ip(&["link", "set", "lo", "up"]);
        let again = tokio::time::timeout(Duration::from_secs(14), tries.recv()).await;
        assert_eq!(again, Ok(Some(())), "the next attempt would be in half an hour");
        joining.abort();
    });
}
