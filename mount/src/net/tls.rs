//! TCP with TLS 1.3, where both ends prove which device they are.
//!
//! There are no authorities: a device is its Ed25519 key (see [`crate::identity`]). The dialling side lets nobody but
//! the device that it expects pass; the listening side takes any device that proves its key, and leaves it to others
//! what that device may have. Who signed a certificate, its names and
//! its dates do not matter: the signature under the handshake proves the key.
//!
//! The key exchange is X25519MLKEM768, or plain X25519 with a peer that lacks it. Sessions are not resumed and there is
//! no early data: a connection lives long, and each one is proved anew.

use crate::identity::{Identity, device_id};
use crate::net::transport::{Caller, Conn, Listener, Role, Transport};
use farshore_engine::PeerId;
use futures_util::future::BoxFuture;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    PeerMisbehaved, ServerConfig, SignatureScheme,
};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

/// What is spoken inside: Farshore's gRPC services, version 1.
const ALPN: &[u8] = b"farshore/1";
/// The same with the roles exchanged: whoever has dialled is the server.
const ALPN_REVERSE: &[u8] = b"farshore-reverse/1";

/// The longest a connection may take from the first packet to the proof of who is there. A handshake is two round
/// trips; this is enough for a bad mobile link.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that one of several addresses of a name may keep the others waiting.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);

/// The kernel asks a silent peer after this time for a sign of life, then at the interval, so many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
/// Bytes that are not acknowledged for so long end the connection.
const USER_TIMEOUT_MS: u32 = 30_000;

/// Who takes longer than this to answer in a handshake is at the end of a long line.
const LONG_LINE: Duration = Duration::from_millis(40);
/// How much may be sent and not acknowledged on a long line, in bytes, if the kernel grants it.
const SEND_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// How much may wait to be sent on a long line, in bytes: what is asked for urgently stands behind it, so it is not the
/// whole buffer.
const UNSENT_BYTES: u32 = 512 * 1024;

/// Makes and takes TLS connections in the name of one device.
pub struct TlsTransport {
    identity: Identity,
    provider: Arc<CryptoProvider>,
    setup_timeout: Duration,
}

impl TlsTransport {
    /// A transport that proves to be `identity`.
    pub fn new(identity: Identity) -> TlsTransport {
        let provider =
            CryptoProvider { kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519], ..default_provider() };
        TlsTransport { identity, provider: Arc::new(provider), setup_timeout: SETUP_TIMEOUT }
    }

    async fn dial(&self, address: &str, expect: PeerId, role: Role) -> io::Result<client::TlsStream<TcpStream>> {
        let config = client_config(&self.identity, &self.provider, expect, role).map_err(io::Error::other)?;
        let setup = async {
            let tcp = dial_tcp(address).await?;
            set_socket_options(&tcp)?;
            // Not sent: whom we talk to is nobody else's business, and devices have no names.
            let name = ServerName::try_from("farshore").map_err(io::Error::other)?;
            let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(explain_refusal)?;
            dialler_role(tls.get_ref().1)?;
            Ok(tls)
        };
        let outcome = timeout(self.setup_timeout, setup).await.unwrap_or_else(|_| Err(too_slow(self.setup_timeout)));
        outcome.map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {address}: {error}")))
    }
}

impl Transport for TlsTransport {
    fn connect<'a>(&'a self, address: &'a str, expect: PeerId, role: Role) -> BoxFuture<'a, io::Result<Conn>> {
        Box::pin(async move { Ok(Conn { io: Box::new(self.dial(address, expect, role).await?), peer: expect, role }) })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let config = server_config(&self.identity, &self.provider).map_err(io::Error::other)?;
            let failed =
                |error: io::Error| io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"));
            let tcp = TcpListener::bind(address).await.map_err(failed)?;
            let local = tcp.local_addr().map_err(failed)?;
            let listener = TlsListener { tcp, local, tls: Arc::new(config).into(), setup_timeout: self.setup_timeout };
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

struct TlsListener {
    tcp: TcpListener,
    local: SocketAddr,
    tls: TlsAcceptor,
    setup_timeout: Duration,
}

impl Listener for TlsListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Caller>> {
        Box::pin(async {
            let (tcp, from) = self.tcp.accept().await?;
            let (tls, limit) = (self.tls.clone(), self.setup_timeout);
            let caller: Caller = Box::pin(async move {
                let outcome = timeout(limit, greet(tls, tcp)).await.unwrap_or_else(|_| Err(too_slow(limit)));
                outcome.map_err(|error| {
                    io::Error::new(error.kind(), format!("the caller from {from} was not let in: {error}"))
                })
            });
            Ok(caller)
        })
    }

    fn address(&self) -> String {
        self.local.to_string()
    }
}

/// The listening side of a handshake.
async fn greet(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<Conn> {
    set_socket_options(&tcp)?;
    let begun = Instant::now();
    let tls = acceptor.accept(tcp).await?;
    let (tcp, session) = tls.get_ref();
    let (peer, role) = (peer_of(session)?, dialler_role(session)?.of_other_end());
    fit_to_line(tcp, begun.elapsed())?;
    Ok(Conn { io: Box::new(tls), peer, role })
}

/// Lets enough be on its way to whoever calls. `answer` is how long one of their answers took: a round trip and a little
/// more. On a short line the kernel does better by itself: it gives less where less is of use.
fn fit_to_line(tcp: &TcpStream, answer: Duration) -> io::Result<()> {
    if answer >= LONG_LINE && grants_more() {
        rustix::net::sockopt::set_socket_send_buffer_size(tcp, SEND_BUFFER_BYTES)?;
        SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    }
    Ok(())
}

/// Whether the kernel grants a program larger buffers than it gives by itself. What it gives by itself, usually 4 MiB, lets
/// no more than 28 MB/s leave at 100 ms; but many kernels grant a program only a tenth of that.
fn grants_more() -> bool {
    let last_number =
        |path: &str| -> Option<usize> { std::fs::read_to_string(path).ok()?.split_whitespace().last()?.parse().ok() };
    let granted = last_number("/proc/sys/net/core/wmem_max").map(|bytes| 2 * bytes.min(SEND_BUFFER_BYTES));
    let given = last_number("/proc/sys/net/ipv4/tcp_wmem");
    granted.zip(given).is_some_and(|(granted, given)| granted > given)
}

/// Connects to the first of the address's hosts that answers.
async fn dial_tcp(address: &str) -> io::Result<TcpStream> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in lookup_host(address).await? {
        outcome = match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(too_slow(ADDRESS_TIMEOUT)),
        };
    }
    outcome
}

