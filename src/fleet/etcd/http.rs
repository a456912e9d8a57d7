//! One request to one endpoint: a POST of JSON over HTTP/1.1, with TLS that knows the fleet's own authority alone.
//!
//! Nothing of the environment is read: no proxies, no certificates of the system's, no SSLKEYLOGFILE. No redirection is
//! followed. Connections are kept; no thread is started.

use super::UNREACHABLE;
use super::pace::Pace;
use super::refusal::{Failure, Kind, failed_tls, refused};
use crate::fact::Fact;
use crate::fleet::conf::{Conf, read_private};
use crate::system::clock::instant;
use crate::system::files::{FileError, read_trusted};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Timeout};

/// For a connection and its handshake: on a network of one's own these take two milliseconds, and an answer that takes its
/// time is one that the next endpoint can give.
const CONNECT: Duration = Duration::from_millis(400);
/// For a request, connection included: longer than the half second that an election takes at least.
pub(super) const REQUEST: Duration = Duration::from_secs(1);
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);
/// Connections that are kept an endpoint: the agent has at most 64 threads.
const KEPT: usize = 64;
/// Bytes of the headers of an answer, at most: etcd's have about 500.
const HEADERS: usize = 16 << 10;
/// Addresses of one name, at most; ureq holds so many.
const ADDRESSES: usize = 16;

/// What a request is.
pub(super) struct Request<'a> {
    /// Behind the endpoint's address, such as `/v3/kv/txn`.
    pub(super) path: &'static str,
    /// JSON.
    pub(super) body: &'a [u8],
    /// What came of `/v3/auth/authenticate`.
    pub(super) token: Option<&'a str>,
    /// Whether nobody may see what a refusal of it says: it may be what was sent.
    pub(super) is_secret: bool,
    /// Until then.
    pub(super) deadline: Instant,
    /// For it alone, where there is no reason to wait for longer.
    pub(super) at_most: Duration,
    /// Bytes of the answer, at most.
    pub(super) limit: u64,
}

/// What was answered with status 200.
pub(super) struct Answer {
    /// JSON, as far as can be told.
    pub(super) body: Vec<u8>,
    /// What the server's clock said (RFC 9110 section 6.6.1).
    pub(super) date: Option<String>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Sends requests.
pub(super) struct Client {
    agent: Agent,
    pub(super) pace: Pace,
}

impl Client {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// `bad-certificate`, with the file.
    pub(super) fn new(conf: &Conf) -> Result<Self, Fact> {
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
        if let Some(ca) = &conf.ca {
            let authorities = read_certificates(ca)?;
            let own = conf.cert.as_ref().map(|(cert, key)| Own::read(cert, key)).transpose()?;
            check(&authorities, ca, own.as_ref())?;
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(&authorities)));
            tls = tls.client_cert(own.map(|own| ClientCert::new_with_certs(&certificates(&own.chain), own.for_ureq)));
        } else {
            // Nobody is believed.
            tls = tls.root_certs(RootCerts::new_with_certs(&[]));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent("pam_totp")
            .max_response_header_size(HEADERS)
            .max_idle_age(IDLE)
            .max_idle_connections(KEPT.saturating_mul(conf.endpoints.len()))
            .max_idle_connections_per_host(KEPT)
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Addresses);
        Ok(Self { agent, pace: Pace::default() })
    }

    /// Sends one request to one endpoint, once.
    ///
    /// # Errors
    /// [`Failure`]: also where the answer is a refusal.
    pub(super) fn send(&self, endpoint: &str, request: &Request<'_>) -> Result<Answer, Failure> {
        let start = instant();
        let patience = self.pace.patience(start);
        let time = request.deadline.saturating_duration_since(start).min(request.at_most.saturating_mul(patience));
        if time.is_zero() {
            return Err(Failure::new(Kind::NotSent, unreachable(endpoint).with("error", "deadline")));
        }
        let mut post =
            self.agent.post(format!("{endpoint}{}", request.path)).header("content-type", "application/json");
        if let Some(token) = request.token {
            // Without `Bearer`, with which etcd refuses it.
            post = post.header("authorization", token);
        }
        let connect = time.min(CONNECT.saturating_mul(patience));
        let config = post.config().timeout_global(Some(time)).timeout_connect(Some(connect));
        let failed =
            |error| failed(endpoint, error, Waited { connect: connect >= CONNECT, all: time >= request.at_most });
        let mut response = config.build().send(request.body).map_err(failed)?;
        let status = response.status().as_u16();
        let date = response.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
        let body = response.body_mut().with_config().limit(request.limit).read_to_vec();
        let body = body.map_err(failed)?;
        if status != 200 {
            return Err(refused(endpoint, status, &body, request.is_secret));
        }
        Ok(Answer { body, date, took: instant().saturating_duration_since(start) })
    }
}

