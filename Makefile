# pam_totp: a PAM module for one-time codes, and the program that enrols people.

CARGO   ?= cargo
DESTDIR ?=
PREFIX  ?= /usr/local
# Where libpam looks for modules that are named without a path: beside its own pam_unix.so.
PAMDIR  ?= $(shell for dir in /usr/lib/$$(cc -print-multiarch 2>/dev/null)/security \
             /lib/$$(cc -print-multiarch 2>/dev/null)/security /usr/lib64/security /usr/lib/security /lib/security; do \
             [ -e $$dir/pam_unix.so ] && { echo $$dir; break; }; done)
DIST    := target/dist
FLAGS   := --locked --target-dir target

.PHONY: build demo test lint abi-check prerequisites install uninstall clean

build:
	$(CARGO) rustc --release $(FLAGS) --lib --crate-type cdylib
	mkdir -p $(DIST)
	cp -f target/release/libpam_totp.so $(DIST)/pam_totp.so
	$(CARGO) build --release $(FLAGS) --features cli --bin pam-totp
	cp -f target/release/pam-totp $(DIST)/pam-totp
	@ls -l $(DIST)

# A build of ours without the lock, for the test that shows that the races would be found.
target/test/pam_totp-without-lock.so: $(shell find src Cargo.toml Cargo.lock build.rs -type f)
	RUSTFLAGS="$(RUSTFLAGS) --cfg pam_totp_without_lock" \
	  $(CARGO) rustc --release --locked --target-dir target/without-lock --lib --crate-type cdylib
	mkdir -p target/test
	cp -f target/without-lock/release/libpam_totp.so $@
