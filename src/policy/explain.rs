//! A policy in words, for `pam-totp check`.

use super::values::Span;
use super::{Enrolment, EnrolmentKind, Identity, Origin, Policy, Qr, Setting, StoreKind, Via};
use std::fmt::Display;

/// One key, its value, and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// As in the policy file.
    pub key: &'static str,
    /// What holds.
    pub value: String,
    /// Who says so.
    pub origin: Origin,
}

fn line<T>(key: &'static str, setting: &Setting<T>, value: impl Display) -> Line {
    Line { key, value: value.to_string(), origin: setting.origin }
}

/// Everything that holds at a service, in the order of the manual.
pub fn explain(policy: &Policy) -> Vec<Line> {
    let text = |setting: &Setting<Vec<u8>>| format!("\"{}\"", String::from_utf8_lossy(setting));
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let window = policy.window.value;
    let max_window = policy.max_window.value.map_or("not set".to_owned(), |size| size.to_string());
    let mut lines = vec![
        line(
            "store",
            &policy.store,
            match policy.store.value {
                StoreKind::Home => "\"home\"",
                StoreKind::System => "\"system\"",
                StoreKind::Fleet => "\"fleet\"",
            },
        ),
        line("secret", &policy.secret, text(&policy.secret)),
        line("state_dir", &policy.state_dir, format!("\"{}\"", policy.state_dir.display())),
        line(
            "via",
            &policy.via,
            match policy.via.value {
                Via::Process => "\"process\"",
                Via::Agent => "\"agent\"",
            },
        ),
        line("agent_socket", &policy.agent_socket, format!("\"{}\"", policy.agent_socket.display())),
        line("window", &policy.window, format!("{{ behind = {}, ahead = {} }}", window.behind, window.ahead)),
        line("max_window", &policy.max_window, max_window),
        line("prompt", &policy.prompt, text(&policy.prompt)),
        line("echo", &policy.echo, policy.echo.value),
        line(
            "identity",
            &policy.identity,
            match policy.identity.value {
                Identity::PamUser => "\"pam-user\"",
                Identity::Caller => "\"caller\"",
                Identity::LoginKey => "\"login-key\"",
            },
        ),
        line("cert_identity", &policy.cert_identity, cert_identity(policy)),
        line("enrolment", &policy.enrolment, enrolment(policy.enrolment.value)),
        line(
            "qr",
            &policy.qr,
            match policy.qr.value {
                Qr::Utf8 => "\"utf8\"",
                Qr::Ascii => "\"ascii\"",
                Qr::Off => "\"off\"",
            },
        ),
        line("grace", &policy.grace, Span(policy.grace.value)),
        line("fail_delay", &policy.fail_delay, Span(policy.fail_delay.value)),
        line("min_secret_bits", &policy.min_secret_bits, policy.min_secret_bits.value),
        line("allow_scratch_codes", &policy.allow_scratch_codes, policy.allow_scratch_codes.value),
        line(
            "shared_sources",
            &policy.shared_sources,
            list(policy.shared_sources.iter().map(ToString::to_string).collect()),
        ),
        line("grace_behind", &policy.grace_behind, list(policy.grace_behind.iter().map(ToString::to_string).collect())),
        line("compat.google", &policy.google, policy.google.value),
        line("compat.skew_adjustment", &policy.skew_adjustment, policy.skew_adjustment.value),
    ];
    match &policy.throttle.value {
        None => lines.push(line("throttle", &policy.throttle, "off")),
        Some(throttle) => {
            let words = |items: Vec<String>| list(items.into_iter().map(|item| format!("\"{item}\"")).collect());
            lines.push(line("throttle.user", &policy.throttle, &throttle.user));
            lines.push(line("throttle.host", &policy.throttle, &throttle.host));
            let users = words(throttle.user_whitelist.iter().map(ToString::to_string).collect());
            let hosts = words(throttle.host_whitelist.iter().map(ToString::to_string).collect());
            lines.push(line("throttle.user_whitelist", &policy.throttle, users));
            lines.push(line("throttle.host_whitelist", &policy.throttle, hosts));
        }
    }
    lines.extend(policy.exemptions.iter().map(|exemption| line("exempt", exemption, &exemption.value)));
    lines.extend(policy.require.iter().map(|require| line("require.groups", require, &require.value)));
    lines
}

fn enrolment(enrolment: Enrolment) -> String {
    let kind = match enrolment.kind {
        EnrolmentKind::Required => "\"required\"",
        EnrolmentKind::Optional => "\"optional\"",
        EnrolmentKind::Inline => "\"inline\"",
        EnrolmentKind::Ticket => "\"ticket\"",
    };
    match enrolment.optional_until {
        Some(end) => format!("\"optional\" until {end}, then {kind}"),
        None => kind.to_owned(),
    }
}

fn cert_identity(policy: &Policy) -> String {
    match policy.cert_identity.value.as_ref() {
        None => "not set".to_owned(),
        Some(cert) => {
            let keys: Vec<String> = cert.ca.iter().map(|key| format!("\"{}\"", key.text())).collect();
            format!("{{ by = \"key-id\", ca = [{}] }}", keys.join(", "))
        }
    }
}
