//! What a reader is tried on: what is kept in fuzz/corpus, and what comes of that by changes from seeds that can be told.

#[path = "numbers.rs"]
mod numbers;

use numbers::Numbers;
use std::fs;
use std::path::Path;

/// What readers stumble over.
const ODD: [&[u8]; 20] = [
    b"0",
    b"-1",
    b"+1",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\"",
    b"\\",
    b"#",
    b"=",
    b"[",
    b"]",
    b"\x1b[2J",
    "é".as_bytes(),
];

/// With PAM_TOTP_SOAK=1 so many times more inputs are made.
const SOAK: u64 = 100;
/// Longest input, but for what is kept.
const LONGEST: usize = 1 << 14;

/// Tries what is kept of a fuzz target, and so many inputs made of it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn try_on(target: &str, count: u64, property: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let kept: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!kept.is_empty(), "{} is empty", directory.display());
    for (file, input) in files.iter().zip(&kept) {
        let _told = Told { name: file.display().to_string(), input };
        property(input);
    }
    let count = if std::env::var_os("PAM_TOTP_SOAK").is_some_and(|value| value == "1") { count * SOAK } else { count };
    for seed in 0..count {
        let input = made(&kept, &mut Numbers(seed));
        let _told = Told { name: format!("seed {seed}"), input: &input };
        property(&input);
    }
}

/// Says which input it was.
struct Told<'a> {
    name: String,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.name, self.input.escape_ascii());
        }
    }
}

/// One that is kept, changed once to five times.
fn made(kept: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = one_of(kept, numbers).clone();
    for _ in 0..=numbers.next(5) {
        let (one, other) = (place(&input, numbers), place(&input, numbers));
        let (from, to) = (one.min(other), one.max(other));
        match numbers.next(8) {
            0 => drop(input.drain(from..to)),
            1 => drop(input.splice(from..from, input[from..to].to_vec())),
            2 => drop(input.splice(from..from, one_of(&ODD, numbers).to_vec())),
            3 => drop(input.splice(number_at(&input, from), one_of(&ODD, numbers).to_vec())),
            4 => {
                let another = one_of(kept, numbers);
                let (one, other) = (place(another, numbers), place(another, numbers));
                drop(input.splice(from..to, another[one.min(other)..one.max(other)].to_vec()));
            }
            5 => input.insert(from, u8::try_from(numbers.next(256)).unwrap()),
            _ if input.is_empty() => {}
            6 => input[from % to.max(1)] = u8::try_from(numbers.next(256)).unwrap(),
            _ => input[from % to.max(1)] ^= 1 << numbers.next(8),
        }
        input.truncate(LONGEST);
    }
    input
}

fn one_of<'a, T>(choices: &'a [T], numbers: &mut Numbers) -> &'a T {
    &choices[usize::try_from(numbers.next(choices.len() as u64)).unwrap()]
}

fn place(input: &[u8], numbers: &mut Numbers) -> usize {
    usize::try_from(numbers.next(input.len() as u64 + 1)).unwrap()
}

/// The next number behind a place.
fn number_at(input: &[u8], from: usize) -> std::ops::Range<usize> {
    let start = input[from..].iter().position(u8::is_ascii_digit).map_or(input.len(), |start| from + start);
    let length = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    start..start + length
}
