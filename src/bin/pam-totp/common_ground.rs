//! The common ground of authenticator apps: codes by time, SHA1, six digits, thirty seconds, and names without a colon. What
//! is known of each app is in docs/apps.md. Judged by the URI, which is all that an app gets to see.

use anyhow::{Result, ensure};
use std::io::{self, Write};

/// Refuses names that no app can take apart again.
pub(crate) fn ensure_names(uri: &str) -> Result<()> {
    let colons = names_with_a_colon(uri);
    ensure!(
        colons.is_empty(),
        "{} must not have a colon: it stands between the two in what apps read",
        colons.join(" and ")
    );
    Ok(())
}

/// Says on standard error which choices leave the common ground, one a line.
pub(crate) fn warn(uri: &str) {
    for remark in remarks(uri) {
        let _ = writeln!(io::stderr(), "pam-totp: warning: {remark}");
    }
}

fn remarks(uri: &str) -> Vec<String> {
    let by_counter = uri.starts_with("otpauth://hotp/").then(|| {
        "--counter-based: KeePassXC makes codes by time of it, and Microsoft Authenticator was seen to, which are wrong here; \
         all apps read --time-based"
            .to_owned()
    });
    let algorithm = parameter(uri, "algorithm").map(|name| {
        format!(
            "--algorithm {name}: Authy, Duo Mobile and Microsoft Authenticator were seen to make SHA1 codes all the same, which \
             are wrong here; all apps read SHA1"
        )
    });
    let digits = parameter(uri, "digits").map(|count| {
        let format = if count == "7" { ", and the format of the QR code has 6 and 8 alone" } else { "" };
        format!(
            "--digits {count}: Google Authenticator on Android is documented to show 6, and Microsoft Authenticator was seen to, \
             which is no code here{format}; all apps read 6"
        )
    });
    let period = parameter(uri, "period").map(|seconds| {
        format!(
            "--step-size {seconds}: Google Authenticator is documented to go by 30 seconds, and Authy was seen to, and such codes \
             are wrong here; all apps read 30"
        )
    });
    let colon =
        |flag| format!("{flag} with a colon: apps may take what stands before it for the issuer; the codes are right");
    let names = names_with_a_colon(uri).into_iter().map(colon);
    [by_counter, algorithm, digits, period].into_iter().flatten().chain(names).collect()
}

/// A parameter that is stated: none is that has its default value.
fn parameter<'a>(uri: &'a str, name: &str) -> Option<&'a str> {
    let (_, parameters) = uri.split_once('?')?;
    parameters.split('&').find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
}

/// The flags whose value has a colon.
fn names_with_a_colon(uri: &str) -> Vec<&'static str> {
    let label = uri.split('?').next().and_then(|uri| uri.rsplit('/').next()).unwrap_or_default();
    let (issuer, account) = label.split_once(':').unwrap_or_default();
    let has_colon = |name: &str| name.contains("%3A");
    let names = [("--issuer", has_colon(issuer)), ("--label", has_colon(account))];
    names.into_iter().filter_map(|(flag, it_has)| it_has.then_some(flag)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_ground_needs_no_remark() {
        assert_eq!(remarks("otpauth://totp/bastion:alice@bastion?secret=GEZDGNBV&issuer=bastion"), [""; 0]);
        assert!(ensure_names("otpauth://totp/bastion:alice@bastion?secret=GEZDGNBV&issuer=bastion").is_ok());
    }

    #[test]
    fn every_choice_that_leaves_it_is_named_once() {
        for (uri, flags) in [
            ("otpauth://hotp/b:a?secret=GEZDGNBV&issuer=b&counter=1", &["--counter-based"][..]),
            ("otpauth://totp/b:a?secret=GEZDGNBV&issuer=b&algorithm=SHA512", &["--algorithm SHA512"]),
            ("otpauth://totp/b:a?secret=GEZDGNBV&issuer=b&digits=7", &["--digits 7"]),
            ("otpauth://totp/b:a?secret=GEZDGNBV&issuer=b&period=60", &["--step-size 60"]),
            (
                "otpauth://totp/b:a?secret=GEZDGNBV&issuer=b&period=15&algorithm=SHA256&digits=8",
                &["--algorithm SHA256", "--digits 8", "--step-size 15"],
            ),
            ("otpauth://totp/b%3Ac:a%3Ad?secret=GEZDGNBV&issuer=b%3Ac", &["--issuer", "--label"]),
            ("otpauth://totp/b:digits%3D8?secret=GEZDGNBV&issuer=b", &[]),
        ] {
            let remarks = remarks(uri);
            assert_eq!(remarks.len(), flags.len(), "{remarks:?}");
            assert!(remarks.iter().zip(flags).all(|(remark, flag)| remark.starts_with(flag)), "{remarks:?}");
        }
    }

    #[test]
    fn a_colon_in_a_name_is_refused_and_the_flag_named() {
        for (label, flags) in
            [("b%3Ac:a", "--issuer must"), ("b:a%3A", "--label must"), ("%3A:%3A", "--issuer and --label")]
        {
            let error = ensure_names(&format!("otpauth://totp/{label}?secret=GEZDGNBV")).unwrap_err().to_string();
            assert!(error.starts_with(flags), "{error}");
        }
    }
}
