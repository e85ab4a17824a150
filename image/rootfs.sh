#!/bin/bash
# Make the image's root file system without a registry: rootfs.sh PYTHON OUTPUT.tar
#
# Debian by mmdebstrap, and in it /opt/ipvsproxy, from the same packages and the same locked wheels as by the Dockerfile.
# PYTHON has pip and hatchling. SOURCE_DATE_EPOCH is the time of all that is made here: the last commit's, unless given.
# The wheel in it is hatchling's own, as everywhere.
# What was downloaded is kept for the next time, in XDG_CACHE_HOME: Debian for a day, so that its updates come in.
set -euo pipefail
python=$1 output=$2
here=$(cd "$(dirname "$0")" && pwd)
repository=$(dirname "$here")
# The release with the Python that requirements/ is locked for.
suite=bookworm
python_version=3.11
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ipvsproxy/images
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$repository" log -1 --format=%ct)}
unset SOURCE_DATE_EPOCH

# The mounts below are this process's own, and end with it.
if [ "${INSIDE:-}" != "$$" ]; then
    INSIDE=$$ exec unshare --mount --propagation private -- bash "$0" "$@"
fi
mkdir -p "$cache" "$(dirname "$output")"
# In memory: dpkg waits for the disk after each file.
scratch=$(mktemp -d)
mount -t tmpfs -o mode=755 rootfs "$scratch"
trap 'cd /; umount --lazy "$scratch"; rmdir "$scratch"' EXIT

say() { echo "root file system: $*" >&2; }

# A folder or file of the cache appears when it is whole.
fetch_wheels() {
    wheels=$cache/wheels-$(sha256sum <"$repository/requirements/run.txt" | cut -c 1-16)
    [ -d "$wheels" ] && return
    say "downloading the locked wheels into $wheels"
    "$python" -m pip download --quiet --quiet --disable-pip-version-check --dest "$scratch/wheels" --only-binary=:all: \
        --python-version "$python_version" --no-deps --require-hashes --requirement "$repository/requirements/run.txt"
    cp -r "$scratch/wheels" "$wheels.$$"
    mv -T "$wheels.$$" "$wheels"
}

bootstrap_debian() {
    local packages sources=()
    packages=$(sed 's/#.*//' "$here/debian-packages" | xargs echo usr-is-merged python3)
    debian=$cache/debian-$(echo "$suite $packages $(declare -f bootstrap_debian)" | sha256sum | cut -c 1-16).tar
    [ -n "$(find "$debian" -mmin -1440 2>/dev/null)" ] && return
    # The mirror of this machine, if it is of the same release; else mmdebstrap's own.
    if grep -qx "VERSION_CODENAME=$suite" /etc/os-release && [ -f /etc/apt/sources.list.d/debian.sources ]; then
        sources=(/etc/apt/sources.list.d/debian.sources)
    fi
    say "making Debian $suite with $packages"
    mkdir "$scratch/tmp"
    SOURCE_DATE_EPOCH=$(date +%s) TMPDIR=$scratch/tmp mmdebstrap --quiet --mode=root --variant=essential \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include="${packages// /,}" \
        --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        "$suite" "$scratch/debian.tar" "${sources[@]}" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
    mv "$scratch/debian.tar" "$debian.$$"
    mv "$debian.$$" "$debian"
    find "$cache" -name 'debian-*.tar' -mmin +1440 -delete
}

fetch_wheels
bootstrap_debian
root=$scratch/root
mkdir "$root"
tar --extract --file "$debian" --directory "$root"
# What came about while Debian was made has one time, that of its beginning: it is made new, whenever that was.
find "$root" -newermt "@$(($(stat -c %Y "$root/var/lib/dpkg/status") - 1))" -exec touch --no-dereference {} +

# What installs is put beside, and is gone afterwards.
work=$root/tmp/work
mkdir "$work" "$work/pip"
cp -r "$("$python" -c 'import pip; print(pip.__path__[0])')" "$work/pip/"
cp -r "$wheels" "$work/wheels"
(cd "$repository" && "$python" -m hatchling build --target wheel --directory "$work/wheels") >"$scratch/log" 2>&1 \
    || { cat "$scratch/log" >&2; exit 1; }
cp "$here/install.sh" "$repository/requirements/run.txt" "$work/"
# With none of this machine's settings for pip.
env --ignore-environment PATH="$PATH" PYTHONPATH=/tmp/work/pip \
    chroot "$root" sh /tmp/work/install.sh /tmp/work/wheels /tmp/work/run.txt >&2
rm -r "$work"
# Of the machine that it was made on; the container's own are mounted there.
: >"$root/etc/resolv.conf"
: >"$root/etc/hostname"

tar --create --file "$output.new" --directory "$root" --sort=name --numeric-owner --xattrs --xattrs-include='*' \
    --mtime="@$epoch" --clamp-mtime --pax-option=delete=atime,delete=ctime .
mv "$output.new" "$output"
say "$output, $(du --human-readable --apparent-size "$output" | cut -f 1)"
