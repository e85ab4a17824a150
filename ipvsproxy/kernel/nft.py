"""The table `inet ipvsproxy`, changed by transactions of `nft -f -` and read from `nft -j`.

Whether anybody else changed nftables shows in its generation, a number that every transaction raises by one, and that
costs microseconds to ask for: as long as nobody did, what was read or written last still holds.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from ipvsproxy.kernel.interface import FirewallError, FirewallState, KernelUnavailableError
from ipvsproxy.kernel.nft_listing import parse_listing
from ipvsproxy.kernel.nft_rules import parse_rules
from ipvsproxy.kernel.nft_text import add_text, remove_text, table_text
from ipvsproxy.plan.firewall import TABLE, ruleset

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ipvsproxy.kernel.nft_listing import Listing
    from ipvsproxy.kernel.nft_rules import ListedRules
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.plan.firewall import FirewallSettings

T = TypeVar("T")

# Without names for numbers: they are those of this machine, and cost time to look up.
_LIST = ("nft", "-j", "-n", "list", "table", "inet", TABLE)
_LIST_WITHOUT_ELEMENTS = ("nft", "-j", "-n", "-t", "list", "table", "inet", TABLE)
_TRANSACTION = ("nft", "-f", "-")
# A table of 100,000 elements takes two seconds.
_TIMEOUT_SECONDS = 60.0
_GENERATIONS = 1 << 32


class Completed(NamedTuple):
    """How a program ended: its exit code, and what it wrote to standard output and standard error."""

    code: int
    output: bytes
    errors: bytes


class FoundTable(NamedTuple):
    """The table with its rules, None if it is not there; `strange` if it has elements such as the agent never adds."""

    state: FirewallState
    strange: bool
    rules: ListedRules | None


class GenerationSource(Protocol):
    """What the table needs of nf_tables beside the program; `kernel.nfnetlink` has it."""

    def generation(self) -> int:
        """Return the number of changes to nftables, modulo 2**32."""

    def has_table(self, name: str) -> bool:
        """Say whether there is a table of the name in the family inet."""


def run_nft(command: Sequence[str], text: bytes, timeout: float = _TIMEOUT_SECONDS) -> Completed:
    """Run nft in the calling thread's network namespace with `text` as its standard input.

    Raise KernelUnavailableError if there is no nft, FirewallError if it does not end within `timeout` seconds.
    """
    try:
        completed = subprocess.run(  # noqa: S603 - fixed arguments; the text is the agent's own
            command, input=text, capture_output=True, check=False, timeout=timeout
        )
    except (FileNotFoundError, PermissionError) as error:
        raise KernelUnavailableError(
            "the program nft can't be run: install the package nftables where the agent runs, with nft on its PATH"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise FirewallError(f"{command[0]} did not end within {timeout:g} seconds") from error
    return Completed(completed.returncode, completed.stdout, completed.stderr)


class NftTable:
    """The table of one network namespace, for one thread."""

    def __init__(
        self,
        settings: FirewallSettings,
        nf_tables: GenerationSource,
        run: Callable[[Sequence[str], bytes], Completed] = run_nft,
    ) -> None:
        """Take the settings that the rules follow from; the kernel is not touched yet."""
        self._rules = table_text(ruleset(settings))
        self._nf_tables = nf_tables
        self._run = run
        # The generation at which the table was certainly intact and its elements known; None if there is none.
        self._known: int | None = None

    def use(self, settings: FirewallSettings) -> None:
        """Take other settings for the rules: the table is not intact before it is installed again, if they differ."""
        rules = table_text(ruleset(settings))
        if rules != self._rules:
            self._rules = rules
            self._known = None

    def install(self, elements: Collection[SetElement]) -> None:
        """Replace the whole table, rules and elements, in one transaction; FirewallError if it is refused."""
        self._known = self._nf_tables.generation()
        self._commit(self._rules + add_text(elements))
        listing, _ = self._list(_LIST_WITHOUT_ELEMENTS)
        # Only what certainly is the agent's own work is put on record as such.
        if listing and not self.changed_by_others():
            self._commit(f"add chain inet {TABLE} {listing.digest_name}\n")

    def read(self) -> FirewallState:
        """Return what the kernel has; a table that is not there is empty and not intact."""
        return _state(self._read()[0])

    def look(self) -> FoundTable:
        """Return what the kernel has, with the rules as they are there, whoever made them."""
        listing, output = self._read()
        rules = self._taken_apart(parse_rules, output) if listing else None
        return FoundTable(_state(listing), bool(listing and listing.strange), rules)

    def change(self, add: Collection[SetElement], remove: Collection[SetElement]) -> None:
        """Change elements in one transaction, all or nothing; FirewallError if it is refused.

        Elements are removed before others are added, and of these source lists last and first. Adding what is there and
        removing what is not are no errors, unless a map's key has another value, a port leads to a source list that is
        not there, or to one that goes. Without changes no program runs.
        """
        if add or remove:
            self._commit(remove_text(remove) + add_text(add))

    def exists(self) -> bool:
        """Say whether there is a table of the name, whatever is in it."""
        return self._nf_tables.has_table(TABLE)

    def remove(self) -> None:
        """Remove the table; one that is not there is no error. FirewallError if that is refused."""
        self._commit(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
        self._known = None

    def changed_by_others(self) -> bool:
        """Say whether the table, without a look at it, may have changed but by this object's own transactions.

        True at the beginning, with other settings, after a refused transaction, and once others have changed anything
        in nftables; until the table is installed, or read and found intact.
        """
        return self._nf_tables.generation() != self._known

    def _commit(self, text: str) -> None:
        """Run one transaction, and follow the generation as far as the transaction alone explains it."""
        before = self._nf_tables.generation()
        known, self._known = self._known, None
        self._nft(_TRANSACTION, text.encode())
        after = self._nf_tables.generation()
        # A transaction that turns out to change nothing does not raise the generation.
        if known == before and after in {before, (before + 1) % _GENERATIONS}:
            self._known = after

    def _read(self) -> tuple[Listing | None, bytes]:
        """Return the table, None if it is not there, and what nft printed; follow the generation from here on."""
        self._known = None
        known = self._nf_tables.generation()
        listing, output = self._list(_LIST)
        if listing and listing.intact:
            self._known = known
        return listing, output

    def _list(self, command: Sequence[str]) -> tuple[Listing | None, bytes]:
        """Return the table, None if it is not there, and what nft printed."""
        try:
            output = self._nft(command, b"")
        except FirewallError:
            if self._nf_tables.has_table(TABLE):
                raise
            return None, b""
        return self._taken_apart(lambda listed: parse_listing(listed, self._rules), output), output

    def _taken_apart(self, parse: Callable[[bytes], T], output: bytes) -> T:
        try:
            return parse(output)
        except ValueError as error:
            raise FirewallError(f"nft printed a table that can't be read: {error}") from error

    def _nft(self, command: Sequence[str], text: bytes) -> bytes:
        """Run nft and return its output; FirewallError if it fails."""
        code, output, errors = self._run(command, text)
        if code:
            lines = errors.decode(errors="replace").splitlines()
            raise FirewallError(lines[0] if lines else f"nft ended with exit code {code} and no message")
        return output


def _state(listing: Listing | None) -> FirewallState:
    return (
        FirewallState(listing.elements, listing.intact)
        if listing
        else FirewallState(frozenset(), intact=False)
    )
