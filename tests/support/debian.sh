# Functions for a Debian (or Ubuntu) of its own in a directory, as this machine's package sources have it. To be sourced by a
# shell in the project's directory.

# suite, mirror and components of the main archive, from apt itself.
sources_of_apt() {
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    apt-get indextargets --format '$(CODENAME) $(REPO_URI) $(COMPONENT) $(LABEL)' 'Identifier: Packages' |
        awk -v suite="$suite" '$1 == suite && ($4 == "Debian" || $4 == "Ubuntu")'
}

# debian_root PACKAGES: prints the directory of a fresh root with these packages (commas between them) besides the smallest
# set. Made once and kept in target/roots, to be copied and not to be changed.
debian_root() {
    for program in debootstrap flock apt-get; do
        command -v $program >/dev/null || {
            echo "$program is missing: install the packages debootstrap and util-linux" >&2
            return 1
        }
    done
    targets=$(sources_of_apt)
    suite=$(echo "$targets" | head -n 1 | cut -d ' ' -f 1)
    mirror=$(echo "$targets" | head -n 1 | cut -d ' ' -f 2)
    components=$(echo "$targets" | cut -d ' ' -f 3 | sort -u | paste -s -d ,)
    [ -n "$mirror" ] || { echo "apt knows no archive of this distribution: look into /etc/apt" >&2; return 1; }
    mkdir -p target/roots
    kept=target/roots/$suite-$(echo "$1" | tr , +)
    (
        flock 9
        [ ! -d "$kept" ] || exit 0
        rm -rf "$kept.new"
        if ! timeout --kill-after=10 900 debootstrap --variant=minbase --components="$components" --include="$1" "$suite" \
            "$kept.new" "$mirror" >"$kept.log" 2>&1 </dev/null; then
            tail -n 20 "$kept.log" >&2
            exit 1
        fi
        # Packages are of no use any more, and nothing in there is to start a server.
        rm -rf "$kept.new"/var/cache/apt/archives/*.deb
        printf '#!/bin/sh\nexit 101\n' >"$kept.new/usr/sbin/policy-rc.d"
        chmod 755 "$kept.new/usr/sbin/policy-rc.d"
        mv "$kept.new" "$kept"
    ) 9>target/roots/lock || return 1
    echo "$kept"
}

# take_root DIRECTORY: makes the directory, a copy of a root, that of this process and all below. For a process that has mount
# and process namespaces of its own.
take_root() {
    cd "$1"
    mount --rbind . .
    cd "$1"
    mount -t proc proc proc
    mount -t tmpfs -o mode=0755 tmpfs run
    mkdir -p run/lock run/sshd
    mount -t tmpfs -o mode=0755 tmpfs dev
    for node in null zero full random urandom tty; do
        : >"dev/$node"
        mount --bind "/dev/$node" "dev/$node"
    done
    # The tests make file systems in files.
    for node in /dev/loop-control /dev/loop[0-9]*; do
        [ ! -e "$node" ] || { : >"dev/${node##*/}" && mount --bind "$node" "dev/${node##*/}"; }
    done
    mkdir dev/pts dev/shm
    chmod 1777 dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s /proc/self/fd/0 dev/stdin
    ln -s /proc/self/fd/1 dev/stdout
    ln -s /proc/self/fd/2 dev/stderr
    mount -t sysfs -o ro sysfs sys
    mkdir -p .before
    pivot_root . .before
    cd /
    umount -l /.before
    rmdir /.before
}
