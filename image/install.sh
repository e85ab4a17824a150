#!/bin/sh
# Make /opt/ipvsproxy: install.sh WHEELS REQUIREMENTS
#
# A virtual environment of this machine's python3, without pip, of nothing but the wheels in the folder WHEELS:
# ipvsproxy's own and those that REQUIREMENTS locks. Needs pip on Python's path.
set -eu
wheels=$1 requirements=$2
target=/opt/ipvsproxy

python3 -m venv --without-pip "$target"
install() {
    python3 -m pip --python "$target/bin/python" install --quiet --disable-pip-version-check --root-user-action=ignore \
        --no-cache-dir --no-index --find-links "$wheels" --no-compile --no-deps "$@"
}
install --require-hashes --requirement "$requirements"
install "$wheels"/ipvsproxy-*.whl
# The client's asynchronous half, 65 MB that nothing here imports.
rm -r "$target"/lib/python3*/site-packages/kubernetes/aio
# The root file system is read-only where it runs: Python could never keep what it compiles.
# One after the other and with the same hashes, or the files would differ from time to time.
PYTHONHASHSEED=0 "$target/bin/python" -m compileall -q -f --invalidation-mode unchecked-hash "$target/lib"
"$target/bin/ipvsproxy" --version
