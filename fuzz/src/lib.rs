//! The program's readers, which are in no library: their sources, and what is tried on them.

#![allow(dead_code, unused_imports, reason = "of the program this is a part")]

mod import;
#[path = "../../src/bin/pam-totp/pam_config/mod.rs"]
mod pam_config;
#[path = "../../src/bin/pam-totp/properties.rs"]
mod properties;
#[path = "../../src/bin/pam-totp/root.rs"]
mod root;
#[path = "../../src/bin/pam-totp/sshd_config/mod.rs"]
mod sshd_config;

use root::Root;
use std::path::Path;
use std::sync::LazyLock;

/// See there.
pub fn import(text: &[u8]) {
    properties::import(text);
}

/// See there.
pub fn sshd_config(text: &[u8]) {
    properties::sshd_config(text);
}

/// See there.
pub fn pam_stack(text: &[u8]) {
    static ROOT: LazyLock<Root> = LazyLock::new(|| {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz/image");
        std::fs::create_dir_all(image.join("etc/pam.d")).expect("a directory");
        Root::open(&image).unwrap_or_else(|error| panic!("{error}"))
    });
    properties::pam_stack(text, &ROOT);
}
