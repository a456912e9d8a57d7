# A private machine inside this one: its own /etc, /home, /run, /dev and logs, gone when the last process in it ends.
# Run by tests/support/machine.rs as the first process of new mount and pid namespaces, with the directory of the
# machine as $1, the module as $2 and the kind of /home as $3. Ends when its standard input does.
set -eu
root=$1 module=$2 home=$3

# /proc still shows the host's process ids here.
read -r pid _ </proc/self/stat

# In memory: ext4 looks long for an inode that was not in use a moment ago, and thousands of them were, by the machine before.
mkdir "$root/etc"
mount -t tmpfs -o mode=0755 tmpfs "$root/etc"
cp -a /etc/. "$root/etc"
mount --bind "$root/etc" /etc
# su adds three seconds of its own to each denial, whatever its stack asks for.
printf '\nFAIL_DELAY 0\n' >>/etc/login.defs

case $home in
ext4)
    truncate -s 64M "$root/home.img"
    mkfs.ext4 -q -F -b 4096 "$root/home.img"
    mount -o loop "$root/home.img" /home
    ;;
large-ext4)
    truncate -s 8G "$root/home.img"
    mkfs.ext4 -q -F -b 4096 -N 3300000 "$root/home.img"
    mount -o loop "$root/home.img" /home
    ;;
memory) mount -t tmpfs -o mode=0755 tmpfs /home ;;
*)
    mkdir "$root/home"
    mount --bind "$root/home" /home
    ;;
esac

# The same /var/lib, but for ours, which is not there yet.
mkdir "$root/lib" "$root/host-lib"
mount --bind /var/lib "$root/host-lib"
ln -s "$root"/host-lib/* "$root/lib"
rm -f "$root/lib/pam_totp"
mount --bind "$root/lib" /var/lib

for directory in /run /var/log /var/mail /var/lib/sudo; do
    [ -d "$directory" ] && mount -t tmpfs -o mode=0755 tmpfs "$directory"
done
mkdir -p /run/sshd /run/lock

mkdir "$root/dev"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s "$root/log" "$root/dev/log"
mount --rbind "$root/dev" /dev

# Where libpam looks for a module that is named without a path.
for directory in /usr/lib/*/security /lib/*/security /usr/lib64/security /usr/lib/security; do
    [ -e "$directory/pam_unix.so" ] || continue
    cp -a "$directory" "$root/security"
    cp "$module" "$root/security/pam_totp.so"
    mount --bind "$root/security" "$directory"
    break
done

mount -t proc proc /proc
echo "ready $pid"
while read -r _; do :; done