impl Client {
    /// The time of an endpoint's clock, and how long the answer took. `None`: it does not say.
    pub(super) fn date(&self, endpoint: &str, deadline: Instant) -> Option<(String, Duration)> {
        let start = instant();
        let time = deadline.saturating_duration_since(start).min(REQUEST);
        if time.is_zero() {
            return None;
        }
        let config = self.agent.get(format!("{endpoint}/version")).config().timeout_global(Some(time));
        let response = config.timeout_connect(Some(time.min(CONNECT))).build().call().ok()?;
        let date = response.headers().get("date")?.to_str().ok()?.to_owned();
        Some((date, instant().saturating_duration_since(start)))
    }
}

/// An endpoint that gave no answer.
pub(super) fn unreachable(endpoint: &str) -> Fact {
    Fact::new(UNREACHABLE).with("endpoint", endpoint)
}

/// Whether an answer was waited for as long as usual, if it came to that. What a login has no time left for says nothing of the
/// cluster.
#[derive(Clone, Copy)]
struct Waited {
    /// Until there was a connection.
    connect: bool,
    /// In all.
    all: bool,
}

/// Where no answer came: what that says.
fn failed(endpoint: &str, error: ureq::Error, waited: Waited) -> Failure {
    let broken = |words: &str| {
        let fact = Fact::new("bad-etcd-answer").with("endpoint", endpoint).with("error", words.replace(' ', "-"));
        Failure::new(Kind::Ambiguous, fact.or("is this etcd's port for clients, and nothing between here and there?"))
    };
    match error {
        ureq::Error::Rustls(error) => failed_tls(endpoint, &error),
        ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => failed_tls(endpoint, error),
            None => {
                let was_sent = error.kind() != io::ErrorKind::ConnectionRefused;
                let kind = if was_sent { Kind::Ambiguous } else { Kind::NotSent };
                Failure::new(kind, unreachable(endpoint).with_error(error))
            }
        },
        ureq::Error::Timeout(timeout) => {
            let (kind, is_late) = match timeout {
                Timeout::Connect => (Kind::NotSent, waited.connect),
                Timeout::Resolve => (Kind::NotSent, waited.all),
                _ => (Kind::Ambiguous, waited.all),
            };
            Failure { is_late, ..Failure::new(kind, unreachable(endpoint).with("error", "timed-out")) }
        }
        ureq::Error::HostNotFound => {
            Failure::new(Kind::NotSent, unreachable(endpoint).with("error", "no-address-of-that-name"))
        }
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => broken("too large"),
        _ => broken("not HTTP"),
    }
}

/// ureq's own resolver starts a thread a connection.
#[derive(Debug)]
struct Addresses;

impl Resolver for Addresses {
    /// Numbers are taken as they are. Names are looked up, which may take as long as resolv.conf(5) lets it.
    fn resolve(&self, uri: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().ok_or(ureq::Error::HostNotFound)?;
        let port = authority.port_u16().ok_or(ureq::Error::HostNotFound)?;
        let found: Vec<SocketAddr> = match authority.as_str().parse() {
            Ok(address) => vec![address],
            Err(_) => (authority.host(), port).to_socket_addrs().map_err(|_| ureq::Error::HostNotFound)?.collect(),
        };
        let mut addresses = self.empty();
        found.into_iter().take(ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

// ---- The files ----

/// This host's certificate, and its key.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The same, as ureq wants it.
    for_ureq: PrivateKey<'static>,
    path: PathBuf,
}

fn bad_file(path: &Path, words: &'static str) -> Fact {
    Fact::new("bad-certificate").with_path(path).or(words)
}

fn unreadable(error: &FileError) -> Fact {
    Fact::new("bad-certificate").because(&error.fact())
}

/// What everybody may know, and only root may write.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fact> {
    let text = read_trusted(path).map_err(|error| unreadable(&error))?;
    let text = text.ok_or_else(|| bad_file(path, "there is no such file"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| bad_file(path, "not PEM, or no certificate in it: -----BEGIN CERTIFICATE-----"))
}

impl Own {
    fn read(cert: &Path, key: &Path) -> Result<Self, Fact> {
        let text = read_private(key).map_err(|error| unreadable(&error))?;
        let text = text.ok_or_else(|| bad_file(key, "there is no such file"))?;
        let parsed = PrivateKeyDer::from_pem_slice(text.expose()).ok();
        let parsed = parsed.zip(PrivateKey::from_pem(text.expose()).ok());
        let no_key = || bad_file(key, "not PEM, or no key without a passphrase in it: -----BEGIN PRIVATE KEY-----");
        let (of_rustls, for_ureq) = parsed.ok_or_else(no_key)?;
        Ok(Self { chain: read_certificates(cert)?, key: of_rustls, for_ureq, path: cert.to_owned() })
    }
}

/// Once with rustls itself: ureq leaves out authorities that it cannot read, and panics where key and certificate do not
/// belong together.
fn check(authorities: &[CertificateDer<'static>], ca: &Path, own: Option<&Own>) -> Result<(), Fact> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).map_err(|_| bad_file(ca, "one of these is no certificate of an authority"))?;
    }
    let Some(own) = own else { return Ok(()) };
    let bad = |_| bad_file(&own.path, "this certificate and `key` do not belong together");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(bad)?.with_root_certificates(roots);
    builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).map(drop).map_err(bad)
}

fn certificates(of: &[CertificateDer<'_>]) -> Vec<Certificate<'static>> {
    of.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect()
}
