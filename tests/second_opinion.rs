//! oathtool computes the same codes, for secrets, times and parameters that nobody chose.

use crate::support::numbers::Numbers;
use crate::support::{need, output_of};
use pam_totp::otp::{Algorithm, Code, Digits, Generator, base32};
use pam_totp::secret::Secret;
use pam_totp::system::random;
use std::process::Command;

const CASES: u64 = 3000;

#[test]
fn oathtool_agrees_about_thousands_of_codes() {
    need("oathtool", "oathtool");
    let seed =
        std::env::var("SEED").map_or_else(|_| u64::from_ne_bytes(random::bytes().unwrap()), |s| s.parse().unwrap());
    println!("SEED={seed}");
    let mut numbers = Numbers(seed);
    for case in 0..CASES {
        let secret: Vec<u8> = (0..1 + numbers.next(80)).map(|_| numbers.next(256) as u8).collect();
        let digits = 6 + numbers.next(3);
        let (algorithm, name) =
            [(Algorithm::Sha1, "SHA1"), (Algorithm::Sha256, "SHA256"), (Algorithm::Sha512, "SHA512")]
                [numbers.next(3) as usize];
        let period = 1 + numbers.next(60);
        let time = numbers.next(1 << 34);
        let text = base32::encode(&secret);
        let secret = Secret::new(secret);
        let generator = Generator::new(&secret, algorithm, Digits::new(digits as u8).unwrap());
        let hotp = case % 3 == 0;
        let counter = if hotp { numbers.next(1 << 40) } else { time / period };
        let mut oathtool = Command::new("oathtool");
        oathtool.args(["--base32", &format!("--digits={digits}"), text.expose()]);
        if hotp {
            oathtool.args(["--hotp", &format!("--counter={counter}")]);
        } else {
            oathtool.args([
                &format!("--totp={name}"),
                &format!("--time-step-size={period}s"),
                &format!("--now=@{time}"),
            ]);
        }
        // oathtool's HOTP is always SHA-1.
        let sha1 = Generator::new(&secret, Algorithm::Sha1, Digits::new(digits as u8).unwrap());
        let generator = if hotp { sha1 } else { generator };
        let theirs = output_of(&mut oathtool).trim().to_owned();
        assert_eq!(generator.code(counter).expose(), &theirs, "case {case}: {oathtool:?}");
        assert!(generator.matches(&Code::parse(theirs.as_bytes()).unwrap(), counter), "case {case}");
    }
}
