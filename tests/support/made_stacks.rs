//! PAM stacks that are made up: right ones, odd ones, and ones that nobody should write.

use crate::libpam::Response;
use crate::numbers::Numbers;
use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::fs;
use std::path::Path;

pub(crate) const OURS: &str = "/run/pam_totp.so";
pub(crate) const OTHERS: &str = "/run/pam_answers.so";
/// success, auth_err, authinfo_unavail, user_unknown, ignore, module_unknown.
const OUR_ANSWERS: [c_int; 6] = [0, 7, 9, 10, 25, 28];
/// The codes that a made-up control names.
const NAMED: [(&str, c_int); 6] = [
    ("success", 0),
    ("new_authtok_reqd", 12),
    ("ignore", 25),
    ("auth_err", 7),
    ("user_unknown", 10),
    ("authinfo_unavail", 9),
];
/// service_err, which none does.
pub(crate) const UNNAMED: c_int = 3;

/// Files in /etc/pam.d.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) files: BTreeMap<String, String>,
    /// What each module may answer, by its argument.
    pub(crate) answers: BTreeMap<String, Vec<c_int>>,
}

impl Made {
    pub(crate) fn up(seed: u64) -> Self {
        let mut made = Self::default();
        let mut numbers = Numbers(seed);
        let mut left = numbers.next(7);
        let text = made.file(&mut numbers, &mut left, 0);
        made.files.insert("made".to_owned(), text);
        let deny = "auth required pam_deny.so\n".to_owned();
        let other = if numbers.one_in(8) { made.file(&mut numbers, &mut 2, 3) } else { deny };
        made.files.insert("other".to_owned(), other);
        made
    }

    /// Some lines, and the files that they include.
    fn file(&mut self, numbers: &mut Numbers, left: &mut u64, depth: u32) -> String {
        let mut text = String::new();
        let lines = if depth == 0 { u64::MAX } else { numbers.next(4) };
        let mut written = 0;
        while *left > 0 && written < lines {
            written += 1;
            let line = self.line(numbers, left, depth);
            text += &line;
        }
        text
    }

    fn line(&mut self, numbers: &mut Numbers, left: &mut u64, depth: u32) -> String {
        let noise = ["", "", "", "# auth sufficient pam_permit.so\n", "\n \t\n", "account required pam_deny.so\n"];
        let noise = noise[numbers.next(noise.len() as u64) as usize];
        let kind = ["auth", "auth", "auth", "AUTH", "-auth", "[auth]", "-Auth"][numbers.next(7) as usize];
        let blank = [" ", " ", "\t", "\\\n", "  \\\n# auth\n\t"][numbers.next(5) as usize];
        let line = match numbers.next(24) {
            0..6 if depth < 3 => {
                let name = format!("made-{}", self.files.len());
                self.files.insert(name.clone(), String::new());
                let content = self.file(numbers, left, depth + 1);
                self.files.insert(name.clone(), content);
                match numbers.next(5) {
                    0 => format!("@include{blank}{name}\n"),
                    1 => format!("{kind} include{blank}/etc/pam.d/{name}\n"),
                    2 => format!("{kind} INCLUDE {name}\n"),
                    _ => format!("{kind}{blank}substack {name}\n"),
                }
            }
            6 => format!("{kind} required pam_deny.so\n"),
            7 => format!("{kind} {} pam_permit.so\n", self.control(numbers).0),
            8 => {
                let broken = [
                    "authh sufficient pam_permit.so\n",
                    "auth [success=ok pam_permit.so\n",
                    "auth optional\n",
                    "auth include made-none\n",
                    "account include made-none\n",
                    "auth substack made-none\n",
                    "auth [perm_denied=1 default=ignore]\n",
                    "auth [success=okay] pam_permit.so\n",
                ];
                broken[numbers.next(broken.len() as u64) as usize].to_owned()
            }
            // A module without a name (`.so`) is not tried: it corrupts the memory of libpam 1.5.2.
            9 if numbers.one_in(6) => {
                ["@include made-none\n", "auth required pam_deny.so \\\n"][numbers.next(2) as usize].to_owned()
            }
            _ => {
                *left -= 1;
                let (control, mut answers) = self.control(numbers);
                let is_ours = numbers.one_in(3);
                let name = format!("{}{}", if is_ours { "ours" } else { "other" }, self.answers.len());
                if is_ours {
                    answers = OUR_ANSWERS.to_vec();
                }
                self.answers.insert(name.clone(), answers);
                let module = if is_ours { OURS } else { OTHERS };
                let argument = if numbers.one_in(4) { format!("[{name}]") } else { name };
                format!("{kind}{blank}{control} {module}{blank}{argument}\n")
            }
        };
        format!("{noise}{line}")
    }

    /// A control, and one answer for each thing that it makes of answers, or more.
    fn control(&self, numbers: &mut Numbers) -> (String, Vec<c_int>) {
        if numbers.one_in(2) {
            let word = ["required", "requisite", "sufficient", "optional", "Required", "[sufficient]"];
            return (word[numbers.next(6) as usize].to_owned(), vec![0, 7, 25]);
        }
        let mut control = Vec::new();
        let mut answers = vec![UNNAMED];
        let action = |numbers: &mut Numbers| match numbers.next(9) {
            0 => "ignore".to_owned(),
            1 => "ok".to_owned(),
            2 => "done".to_owned(),
            3 => "bad".to_owned(),
            4 => "die".to_owned(),
            5 => "reset".to_owned(),
            // Numbers that an int has not got.
            6 if numbers.one_in(6) => (4_294_967_288 + numbers.next(8)).to_string(),
            _ => (1 + numbers.next(3)).to_string(),
        };
        for _ in 0..=numbers.next(3) {
            let (name, code) = NAMED[numbers.next(6) as usize];
            control.push(format!("{name}={}", action(numbers)));
            answers.push(code);
        }
        if !numbers.one_in(4) {
            control.insert(numbers.next(control.len() as u64 + 1) as usize, format!("default={}", action(numbers)));
        }
        answers.push(0);
        answers.sort_unstable();
        answers.dedup();
        (format!("[{}]", control.join(" ")), answers)
    }

    pub(crate) fn write(&self) {
        for (name, text) in &self.files {
            fs::write(Path::new("/etc/pam.d").join(name), text).unwrap();
        }
    }
}

/// What pam_answers.rs is told.
pub(crate) fn reply(responses: *mut *mut Response, code: c_int) {
    let text = CString::new(code.to_string()).unwrap();
    // SAFETY: a new response, allocated as the module will free it.
    unsafe {
        let response = libc::calloc(1, size_of::<Response>()).cast::<Response>();
        (*response).text = libc::strdup(text.as_ptr());
        *responses = response;
    }
}
