"""The errors that reach a person: one line each, which names what is wrong and says what to do."""


class IpvsProxyError(Exception):
    """The base of all errors that the command line prints as one line; the exit code is the class's `exit_code`."""

    exit_code = 1


class UsageError(IpvsProxyError):
    """A flag, a file or a field that the user wrote is wrong."""

    exit_code = 2


class NotPermittedError(IpvsProxyError):
    """The user may not do what the command does."""

    exit_code = 77  # EX_NOPERM of sysexits.h
