#!/bin/sh
# Runs a command as in a container that is not privileged: container.sh CAPABILITIES FOLDER COMMAND...
#
# With these capabilities and no others (net_admin,net_raw), a root file system and a /proc/sys that are read-only, and
# the host's /proc/sys/net once more at FOLDER. An empty FOLDER is none. The process stays the same one.
set -eu
if [ "${INSIDE:-}" != yes ]; then
    INSIDE=yes exec unshare --mount --propagation private -- sh "$0" "$@"
fi
unset INSIDE
capabilities=$(echo "$1" | sed 's/,/,+/g') folder=$2
shift 2

root=$(mktemp -d)
mount -t tmpfs -o mode=755 container "$root"
for each in /*; do
    if [ -L "$each" ]; then
        cp -P "$each" "$root/"
    elif [ -d "$each" ]; then
        mkdir "$root$each"
        mount --rbind "$each" "$root$each"
    fi
done
if [ "$folder" ]; then
    mkdir -p "$root$folder"
    mount --bind /proc/sys/net "$root$folder"
fi
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -o remount,ro "$root"
# A shell, which knows where it is only by what it is told.
exec chroot "$root" sh -c 'cd "$1"; shift; exec "$@"' sh "$PWD" \
    setpriv --no-new-privs --bounding-set="-all,+$capabilities" --inh-caps="-all,+$capabilities" -- "$@"
