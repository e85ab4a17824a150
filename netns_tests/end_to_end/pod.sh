#!/bin/sh
# Runs a command with the files of a ServiceAccount where a pod has them: pod.sh FOLDER COMMAND...
# The process stays the same one.
set -eu
if [ "${INSIDE:-}" != yes ]; then
    INSIDE=yes exec unshare --mount --propagation private -- sh "$0" "$@"
fi
unset INSIDE
files=$1
shift

place=/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs run /run
mkdir -p "$place"
mount --bind "$files" "$place"
exec "$@"
