# pam_totp: a PAM module for one-time codes, and the program that enrols people.

CARGO   ?= cargo
DESTDIR ?=
PREFIX  ?= /usr/local
# Where libpam looks for modules that are named without a path: beside its own pam_unix.so.
PAMDIR  ?= $(shell multiarch=$$(cc -print-multiarch 2>/dev/null); \
             for dir in /usr/lib/$$multiarch/security /lib/$$multiarch/security /usr/lib64/security /lib/security; do \
               [ -e $$dir/pam_unix.so ] && echo $$dir && break; \
             done)
BINDIR  := $(DESTDIR)$(PREFIX)/bin
DIST    := target/dist
FLAGS   := --locked --target-dir target

# By rename, and only where something changed: somebody may be reading the file.
put = @cmp -s $(1) $(2) || { cp $(1) $(2).new && mv -f $(2).new $(2); }

.PHONY: build demo test bench lint abi-check prerequisites install uninstall clean

build: $(DIST)/pam_totp.so $(DIST)/pam-totp

# The cdylib alone: with the rlib beside it cargo leaves LTO out without a word. In a directory of its own, so that the
# program's features and crates have nothing to do with it.
$(DIST)/pam_totp.so: FORCE
	$(CARGO) rustc --release --locked --target-dir target/module --lib --crate-type cdylib
	@mkdir -p $(DIST)
	$(call put,target/module/release/libpam_totp.so,$@)

$(DIST)/pam-totp: FORCE
	$(CARGO) build --release $(FLAGS) --features cli --bin pam-totp
	@mkdir -p $(DIST)
	$(call put,target/release/pam-totp,$@)

# A build of ours without the lock, for the test that shows that the races would be found.
target/test/pam_totp-without-lock.so: FORCE
	RUSTFLAGS="$(RUSTFLAGS) --cfg pam_totp_without_lock" \
	  $(CARGO) rustc --release --locked --target-dir target/without-lock --lib --crate-type cdylib
	@mkdir -p target/test
	$(call put,target/without-lock/release/libpam_totp.so,$@)

FORCE:

# A login through a real sshd on a private machine inside this one, and four refusals. Needs root.
demo: PREREQUISITES = demo
demo: prerequisites build
	$(CARGO) run --quiet $(FLAGS) --example demo

# Everything, through the real thing. Needs root, and Debian or Ubuntu.
test: prerequisites build target/test/pam_totp-without-lock.so
	@tests/run $(FLAGS)

# What a login costs, ours beside the C module's, in one run. Needs what the tests need. With BENCH=people: 10 people in the
# root-only store beside a million, which takes 4 GB of memory and a few minutes.
bench: prerequisites build
	$(CARGO) build --quiet $(FLAGS) --features cli --example pam-client
	$(CARGO) run --quiet $(FLAGS) --example bench -- $(BENCH)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy $(FLAGS) --all-targets --features cli -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FLAGS) --no-deps --document-private-items --features cli

# Our declarations of libpam against the installed headers (packages libpam0g-dev and libclang-dev).
abi-check: PREREQUISITES = abi-check
abi-check: prerequisites
	$(CARGO) test $(FLAGS) --features abi-check --lib abi_check

# Installs what is missing, where we are root and there is apt-get or dnf; says what is missing otherwise.
PREREQUISITES ?= test
prerequisites:
	@tests/prerequisites $(PREREQUISITES)

# By rename, so that there is no moment without a module, or with half of one. With GOOGLE_LINK=1 the program can be called
# by the name google-authenticator too, for scripts that do.
install: build
	@[ -n "$(PAMDIR)" ] || { echo "No directory of PAM modules found: set PAMDIR" >&2; exit 1; }
	install -d $(DESTDIR)$(PAMDIR) $(BINDIR)
	install -m 0644 $(DIST)/pam_totp.so $(DESTDIR)$(PAMDIR)/pam_totp.so.new
	mv -f $(DESTDIR)$(PAMDIR)/pam_totp.so.new $(DESTDIR)$(PAMDIR)/pam_totp.so
	install -m 0755 $(DIST)/pam-totp $(BINDIR)/pam-totp
	@[ -z "$(GOOGLE_LINK)" ] || ln -sfn pam-totp $(BINDIR)/google-authenticator

uninstall:
	rm -f $(DESTDIR)$(PAMDIR)/pam_totp.so $(BINDIR)/pam-totp
	@[ "$$(readlink $(BINDIR)/google-authenticator)" != pam-totp ] || rm -f $(BINDIR)/google-authenticator

clean:
	rm -rf target
