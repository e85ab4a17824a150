#!/bin/sh
# Make the machine that the command expects, then run the command.
#
#   guest.sh RUNNER REPOSITORY EXCHANGE [virtme: FROM TO …] [docker: VERSION PREFIX]
#
# Whatever the runner: /run is a tmpfs (so `ip netns add` works), /proc and /sys show this network namespace, lo is up,
# /tmp and the working tree are writable. This script is PID 1 or close to it, and never ends by itself:
# whoever started the machine stops it once the exit code is written. A container does end, and is removed then.
set -eu
runner=$1 repository=$2 exchange=$3
shift 3
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

case $runner in
host)
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t sysfs sysfs /sys
    ;;
docker)
    # Whoever started the container holds this lock as long as he lives: after that the command is stopped.
    (flock "$exchange/alive" true; kill -s KILL -- -1) &
    # /run and /tmp are the container's own and in memory already.
    # Where the kernel has them as modules; it may have what it needs without.
    modprobe -a ip_vs nf_conntrack nf_conntrack_netlink br_netfilter sctp 2>/dev/null || :
    # The working tree's .venv is one of a Python at a place of the caller's: the image's own stands in for it.
    if [ ! -e "$2/bin/python$1" ]; then
        mkdir -p "$(dirname "$2")"
        ln -s "$("python$1" -c 'import sys; print(sys.base_prefix)')" "$2"
    fi
    ;;
uml)
    # The root is the machine's own file system, mounted read-only: what must be writable is mounted over it.
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    ln -s /proc/self/fd /dev/fd
    mkdir /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs tmpfs /tmp
    mount -t tmpfs tmpfs /var/tmp
    mkdir -p "$repository"
    mount -t hostfs -o "$repository" none "$repository"
    ;;
virtme)
    # Python looks up thousands of files, and every look-up is a round trip to the host unless it may be cached:
    # the folders that do not change are mounted once more, with a cache. 9p lets a share be mounted only once.
    while [ $# -gt 0 ]; do
        share=$(awk -v from="$1" '$2 == from { print $1 }' /proc/mounts)
        umount "$1"
        mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose "$share" "$2"
        shift 2
    done
    # What nothing loads by itself before its settings below /proc/sys/net are wanted.
    modprobe -a ip_vs nf_conntrack nf_conntrack_netlink br_netfilter sctp
    ;;
esac

ip link set lo up
: >"$exchange/started"
code=0
/bin/sh "$exchange/command" </dev/null >"$exchange/output" 2>&1 || code=$?
# Whole or not at all: the other side looks at any moment.
echo "$code" >"$exchange/exit-code.new"
mv "$exchange/exit-code.new" "$exchange/exit-code"
[ "$runner" != docker ] || exit 0
while :; do sleep 3600; done
