//! The authenticator app of the tests: oathtool, which shares no code with us.

use super::{need, output_of};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 6238's secret, in base32.
pub const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The code of a base32 secret at a time.
pub fn code_at(secret: &str, time: u64) -> String {
    oathtool(&["--totp", "--base32", &format!("--now=@{time}"), secret])
}

/// The code of a base32 secret for a counter.
pub fn hotp(secret: &str, counter: u64) -> String {
    oathtool(&["--hotp", "--base32", &format!("--counter={counter}"), secret])
}

/// The code of a base32 secret at a time, by these options of oathtool.
pub fn code_by(options: &[&str], secret: &str, time: u64) -> String {
    let now = format!("--now=@{time}");
    oathtool(&[options, &["--base32", &now, secret]].concat())
}

/// The code of a base32 secret for a counter, by these options of oathtool.
pub fn hotp_by(options: &[&str], secret: &str, counter: u64) -> String {
    let counter = format!("--counter={counter}");
    oathtool(&[options, &["--hotp", "--base32", &counter, secret]].concat())
}

/// The codes of a base32 secret for so many counters from the first on.
pub fn hotps(secret: &str, first: u64, count: u64) -> Vec<String> {
    let arguments = [format!("--counter={first}"), format!("--window={}", count - 1)];
    let codes = oathtool(&["--hotp", "--base32", &arguments[0], &arguments[1], secret]);
    codes.lines().map(str::to_owned).collect()
}

/// The code that an app shows now. Waits for the next one where this one is about to end, as a person would.
pub fn code_now(secret: &str) -> String {
    let left = 30 - now() % 30;
    if left < 5 {
        std::thread::sleep(std::time::Duration::from_secs(left));
    }
    code_at(secret, now())
}

/// A code that is none of those around now.
pub fn wrong_code(secret: &str) -> String {
    let live: Vec<_> = (0..9).map(|step| code_at(secret, now() - 120 + step * 30)).collect();
    (0..).map(|number| format!("{number:06}")).find(|code| !live.contains(code)).unwrap()
}

fn oathtool(arguments: &[&str]) -> String {
    need("oathtool", "oathtool");
    output_of(Command::new("oathtool").args(arguments)).trim().to_owned()
}
