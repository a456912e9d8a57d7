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
SBINDIR := $(DESTDIR)$(PREFIX)/sbin
DIST    := target/dist
FLAGS   := --locked --target-dir target

# By rename, and only where something changed: somebody may be reading the file.
put = @cmp -s $(1) $(2) || { cp $(1) $(2).new && mv -f $(2).new $(2); }

.PHONY: build demo demo-fleet test soak fuzz cargo-fuzz mutants bench lint abi-check prerequisites install \
        uninstall deb rpm fresh clean

# The manual page and the completions, which the program itself makes from the definition of its arguments.
GENERATED := $(DIST)/pam-totp.1 $(DIST)/completion/bash $(DIST)/completion/zsh $(DIST)/completion/fish

build: $(DIST)/pam_totp.so $(DIST)/pam-totp $(DIST)/pam-totp-agent $(GENERATED)

# The cdylib alone: with the rlib beside it cargo leaves LTO out without a word. In a directory of its own, so that the
# program's features and crates have nothing to do with it.
$(DIST)/pam_totp.so: FORCE
	$(CARGO) rustc --release --locked --target-dir target/module --lib --crate-type cdylib
	@mkdir -p $(DIST)
	$(call put,target/module/release/libpam_totp.so,$@)

# Both at once: the last step of each keeps one processor busy.
$(DIST)/pam-totp $(DIST)/pam-totp-agent &: FORCE
	$(CARGO) build --release $(FLAGS) --features cli --bin pam-totp --bin pam-totp-agent
	@mkdir -p $(DIST)
	$(call put,target/release/pam-totp,$(DIST)/pam-totp)
	$(call put,target/release/pam-totp-agent,$(DIST)/pam-totp-agent)

$(DIST)/pam-totp.1: $(DIST)/pam-totp
	$(DIST)/pam-totp completion man >$@.new
	@mv -f $@.new $@

$(DIST)/completion/%: $(DIST)/pam-totp
	@mkdir -p $(DIST)/completion
	$(DIST)/pam-totp completion $* >$@.new
	@mv -f $@.new $@

# A build of ours without the lock, for the test that shows that the races would be found.
target/test/pam_totp-without-lock.so: FORCE
	RUSTFLAGS="$(RUSTFLAGS) --cfg pam_totp_without_lock" \
	  $(CARGO) rustc --release --locked --target-dir target/without-lock --lib --crate-type cdylib
	@mkdir -p target/test
	$(call put,target/without-lock/release/libpam_totp.so,$@)

# The agent, and it takes a write whose fate is not known for done: for the test that shows that this would be found. As fast
# as its races need, and no faster.
target/test/pam-totp-agent-unknown-is-done: FORCE
	RUSTFLAGS="$(RUSTFLAGS) --cfg pam_totp_unknown_is_done" CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=1 \
	  $(CARGO) build --locked --target-dir target/unknown-is-done --features agent --bin pam-totp-agent
	@mkdir -p target/test
	$(call put,target/unknown-is-done/debug/pam-totp-agent,$@)

FORCE:

# Builds that are wrong on purpose.
CONTROLS = target/test/pam_totp-without-lock.so target/test/pam-totp-agent-unknown-is-done

# A login through a real sshd on a private machine inside this one, and four refusals. Needs root.
demo: PREREQUISITES = demo
demo: prerequisites build
	$(CARGO) run --quiet $(FLAGS) --example demo

# Three bastions and a cluster of three on loopback: one enrolment, one code on all of them at once, the leader killed. Needs root.
demo-fleet: PREREQUISITES = demo-fleet
demo-fleet: prerequisites build
	$(CARGO) run --quiet $(FLAGS) --example demo-fleet

# Everything, through the real thing. Needs root, and Debian or Ubuntu.
test: prerequisites build $(CONTROLS)
	@tests/run $(FLAGS)

# The tests through real programs again, each with all there is to try: every call killed, thousands of made-up stacks and
# login sequences, from a seed of their own; and ten minutes of fuzzing a reader. Takes as long as it takes.
soak: cargo-fuzz prerequisites build $(CONTROLS)
	@PAM_TOTP_SOAK=1 tests/run $(FLAGS) --test real
	@PAM_TOTP_SOAK=1 tests/run $(FLAGS) --lib --bins properties::
	@tests/fuzz 600

# Every reader of what comes from outside on made-up inputs, for SECONDS each; TARGET: one of `cargo fuzz list`. Needs cargo-fuzz,
# which works with any compiler, and a C++ compiler.
SECONDS ?= 60
fuzz:
	@tests/fuzz $(SECONDS) $(TARGET)

cargo-fuzz:
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }

# Wrong on purpose in every place of the modules that .cargo/mutants.toml names, one after the other, or of FILE: docs/mutants.md.
# A minute each; needs cargo-mutants.
mutants:
	@cargo mutants --version >/dev/null 2>&1 || { echo "cargo-mutants is missing: cargo install cargo-mutants --locked" >&2; exit 1; }
	@mkdir -p target/mutants
	CARGO_PROFILE_TEST_DEBUG=0 cargo mutants --output target/mutants $(if $(FILE),--file '$(FILE)')

# What a login costs, ours beside other modules', in one run of a few minutes; see docs/benchmark.md, which PAM_TOTP_WRITE=1 has it
# write. Needs what the tests need. With BENCH=people: 10 people in the root-only store beside a million, which takes 4 GB of
# memory and a few minutes.
bench: prerequisites build
	$(CARGO) build --quiet $(FLAGS) --features cli --example pam-client
	$(CARGO) run --quiet $(FLAGS) --features cli --example bench -- $(BENCH)

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

