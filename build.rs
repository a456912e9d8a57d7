//! Link arguments of the module.

#[allow(clippy::disallowed_methods)] // Cargo tells it so.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The module is built beside the fuzz targets, without the fuzzer's own symbols.
    if std::env::var_os("CARGO_CFG_FUZZING").is_some() {
        return;
    }
    for argument in [
        // Rust's runtime is not made to be unloaded: stay mapped after dlclose.
        "-Wl,-z,nodelete",
        // A symbol that libpam.so.0 does not have is an error now, not PAM_MODULE_UNKNOWN at a login.
        "-Wl,-z,defs",
        "-Wl,-z,relro",
        "-Wl,-z,now",
        "-Wl,-soname,pam_totp.so",
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
