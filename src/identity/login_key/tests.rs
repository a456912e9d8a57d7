use super::*;
use crate::options::Options;
use crate::policy::{Document, Policy};

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn blob(kind: &str, fields: &[&[u8]]) -> Vec<u8> {
    [string(kind.as_bytes())].into_iter().chain(fields.iter().map(|field| string(field))).flatten().collect()
}

fn line(kind: &str, blob: &[u8]) -> String {
    format!("publickey {kind} {}\n", Base64::encode_string(blob))
}

fn key(number: u8) -> String {
    line("ssh-ed25519", &blob("ssh-ed25519", &[&[number; 32]]))
}

/// A certificate of alice's, with this type and key id.
fn certificate(kind: u32, key_id: &str, behind: &[u8]) -> Vec<u8> {
    let authority = blob("ssh-ed25519", &[&[9; 32]]);
    [
        blob("ssh-ed25519-cert-v01@openssh.com", &[b"nonce", &[1; 32]]),
        7_u64.to_be_bytes().to_vec(),
        kind.to_be_bytes().to_vec(),
        string(key_id.as_bytes()),
        string(&string(b"alice")),
        [0; 16].to_vec(),
        string(b""),
        string(&string(b"permit-pty")),
        string(b""),
        string(&authority),
        string(b"signature"),
        behind.to_vec(),
    ]
    .concat()
}

fn certificates(ca: &str) -> CertIdentity {
    let text = format!(
        "version = 1\n[defaults]\nstore = \"system\"\n[service.sshd]\nidentity = \"login-key\"\ncert_identity = {{ by = \"key-id\", ca = [\"{ca}\"] }}\n"
    );
    let document = Document::parse(text.into_bytes()).unwrap();
    Policy::new("sshd", &Options::default(), &document).cert_identity.value.unwrap()
}

#[test]
fn the_one_key_names_its_holder() {
    // sha256 of the blob, as `ssh-keygen -l` has it.
    let expected =
        format!("SHA256:{}", Base64Unpadded::encode_string(&Sha256::digest(blob("ssh-ed25519", &[&[1; 32]]))));
    for info in
        [key(1), key(1).trim_end().to_owned(), key(1) + &key(1), "password\n".to_owned() + &key(1) + "hostbased x y\n"]
    {
        assert_eq!(holder(info.as_bytes(), None).as_ref(), Ok(&expected), "{info}");
        assert!(is_accepted(info.as_bytes()) && is_holder(&expected));
    }
}

/// What ssh-keygen makes only with a security key at hand, by PROTOCOL.u2f of OpenSSH.
#[test]
fn a_security_key_is_a_key_like_any_other() {
    let (key, application) = ([1; 32], b"ssh:".as_slice());
    let fields: [&[&[u8]]; 2] = [&[&key, application], &[b"nistp256", &[4; 65], application]];
    for (kind, fields) in ["sk-ssh-ed25519", "sk-ecdsa-sha2-nistp256"].into_iter().zip(fields) {
        let plain = format!("{kind}@openssh.com");
        let whole = blob(&plain, fields);
        assert_eq!(holder(line(&plain, &whole).as_bytes(), None), Ok(fingerprint(&whole)));
        let certified = format!("{kind}-cert-v01@openssh.com");
        // Behind the key a certificate is the same as that of any other kind.
        let rest = certificate(1, "alice", b"").split_off(blob(CERTIFICATES[0].0, &[b"nonce", &[1; 32]]).len());
        let whole = [blob(&certified, &[&[b"nonce".as_slice()], fields].concat()), rest].concat();
        let ours = certificates(&fingerprint(&blob("ssh-ed25519", &[&[9; 32]])));
        let named = holder(line(&certified, &whole).as_bytes(), Some(&ours));
        assert_eq!(named.as_deref(), Ok("key-id:alice"), "{certified}");
    }
}

#[test]
fn nothing_else_names_anybody() {
    let ed25519 = blob("ssh-ed25519", &[&[1; 32]]);
    let base64 = Base64::encode_string(&ed25519);
    for (info, expected) in [
        (String::new(), NoHolder::None),
        ("\n".to_owned(), NoHolder::None),
        ("password\nkeyboard-interactive/pam\n".to_owned(), NoHolder::None),
        ("publickeyx y z\n".to_owned(), NoHolder::None),
        (key(1) + &key(2), NoHolder::Several),
        ("publickey".to_owned(), NoHolder::Unreadable),
        ("publickey ssh-ed25519\n".to_owned(), NoHolder::Unreadable),
        (format!("publickey ssh-ed25519 {base64} comment\n"), NoHolder::Unreadable),
        (format!("publickey  ssh-ed25519 {base64}\n"), NoHolder::Unreadable),
        (format!("publickey ssh-ed25519 {base64}\r\n"), NoHolder::Unreadable),
        (format!("publickey ssh-rsa {base64}\n"), NoHolder::Unreadable),
        (format!("publickey ssh-ed25519 {}\n", base64.trim_end_matches('=').to_owned() + "!"), NoHolder::Unreadable),
        ("publickey ssh-ed25519 AAAA\n".to_owned(), NoHolder::Unreadable),
        (key(1) + "publickey garbage\n", NoHolder::Unreadable),
        (line("ssh-dss", &blob("ssh-dss", &[b"p", b"q", b"g", b"y"])), NoHolder::Kind),
        (line("ssh-new@example.org", &blob("ssh-new@example.org", &[b"x"])), NoHolder::Kind),
        (line("ssh-ed25519-cert-v01@openssh.com", &certificate(1, "alice", b"")), NoHolder::Certificate),
    ] {
        assert_eq!(holder(info.as_bytes(), None), Err(expected), "{info:?}");
    }
    assert_eq!(holder(b"publickey \xff", None), Err(NoHolder::Unreadable));
    for unreadable in [&b""[..], b"\n", b"password\n", b"publickey ssh-ed25519 AAAA\n", b"publickey \xff \xff\n"] {
        assert!(!is_accepted(unreadable));
    }
}

#[test]
fn a_certificate_names_its_holder_where_the_policy_says_so() {
    let kind = "ssh-ed25519-cert-v01@openssh.com";
    let ours = fingerprint(&blob("ssh-ed25519", &[&[9; 32]]));
    let read = |blob: &[u8], ca: &str| holder(line(kind, blob).as_bytes(), Some(&certificates(ca)));
    assert_eq!(read(&certificate(1, "alice@example.org", b""), &ours).as_deref(), Ok("key-id:alice@example.org"));
    let other = fingerprint(b"other");
    for (blob, ca, expected) in [
        (certificate(1, "alice", b""), &other, NoHolder::Authority),
        (certificate(2, "alice", b""), &ours, NoHolder::Unreadable),
        (certificate(1, "alice", b"more"), &ours, NoHolder::Unreadable),
        (certificate(1, "", b""), &ours, NoHolder::KeyId),
        (certificate(1, "alice smith", b""), &ours, NoHolder::KeyId),
        (certificate(1, &"a".repeat(65), b""), &ours, NoHolder::KeyId),
    ] {
        assert_eq!(read(&blob, ca), Err(expected));
    }
    // Cut off anywhere it is no certificate any more.
    let whole = certificate(1, "alice", b"");
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length], &ours), Err(NoHolder::Unreadable), "{length}");
    }
}
