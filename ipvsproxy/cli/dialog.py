"""How `ipvsproxy cleanup` speaks to an operator: it shows what goes, asks, and says what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ipvsproxy.cli.notices import notify
from ipvsproxy.errors import UsageError
from ipvsproxy.observe.printable import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

# As many of several things are named as fit into a line.
_NAMED: Final = 4


class Dialog:
    """The streams of one command, and what its flags say about questions."""

    def __init__(
        self, source: TextIO, output: TextIO, errors: TextIO, *, dry_run: bool, assume_yes: bool
    ) -> None:
        """Take them; UsageError if there will be a question and nobody can answer it."""
        if not (dry_run or assume_yes or source.isatty()):
            raise UsageError(
                "cleanup asks before it removes anything, and there is no terminal to ask on: "
                "add --yes, or --dry-run to see what would go"
            )
        self._source = source
        self._output = output
        self._errors = errors
        self.dry_run = dry_run
        self._assume_yes = assume_yes
        self.failed = False

    def show(self, title: str, lines: Iterable[str]) -> None:
        """Write a title and what belongs under it; nothing if that is nothing."""
        shown = [f"  {printable(line)}\n" for line in lines]
        if shown:
            self._output.write(f"{title}:\n{''.join(shown)}")

    def say(self, sentence: str) -> None:
        """Write a sentence; the reader sees it at once."""
        self._output.write(f"{printable_lines(sentence)}\n")
        self._output.flush()

    def warn(self, sentence: str) -> None:
        """Write a sentence, without a full stop, to standard error."""
        self._output.flush()
        notify(self._errors, sentence)

    def fail(self, sentence: str) -> None:
        """Say what was not done, without a full stop; the command goes on, and ends with exit code 1."""
        self.failed = True
        self.warn(sentence)

    def agrees(self, question: str) -> bool:
        """Say whether to go on: asked if need be, and always no for a dry run."""
        if self.dry_run or self._assume_yes:
            return self._assume_yes
        self._output.write(f"{question} [y/N] ")
        self._output.flush()
        if self._source.readline().strip().lower() in {"y", "yes"}:
            return True
        self.failed = True
        self.say("Nothing was removed.")
        return False

    @property
    def exit_code(self) -> int:
        """0 if everything was done that was asked for, else 1."""
        return int(self.failed)


def listed(names: Sequence[object]) -> str:
    """Return the names, and beyond a few of them how many more there are."""
    named = ", ".join(map(str, names[:_NAMED]))
    return named if len(names) <= _NAMED else f"{named} and {len(names) - _NAMED:,} more"


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return `1 address` or `2,000 addresses`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"
