//! TLS over loopback: who gets in, who does not, and who waits for whom.

use super::*;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// Longer than anything here takes, so that a test which hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

fn device() -> Identity {
    let dir = tempfile::tempdir().unwrap();
    Identity::open(dir.path()).unwrap()
}

/// A device that presents the certificate of one and signs with the key of the other.
fn forged(shown: &Identity, real: &Identity) -> CertifiedKey {
    CertifiedKey::new(shown.certified().cert.clone(), Arc::clone(&real.certified().key))
}

/// A listener and the task that takes its callers, each in a task of its own.
struct Host {
    address: String,
    outcomes: tokio::sync::mpsc::UnboundedReceiver<io::Result<Conn>>,
    task: JoinHandle<()>,
}

impl Host {
    async fn new(transport: TlsTransport) -> Host {
        let mut listener = transport.listen("127.0.0.1:0").await.unwrap();
        let (send, outcomes) = tokio::sync::mpsc::unbounded_channel();
        let address = listener.address();
        let task = tokio::spawn(async move {
            loop {
                let (caller, send) = (listener.accept().await.unwrap(), send.clone());
                tokio::spawn(async move { send.send(caller.await) });
            }
        });
        Host { address, outcomes, task }
    }

    async fn of(identity: &Identity) -> Host {
        Host::new(TlsTransport::new(identity.clone())).await
    }

    async fn next(&mut self) -> io::Result<Conn> {
        timeout(PATIENCE, self.outcomes.recv()).await.expect("nobody came").expect("the task is there")
    }

    /// How a caller was turned away.
    async fn next_refused(&mut self) -> io::Error {
        self.next().await.err().expect("a caller was let in")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Something that connects by other rules than ours.
async fn dial_with(config: ClientConfig, address: &str) -> io::Result<client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("farshore").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// A stranger's listener: takes one caller, by its own rules.
async fn strange_host(config: ServerConfig) -> (String, JoinHandle<()>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (tcp, _) = tcp.accept().await.unwrap();
        let _ = TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
    });
    (address, task)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn resolver(key: CertifiedKey) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(key))
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is_and_bytes_flow() {
    let (alice, bob) = (device(), device());
    let mut host = Host::of(&bob).await;
    let dialled = TlsTransport::new(alice.clone());
    let mut near = dialled.connect(&host.address, bob.id(), Role::Client).await.unwrap();
    let mut far = host.next().await.unwrap();
    assert_eq!((near.peer, far.peer), (bob.id(), alice.id()));
    let sent: Vec<u8> = (0..1 << 20).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let mut got = vec![0; sent.len()];
    let write = async {
        near.io.write_all(&sent).await.unwrap();
        near.io.shutdown().await.unwrap();
    };
    let read = async {
        far.io.read_exact(&mut got).await.unwrap();
        assert_eq!(far.io.read(&mut [0]).await.unwrap(), 0, "a clean end");
    };
    timeout(PATIENCE, async { tokio::join!(write, read) }).await.unwrap();
    assert_eq!(got, sent);
}

