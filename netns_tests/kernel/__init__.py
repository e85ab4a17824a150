"""Run a command as root in a kernel that has IPVS: `python -m netns_tests.kernel -- COMMAND…`.

Three runners provide the kernel: `host` (this machine's own), `uml` (user-mode Linux, when a binary is named) and
`virtme` (virtme-ng and QEMU with Debian's kernel). Each is a module with one function, which returns a `Machine`:
the command line that starts it. All the rest is the same for all: `guest.sh` is what the machine runs, an `Exchange`
is the folder through which it is told what to do and tells how it went, and `supervise` keeps time.
"""
