//! What the gateway is told, and what is believed of what it says.
//!
//! protobuf's JSON: 64-bit numbers are strings, bytes are base64 (RFC 4648 section 4), and what is zero, false or empty is not
//! there. So an answer of a few fields may be any answer, and `{}` is one: nothing is taken for granted that is not there.

use super::{Guard, Kv, Member, Put};
use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Keys a page of a list.
pub(super) const PAGE: usize = 500;
/// Operations in a transaction, at most: etcd's --max-txn-ops.
const MOST_OPERATIONS: usize = 128;
/// Alarms, at most: one a member and kind is expected.
const MOST_ALARMS: usize = 32;
/// Letters of a token, of a version and of an alarm, at most.
const LONGEST_TEXT: usize = 4096;

// ---- Told ----

fn base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Reads keys, all at one revision.
pub(super) fn read(keys: &[&[u8]]) -> String {
    let ranges: Vec<_> = keys.iter().map(|key| format!(r#"{{"request_range":{{"key":"{}"}}}}"#, base64(key))).collect();
    format!(r#"{{"success":[{}]}}"#, ranges.join(","))
}

/// Reads a page: what is from `from` up to `end`; at a revision, or 0: as it is now.
pub(super) fn page(from: &[u8], end: &[u8], revision: u64) -> String {
    let (from, end) = (base64(from), base64(end));
    format!(r#"{{"key":"{from}","range_end":"{end}","limit":"{PAGE}","revision":"{revision}"}}"#)
}

/// Writes, if all guards hold.
pub(super) fn commit(guards: &[Guard], puts: &[Put]) -> String {
    let guard = |guard: &Guard| {
        let Guard { key, revision } = guard;
        let key = base64(key);
        format!(r#"{{"target":"MOD","result":"EQUAL","key":"{key}","mod_revision":"{revision}"}}"#)
    };
    let put =
        |put: &Put| format!(r#"{{"request_put":{{"key":"{}","value":"{}"}}}}"#, base64(&put.key), base64(&put.value));
    let guards: Vec<_> = guards.iter().map(guard).collect();
    let puts: Vec<_> = puts.iter().map(put).collect();
    format!(r#"{{"compare":[{}],"success":[{}]}}"#, guards.join(","), puts.join(","))
}

/// The first key behind all that begin with this. `None`: there is none.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    let byte = end.last_mut()?;
    *byte = byte.checked_add(1)?;
    Some(end)
}

// ---- Said ----

/// A number: as text, as the gateway writes those of 64 bits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_plain.then(|| text.parse().ok()).flatten();
        number.map(Self).ok_or_else(|| D::Error::custom("not a number of 64 bits"))
    }
}

/// Bytes in base64.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Base64::decode_vec(&text).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

/// At most so many of something: whoever sends more is not read to the end.
#[derive(Debug)]
struct Few<T, const MOST: usize>(Vec<T>);

impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Elements<T, MOST> {
            type Value = Few<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut few = Vec::new();
                while let Some(element) = elements.next_element()? {
                    if few.len() >= MOST {
                        return Err(A::Error::custom("too many elements"));
                    }
                    few.push(element);
                }
                Ok(Few(few))
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    cluster_id: Number,
    member_id: Number,
    revision: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    key: Bytes,
    value: Bytes,
    mod_revision: Number,
    create_revision: Number,
    version: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Range {
    header: Header,
    kvs: Few<Entry, PAGE>,
    more: bool,
    count: Number,
}

#[derive(Debug, Deserialize)]
struct Done {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Operation {
    response_range: Option<Range>,
    response_put: Option<Done>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Transaction {
    header: Header,
    succeeded: bool,
    responses: Few<Operation, MOST_OPERATIONS>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    header: Header,
    version: String,
    #[serde(rename = "dbSize")]
    db_size: Number,
    #[serde(rename = "dbSizeInUse")]
    db_size_in_use: Number,
    #[serde(rename = "dbSizeQuota")]
    quota: Option<Number>,
    leader: Number,
    #[serde(rename = "raftTerm")]
    raft_term: Number,
    errors: Few<String, MOST_ALARMS>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Authenticated {
    token: String,
}

/// What is wrong with an answer, in words without blanks.
pub(super) type Wrong = &'static str;

/// What was said, and by which cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said<T> {
    pub(super) cluster: u64,
    pub(super) what: T,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Wrong> {
    serde_json::from_slice(body).map_err(|_| "not-what-etcd-says")
}

impl Header {
    /// Who says it; one that has a revision, without which nothing is said about keys.
    const fn cluster(&self) -> Result<u64, Wrong> {
        match (self.cluster_id, self.revision) {
            (Number(0), _) | (_, Number(0)) => Err("no-header"),
            (Number(cluster), _) => Ok(cluster),
        }
    }
}

impl Entry {
    /// One that can be there at this revision.
    fn kv(self, revision: u64) -> Result<Kv, Wrong> {
        let kv = Kv {
            key: self.key.0,
            value: self.value.0,
            revision: self.mod_revision.0,
            version: self.version.0,
            created: self.create_revision.0,
        };
        let is_possible = kv.version > 0 && kv.created > 0 && kv.created <= kv.revision && kv.revision <= revision;
        is_possible.then_some(kv).ok_or("impossible-revision")
    }
}

/// The answer to [`read`].
pub(super) fn values(body: &[u8], keys: &[&[u8]]) -> Result<Said<Vec<Option<Kv>>>, Wrong> {
    let transaction: Transaction = parse(body)?;
    let cluster = transaction.header.cluster()?;
    if !transaction.succeeded || transaction.responses.0.len() != keys.len() {
        return Err("not-all-answered");
    }
    let revision = transaction.header.revision.0;
    let value = |(operation, key): (Operation, &&[u8])| {
        let range = operation.response_range.ok_or("not-a-range")?;
        let found = range.kvs.0.len();
        if range.more || found > 1 || u64::try_from(found) != Ok(range.count.0) {
            return Err("not-one-key");
        }
        let kv = range.kvs.0.into_iter().next().map(|entry| entry.kv(revision)).transpose()?;
        if kv.as_ref().is_some_and(|kv| kv.key != **key) { Err("another-key") } else { Ok(kv) }
    };
    let what = transaction.responses.0.into_iter().zip(keys).map(value).collect::<Result<_, _>>()?;
    Ok(Said { cluster, what })
}

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) kvs: Vec<Kv>,
    /// At which the list is.
    pub(super) revision: u64,
    /// Whether there is one behind it.
    pub(super) more: bool,
}

/// The answer to [`self::page`]: of keys from `from` that begin with `prefix`, at this revision (0: at any).
pub(super) fn listed(body: &[u8], prefix: &[u8], from: &[u8], at: u64) -> Result<Said<Page>, Wrong> {
    let range: Range = parse(body)?;
    let (cluster, revision, more) = (range.header.cluster()?, range.header.revision.0, range.more);
    let at = if at == 0 { revision } else { at };
    if revision < at {
        return Err("impossible-revision");
    }
    let mut kvs: Vec<Kv> = Vec::new();
    for entry in range.kvs.0 {
        let kv = entry.kv(at)?;
        let is_next = kvs.last().map_or(kv.key.as_slice() >= from, |last| kv.key > last.key);
        if !is_next || !kv.key.starts_with(prefix) {
            return Err("another-key");
        }
        kvs.push(kv);
    }
    let is_whole = if more { !kvs.is_empty() } else { u64::try_from(kvs.len()) == Ok(range.count.0) };
    if is_whole { Ok(Said { cluster, what: Page { kvs, revision: at, more } }) } else { Err("not-all-answered") }
}

/// The answer to [`commit`]: at which revision it was done. `None`: a guard does not hold.
pub(super) fn committed(body: &[u8], guards: &[Guard], puts: usize) -> Result<Said<Option<u64>>, Wrong> {
    let transaction: Transaction = parse(body)?;
    let (cluster, revision) = (transaction.header.cluster()?, transaction.header.revision.0);
    let latest = guards.iter().map(|guard| guard.revision).max().unwrap_or(0);
    let responses = &transaction.responses.0;
    let what = match transaction.succeeded {
        false if responses.is_empty() && revision >= latest => Ok(None),
        // The one way to it.
        true if responses.len() == puts
            && puts > 0
            && responses.iter().all(|response| response.response_put.is_some())
            && revision > latest =>
        {
            Ok(Some(revision))
        }
        _ => Err("neither-done-nor-refused"),
    };
    what.map(|what| Said { cluster, what })
}

/// The answer to `/v3/auth/authenticate`: a token that can be in a header.
pub(super) fn token(body: &[u8]) -> Result<String, Wrong> {
    let Authenticated { token } = parse(body)?;
    let is_one = (1..=LONGEST_TEXT).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one { Ok(token) } else { Err("no-token") }
}

/// The answer to `/v3/maintenance/status`.
pub(super) fn member(body: &[u8]) -> Result<Member, Wrong> {
    let status: Status = parse(body)?;
    if status.header.cluster_id.0 == 0 || status.version.is_empty() || status.version.len() > LONGEST_TEXT {
        return Err("no-header");
    }
    // `memberID:8211f1d0f64f3269 alarm:NOSPACE `, or words.
    let alarm = |text: &String| {
        let name = text.split_once("alarm:").map_or(text.as_str(), |(_, name)| name).trim();
        name.chars().take(LONGEST_TEXT).collect()
    };
    Ok(Member {
        id: status.header.member_id.0,
        cluster: status.header.cluster_id.0,
        version: status.version,
        db_size: status.db_size.0,
        db_size_in_use: status.db_size_in_use.0,
        quota: status.quota.map(|quota| quota.0),
        leader: status.leader.0,
        raft_term: status.raft_term.0,
        alarms: status.errors.0.iter().map(alarm).collect(),
        ahead: None,
    })
}
