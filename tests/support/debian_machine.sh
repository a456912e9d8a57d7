# A Debian of its own: the first process of new mount and pid namespaces, in the directory $1, a copy of a root. Ends when its
# standard input does.
set -eu
. "$(dirname "$0")/debian.sh"
# /proc still shows the host's process ids here.
read -r pid _ </proc/self/stat
take_root "$1"
echo "ready $pid"
while read -r _; do :; done