/// Small frames leave at once, and a dead peer is noticed by the kernel even while nobody asks it anything.
fn set_socket_options(tcp: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_COUNT)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_user_timeout(tcp, USER_TIMEOUT_MS)?;
    Ok(())
}

fn too_slow(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs_f32()))
}

/// The protocol that tells what the end that has dialled is.
fn protocol(dialler: Role) -> &'static [u8] {
    match dialler {
        Role::Client => ALPN,
        Role::Server => ALPN_REVERSE,
    }
}

/// What the end that has dialled is. TLS lets a peer that names no protocol pass; we do not.
fn dialler_role(tls: &CommonState) -> io::Result<Role> {
    let spoken = |role: &Role| tls.alpn_protocol() == Some(protocol(*role));
    [Role::Client, Role::Server]
        .into_iter()
        .find(spoken)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it does not speak Farshore's protocol, version 1"))
}

/// The device whose key was proved in the handshake.
fn peer_of(tls: &CommonState) -> io::Result<PeerId> {
    let certificate = tls.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("TLS let a caller without certificate pass"))?;
    claimed_id(certificate).map_err(io::Error::other)
}

/// The device that the certificate speaks of. That it is the one at the other end, the handshake's signature proves.
fn claimed_id(certificate: &CertificateDer<'_>) -> Result<PeerId, Error> {
    Ok(device_id(&ParsedCertificate::try_from(certificate)?.subject_public_key_info()))
}

fn client_config(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
    expect: PeerId,
    role: Role,
) -> Result<ClientConfig, Error> {
    let verifier = OnlyThisDevice { expect, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![protocol(role).to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

fn server_config(identity: &Identity, provider: &Arc<CryptoProvider>) -> Result<ServerConfig, Error> {
    let verifier = AnyDevice { algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = [Role::Client, Role::Server].map(|dialler| protocol(dialler).to_vec()).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Another device than the expected one is at the other end.
#[derive(Debug, thiserror::Error)]
#[error("device {found} answers there, not {expected}; the address is out of date, or somebody stands in between")]
struct WrongDevice {
    expected: PeerId,
    found: PeerId,
}

/// Makes a permission error of a handshake that ended because of [`WrongDevice`].
fn explain_refusal(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    if let Some(Error::Other(OtherError(other))) = inner
        && let Some(wrong) = other.downcast_ref::<WrongDevice>()
    {
        return io::Error::new(io::ErrorKind::PermissionDenied, wrong.to_string());
    }
    error
}

/// The dialling side's rule: the key in the certificate is that of the device we want, and the handshake is signed
/// with it.
#[derive(Debug)]
struct OnlyThisDevice {
    expect: PeerId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OnlyThisDevice {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = claimed_id(end_entity)?;
        if found != self.expect {
            return Err(Error::Other(OtherError(Arc::new(WrongDevice { expected: self.expect, found }))));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_ed25519(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// The listening side's rule: there is a key in the certificate, and the handshake is signed with it.
#[derive(Debug)]
struct AnyDevice {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyDevice {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        claimed_id(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_ed25519(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// That the handshake is signed with the Ed25519 key in the certificate. Other kinds of keys are no device keys.
fn verify_ed25519(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    if dss.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    verify_tls13_signature(message, cert, dss, algorithms)
}

#[cfg(test)]
mod tests;
