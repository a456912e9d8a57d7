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