# Where the rest goes. Debian's zsh looks into /usr/share/zsh/vendor-completions, and pam-auth-update is Debian's alone.
SHARE        := $(DESTDIR)$(PREFIX)/share
SYSCONFDIR   ?= /etc
TMPFILESDIR  ?= $(PREFIX)/lib/tmpfiles.d
UNITDIR      ?= $(PREFIX)/lib/systemd/system
ZSHDIR       ?= $(PREFIX)/share/zsh/site-functions
PAMCONFIGDIR ?= $(wildcard /usr/share/pam-configs)
EXAMPLES     := $(SHARE)/doc/pam-totp/examples

# What install puts where, and uninstall takes away: file of ours, and where it goes.
INSTALLED = \
  $(DIST)/pam-totp.1:$(SHARE)/man/man1/pam-totp.1 \
  docs/man/pam_totp.toml.5:$(SHARE)/man/man5/pam_totp.toml.5 \
  docs/man/pam_totp.fleet.toml.5:$(SHARE)/man/man5/pam_totp.fleet.toml.5 \
  docs/man/pam_totp.8:$(SHARE)/man/man8/pam_totp.8 \
  docs/man/pam-totp-agent.8:$(SHARE)/man/man8/pam-totp-agent.8 \
  $(DIST)/completion/bash:$(SHARE)/bash-completion/completions/pam-totp \
  $(DIST)/completion/zsh:$(DESTDIR)$(ZSHDIR)/_pam-totp \
  $(DIST)/completion/fish:$(SHARE)/fish/vendor_completions.d/pam-totp.fish \
  packaging/tmpfiles.d/pam_totp.conf:$(DESTDIR)$(TMPFILESDIR)/pam_totp.conf \
  packaging/systemd/pam-totp-agent.socket:$(DESTDIR)$(UNITDIR)/pam-totp-agent.socket \
  packaging/systemd/pam-totp-agent.service:$(DESTDIR)$(UNITDIR)/pam-totp-agent.service \
  packaging/sshd_config.d/10-pam_totp.conf:$(EXAMPLES)/sshd_config.d/10-pam_totp.conf \
  $(if $(PAMCONFIGDIR),packaging/pam-configs/totp:$(DESTDIR)$(PAMCONFIGDIR)/totp) \
  $(foreach file,$(wildcard pam.d-examples/*),$(file):$(EXAMPLES)/pam.d/$(notdir $(file)))
# Somebody may have changed these: they are put where nothing is, and taken away where they are as we put them.
SETTINGS = \
  packaging/fail2ban/filter.d/pam_totp.conf:$(DESTDIR)$(SYSCONFDIR)/fail2ban/filter.d/pam_totp.conf \
  packaging/fail2ban/jail.d/pam_totp.conf:$(DESTDIR)$(SYSCONFDIR)/fail2ban/jail.d/pam_totp.conf
pairs = for pair in $(1); do file=$${pair%%:*} place=$${pair\#*:};

# What `make build` made: whoever is root by sudo has no cargo, as a rule. By rename, so that there is no moment without a
# module, or with half of one. With GOOGLE_LINK=1 the program can be called by the name google-authenticator too, for scripts
# that do. The agent's units are put there, and not enabled.
install:
	@for file in $(DIST)/pam_totp.so $(DIST)/pam-totp $(DIST)/pam-totp-agent $(GENERATED); do \
	  [ -e $$file ] || { echo "$$file is not there: run \`make build\` first" >&2; exit 1; }; done
	@[ -n "$(PAMDIR)" ] || { echo "No directory of PAM modules found: set PAMDIR" >&2; exit 1; }
	install -d $(DESTDIR)$(PAMDIR) $(BINDIR) $(SBINDIR)
	install -m 0644 $(DIST)/pam_totp.so $(DESTDIR)$(PAMDIR)/pam_totp.so.new
	mv -f $(DESTDIR)$(PAMDIR)/pam_totp.so.new $(DESTDIR)$(PAMDIR)/pam_totp.so
	install -m 0755 $(DIST)/pam-totp $(BINDIR)/pam-totp
	install -m 0755 $(DIST)/pam-totp-agent $(SBINDIR)/pam-totp-agent
	@[ -z "$(GOOGLE_LINK)" ] || ln -sfn pam-totp $(BINDIR)/google-authenticator
	@$(call pairs,$(INSTALLED)) install -D -m 0644 $$file $$place || exit; done
	@sed -i 's|=/usr/sbin/|=$(PREFIX)/sbin/|' $(DESTDIR)$(UNITDIR)/pam-totp-agent.service
	@$(call pairs,$(SETTINGS)) [ -e $$place ] || install -D -m 0644 $$file $$place || exit; done

uninstall:
	@[ -n "$(DESTDIR)" ] || { . packaging/in-use.sh && refuse_while_in_use; }
	rm -f $(DESTDIR)$(PAMDIR)/pam_totp.so $(BINDIR)/pam-totp $(SBINDIR)/pam-totp-agent
	@[ "$$(readlink $(BINDIR)/google-authenticator)" != pam-totp ] || rm -f $(BINDIR)/google-authenticator
	@$(call pairs,$(INSTALLED)) rm -f $$place; done
	@$(call pairs,$(SETTINGS)) ! cmp -s $$file $$place || rm -f $$place; done
	@rm -rf $(SHARE)/doc/pam-totp

# Packages of what `make build` made: see packaging/.
deb: build
	@packaging/deb

rpm: build
	@packaging/rpm

# README's two commands on a machine that has nothing but Rust and a C linker. FRESH=demo: the first one alone. Needs root,
# Debian or Ubuntu, and the network.
fresh:
	@tests/fresh $(FRESH)

clean:
	rm -rf target
