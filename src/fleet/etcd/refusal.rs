//! What it means that etcd, or TLS on the way to it, has refused: whether something may have happened, and what to do.

use crate::fact::Fact;
use rustls::{AlertDescription, CertificateError};
use serde::Deserialize;

/// A request that did not come to what it was sent for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) fact: Fact,
    /// It was waited for as long as usual, in vain.
    pub(super) is_late: bool,
}

/// What has become of such a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody has got it. Another endpoint may.
    NotSent,
    /// etcd says no, and nothing has happened. Waiting does not help; another endpoint may be put right.
    Refused,
    /// The same, for want of a fresh token.
    Token,
    /// It may have happened, or still happen.
    Ambiguous,
    /// It may have happened, and no endpoint can help.
    Final,
}

impl Failure {
    pub(super) const fn new(kind: Kind, fact: Fact) -> Self {
        Self { kind, fact, is_late: false }
    }

    /// The same fact, of something that has to be put right.
    pub(super) const fn refused(fact: Fact) -> Self {
        Self::new(Kind::Refused, fact)
    }
}

/// Codes of gRPC (google.rpc.Code) with which nothing has happened: a request that cannot be, something that is not there, no
/// right to it, nobody known.
const DEFINITE: [i64; 4] = [3, 5, 7, 16];
/// Of those: who asks is not known.
const UNAUTHENTICATED: i64 = 16;
/// Cut off, or without a leader: whatever was asked for may have happened.
const UNAVAILABLE: i64 = 14;

/// What is in the body of a refusal. 3.4 has `error` too, with the same words; some refusals are plain text.
#[derive(Deserialize)]
struct Body {
    code: Option<i64>,
    message: Option<String>,
}

/// Words in etcd's messages, and what they mean: the fact's word, and the way out.
const KNOWN: [(&str, &str, &str); 11] = [
    (
        "CommonName of client",
        "bad-certificate",
        "etcd's gateway takes no client certificate with a CN while auth is on: issue this host's with an empty subject, and a \
         SAN alone",
    ),
    ("database space exceeded", "etcd-nospace", NO_SPACE),
    (
        "permission denied",
        "etcd-refused",
        "this host's etcd user needs: etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX",
    ),
    (
        "invalid user ID or password",
        "etcd-refused",
        "user or password is wrong: etcdctl user passwd USER, and password_file",
    ),
    ("authentication is not enabled", "etcd-refused", "the cluster is open to whoever gets to it: etcdctl auth enable"),
    (
        "user name is empty",
        "etcd-refused",
        "the cluster wants a user: write `user` and `password_file` into the configuration",
    ),
    ("authentication handshake failed", "bad-certificate", OWN_PORT),
    ("bad certificate", "bad-certificate", OWN_PORT),
    // What TLS 1.3 makes of it; also a node that is about to end says so.
    ("connection closed", "etcd-refused", OWN_PORT),
    ("failed to write client preface", "etcd-refused", OWN_PORT),
    ("required revision has been compacted", super::COMPACTED, "it took too long: again"),
];

const OWN_PORT: &str = "where this stays: etcd's gateway is refused by etcd's own port, and the server's certificate needs \
                        extendedKeyUsage serverAuth,clientAuth";
const NO_SPACE: &str = "etcd is full and takes no more: compact and defragment it, then etcdctl alarm disarm; \
     --auto-compaction-retention=5m keeps it from coming back";

/// Messages with which etcd wants a new token, besides code 16; with code 3 they come.
const WANTS_TOKEN: [&str; 3] = ["user name is empty", "revision of auth store is old", "invalid auth token"];

/// An answer with another status than 200. What it says is not in the fact where it is secret, unless it is one of what is
/// known.
pub(super) fn refused(endpoint: &str, status: u16, body: &[u8], is_secret: bool) -> Failure {
    let parsed: Option<Body> = serde_json::from_slice(body).ok();
    let code = parsed.as_ref().and_then(|body| body.code);
    let text = String::from_utf8_lossy(body);
    let message = parsed.and_then(|body| body.message).unwrap_or_else(|| text.trim().to_owned());
    let known = KNOWN.iter().find(|(words, ..)| message.contains(words));
    let (word, way_out) = known.map_or(("etcd-refused", ""), |(_, word, way_out)| (*word, *way_out));
    let mut fact = Fact::new(word).with("endpoint", endpoint).with_number("status", status);
    if let Some(code) = code {
        fact = fact.with_number("code", code);
    }
    let told = known.map(|(words, ..)| *words).or((!is_secret).then_some(message.as_str()));
    let fact = fact.with("message", told.unwrap_or("-").replace([' ', '\n'], "-")).or(way_out);
    let wants_token = code == Some(UNAUTHENTICATED) || WANTS_TOKEN.iter().any(|words| message.contains(words));
    // Nothing gets as far as the keys where etcd says one of what is known, except that it is full or cut off.
    let is_known = known.is_some() && word != "etcd-nospace" && code != Some(UNAVAILABLE);
    let is_definite = is_known || code.is_some_and(|code| DEFINITE.contains(&code));
    let kind = match (is_definite, wants_token) {
        (true, true) => Kind::Token,
        (true, false) => Kind::Refused,
        (false, _) => Kind::Ambiguous,
    };
    Failure::new(kind, fact)
}

/// A handshake that failed, or an alert later on.
pub(super) fn failed_tls(endpoint: &str, error: &rustls::Error) -> Failure {
    let name = format!("{error:?}");
    let name = name.split([' ', '{']).next().unwrap_or_default();
    let fact = |way_out| Fact::new("bad-certificate").with("endpoint", endpoint).with("error", name).or(way_out);
    match error {
        // Found in the handshake: nothing was sent yet.
        rustls::Error::InvalidCertificate(error) => Failure::refused(fact(match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired: issue a new one"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: is this host's clock right?"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is not for this name or address: it needs it as a SAN"
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the server's certificate is not of the authority in `ca`"
            }
            _ => "the server's certificate is not good for a server",
        })),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied,
        ) => {
            // TLS 1.3 has the client send before the server has looked at its certificate: not definite.
            let way_out =
                "etcd does not take this host's certificate: `cert` has to be of its --trusted-ca-file, and valid";
            Failure::new(Kind::Ambiguous, fact(way_out))
        }
        _ => {
            let fact = super::http::unreachable(endpoint).with("error", name);
            Failure::new(Kind::Ambiguous, fact)
        }
    }
}