#[tokio::test]
async fn the_protocol_tells_which_end_calls() {
    let (alice, bob) = (device(), device());
    let mut host = Host::of(&bob).await;
    let transport = TlsTransport::new(alice.clone());
    for role in [Role::Client, Role::Server] {
        let near = transport.connect(&host.address, bob.id(), role).await.unwrap();
        let far = host.next().await.unwrap();
        assert_eq!((near.role, far.role), (role, role.of_other_end()));
        assert_eq!((near.peer, far.peer), (bob.id(), alice.id()), "who is there is proved all the same");
    }
    // Another device than the one that was greeted before does not get our folder.
    let carol = device();
    let error = transport.connect(&host.address, carol.id(), Role::Server).await.err().expect("bob passed for carol");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_listener_that_calls_nobody_back_refuses_the_reverse_protocol() {
    let (alice, bob) = (device(), device());
    let mut config = server_config(&bob, &provider()).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let (address, task) = strange_host(config).await;
    let error = TlsTransport::new(alice).connect(&address, bob.id(), Role::Server).await.err().expect("it passed");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    timeout(PATIENCE, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_and_the_version_is_1_3() {
    let (alice, bob) = (device(), device());
    let host = Host::of(&bob).await;
    let tls = TlsTransport::new(alice).dial(&host.address, bob.id(), Role::Client).await.unwrap();
    let tls = tls.get_ref().1;
    assert_eq!(tls.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(tls.alpn_protocol(), Some(ALPN));
    assert_eq!(tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
}

#[tokio::test]
async fn the_socket_is_set_up_for_small_frames_and_dead_peers() {
    use rustix::net::sockopt;
    let (alice, bob) = (device(), device());
    let host = Host::of(&bob).await;
    let tls = TlsTransport::new(alice).dial(&host.address, bob.id(), Role::Client).await.unwrap();
    let tcp = tls.get_ref().0;
    assert!(tcp.nodelay().unwrap());
    assert!(sockopt::socket_keepalive(tcp).unwrap());
    assert_eq!(sockopt::tcp_keepidle(tcp).unwrap(), KEEPALIVE_IDLE);
    assert_eq!(sockopt::tcp_user_timeout(tcp).unwrap(), USER_TIMEOUT_MS);
}

#[tokio::test]
async fn a_long_line_gets_a_large_buffer_and_a_short_one_what_the_kernel_thinks_best() {
    use rustix::net::sockopt::socket_send_buffer_size;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let before = socket_send_buffer_size(&tcp).unwrap();
    fit_to_line(&tcp, LONG_LINE / 2).unwrap();
    assert_eq!(socket_send_buffer_size(&tcp).unwrap(), before);
    fit_to_line(&tcp, LONG_LINE).unwrap();
    let after = socket_send_buffer_size(&tcp).unwrap();
    if grants_more() {
        assert!(after > before, "{after} bytes instead of {before}");
        assert_eq!(SockRef::from(&tcp).tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    } else {
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn another_device_than_the_expected_one_is_refused_by_name() {
    let (alice, bob, carol) = (device(), device(), device());
    let mut host = Host::of(&carol).await;
    let error = TlsTransport::new(alice)
        .connect(&host.address, bob.id(), Role::Client)
        .await
        .err()
        .expect("carol passed for bob");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let text = error.to_string();
    for part in [host.address.clone(), bob.id().to_string(), carol.id().to_string()] {
        assert!(text.contains(&part), "{text}");
    }
    host.next_refused().await;
}

#[tokio::test]
async fn a_listener_with_a_borrowed_certificate_is_refused() {
    let (alice, bob, mallory) = (device(), device(), device());
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyDevice { algorithms: provider().signature_verification_algorithms }))
        .with_cert_resolver(resolver(forged(&bob, &mallory)));
    let (address, task) = strange_host(config).await;
    let error =
        TlsTransport::new(alice).connect(&address, bob.id(), Role::Client).await.err().expect("mallory passed for bob");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(error.to_string().contains("BadSignature"), "{error}");
    timeout(PATIENCE, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_with_a_borrowed_or_broken_certificate_is_refused() {
    let (alice, bob, mallory) = (device(), device(), device());
    let mut host = Host::of(&bob).await;
    let mut config = client_config(&mallory, &provider(), bob.id(), Role::Client).unwrap();
    config.client_auth_cert_resolver = resolver(forged(&alice, &mallory));
    let mut tls = dial_with(config, &host.address).await.unwrap();
    let error = host.next_refused().await;
    assert!(error.to_string().contains("BadSignature"), "{error}");
    timeout(PATIENCE, tls.read_u8()).await.unwrap().expect_err("the refused caller was served");

    let mut config = client_config(&mallory, &provider(), bob.id(), Role::Client).unwrap();
    let nonsense = CertificateDer::from(b"no certificate".to_vec());
    config.client_auth_cert_resolver =
        resolver(CertifiedKey::new(vec![nonsense], Arc::clone(&mallory.certified().key)));
    let _tls = dial_with(config, &host.address).await;
    assert!(host.next_refused().await.to_string().contains("BadEncoding"));
}

#[tokio::test]
async fn a_caller_without_a_device_key_is_refused() {
    let bob = device();
    let mut host = Host::of(&bob).await;
    let anonymous = || {
        let verifier = OnlyThisDevice { expect: bob.id(), algorithms: provider().signature_verification_algorithms };
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = anonymous().with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let _tls = dial_with(config, &host.address).await;
    host.next_refused().await;

    // A key of another kind.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = Stubborn(default_provider().key_provider.load_private_key(key).unwrap());
    let signer: Arc<dyn SigningKey> = Arc::new(signer);
    let mut config = anonymous().with_client_cert_resolver(resolver(CertifiedKey::new(vec![certificate], signer)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    let _tls = dial_with(config, &host.address).await;
    let error = host.next_refused().await;
    assert!(error.to_string().contains("UnadvertisedSigScheme"), "{error}");
}

/// A key that signs in its own way, whatever the other side asked for.
#[derive(Debug)]
struct Stubborn(Arc<dyn SigningKey>);

impl SigningKey for Stubborn {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[tokio::test]
async fn a_caller_must_name_our_protocol() {
    let (alice, bob) = (device(), device());
    let mut host = Host::of(&bob).await;
    for protocols in [vec![], vec![b"h2".to_vec()], vec![b"farshore/2".to_vec()]] {
        let mut config = client_config(&alice, &provider(), bob.id(), Role::Client).unwrap();
        config.alpn_protocols = protocols;
        let _tls = dial_with(config, &host.address).await;
        host.next_refused().await;
    }
}

#[tokio::test]
async fn a_listener_must_name_our_protocol() {
    let (alice, bob) = (device(), device());
    let mut config = server_config(&bob, &provider()).unwrap();
    config.alpn_protocols.clear();
    let (address, task) = strange_host(config).await;
    let error = TlsTransport::new(alice).connect(&address, bob.id(), Role::Client).await.err().expect("it passed");
    assert!(error.to_string().contains("protocol"), "{error}");
    timeout(PATIENCE, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn callers_who_say_nothing_or_nonsense_keep_nobody_waiting() {
    let (alice, bob) = (device(), device());
    let mut host = Host::of(&bob).await;
    let silent = TcpStream::connect(&host.address).await.unwrap();
    let mut plain = TcpStream::connect(&host.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: farshore\r\n\r\n").await.unwrap();
    let error = host.next_refused().await;
    assert!(error.to_string().contains("127.0.0.1"), "{error}");

    let _near = TlsTransport::new(alice.clone()).connect(&host.address, bob.id(), Role::Client).await.unwrap();
    assert_eq!(host.next().await.unwrap().peer, alice.id());
    drop(silent);
    host.next_refused().await;
}

#[tokio::test]
async fn silence_ends_in_a_timeout_on_both_sides() {
    let (alice, bob) = (device(), device());
    let hasty = |identity: &Identity| {
        let mut transport = TlsTransport::new(identity.clone());
        transport.setup_timeout = Duration::from_millis(50);
        transport
    };
    let mut host = Host::new(hasty(&bob)).await;
    let _silent = TcpStream::connect(&host.address).await.unwrap();
    assert_eq!(host.next_refused().await.kind(), io::ErrorKind::TimedOut);

    // It listens, so the kernel takes the connection, but nobody ever answers.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let error = hasty(&alice).connect(&address, bob.id(), Role::Client).await.err().expect("nobody answered");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_caller_with_tls_1_2_is_refused() {
    let mut host = Host::of(&device()).await;
    let mut tcp = TcpStream::connect(&host.address).await.unwrap();
    tcp.write_all(&client_hello_of_tls_1_2()).await.unwrap();
    host.next_refused().await;
    let mut answer = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.unwrap().unwrap();
    // A fatal (2) alert record (21): protocol_version (70).
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]));
}

/// An ordinary ClientHello that offers TLS 1.2 and no more: this build of our TLS library cannot write one.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let extensions: &[&[u8]] = &[
        // supported_groups: x25519, secp256r1
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
        // ec_point_formats: uncompressed
        &[0, 11, 0, 2, 1, 0],
        // signature_algorithms: ed25519, ecdsa_secp256r1_sha256
        &[0, 13, 0, 6, 0, 4, 8, 7, 4, 3],
    ];
    let extensions = extensions.concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session; TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and ..._256_...; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2c, 1, 0]);
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    message.extend(hello);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(message);
    record
}

#[tokio::test]
async fn what_fails_below_tls_keeps_its_kind_and_names_the_address() {
    let (alice, bob) = (device(), device());
    let transport = TlsTransport::new(alice);
    let taken = transport.listen("127.0.0.1:0").await.unwrap();
    let error = transport.listen(&taken.address()).await.err().expect("it is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.address()), "{error}");
    // A port that is ours, so that nobody else can begin to listen there, and where we do not listen.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = deaf.local_addr().unwrap().to_string();
    let error = transport.connect(&gone, bob.id(), Role::Client).await.err().expect("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&gone), "{error}");
}
