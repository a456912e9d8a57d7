#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| pam_totp::properties::native_record(text));
