"""The agent's own health: whether it answers, is up to date with the API server, and gets done what it wants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.config.durations import format_duration
from ipvsproxy.plan.check.finding import Check, Finding, Severity, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT_ONLY = 0o077


class Watch(NamedTuple):
    """A resource that the agent follows.

    `error` says why it is not connected, and `remedy` what to do about that, "" if it is not known.
    """

    resource: str
    connected: bool
    seconds_since_contact: int | None
    error: str
    remedy: str = ""


class Several(NamedTuple):
    """All of one kind that is wrong: `kind` is its name in the plural, `sentences` say what each one is.

    `fails` says that the traffic of a Service fails by it.
    """

    kind: str
    sentences: Sequence[str]
    fails: bool = False


class Health(NamedTuple):
    """What an agent that answers says of itself; `differences` None: they can't be found out.

    `node_known` says that there is a Node of its name. `resync_overdue_after` is in seconds, `warnings` are sentences
    about the node. `failures` are sentences, too.
    """

    version: str
    process: int
    node_name: str
    synced: bool
    seconds_since_resync: int | None
    resync_overdue_after: float
    node_known: bool = True
    watches: Sequence[Watch] = ()
    failures: Sequence[str] = ()
    rejections: Sequence[Several] = ()
    differences: Sequence[Several] | None = ()
    warnings: Sequence[str] = ()


class RunDirectory(NamedTuple):
    """The directory with the agent's lock and socket: its path, owner's number and permissions, as `stat` has them."""

    path: str
    owner: int
    mode: int


def judge_silence(why: str, *, was_here: bool, not_running: bool) -> Finding:
    """Judge that no agent answers; `why` is a sentence. `was_here`: its table is in the kernel."""
    if not was_here:
        return Finding(
            Check.AGENT,
            Severity.INFO,
            f"{why}, and has left no rules: this node has none yet",
            "ipvsproxy run",
        )
    if not_running:
        return Finding(
            Check.AGENT,
            Severity.ERROR,
            f"{why}: the kernel goes on with what it has, and no change of Services and endpoints reaches it",
            "start it: ipvsproxy run, or its service or pod; its last log lines say why it ended",
        )
    return Finding(
        Check.AGENT, Severity.ERROR, why, "read the agent's log, and start it again if it stays silent"
    )


def judge_health(health: Health, version: str) -> list[Finding]:
    """Judge what the agent says; `version` is this program's."""
    return [
        _judge_synced(health),
        *([_judge_node(health)] if health.synced else []),
        _judge_version(health, version),
        _judge_resync(health),
        *_judge_watches(health),
        _judge_failures(health.failures),
        *_judge_differences(health.differences),
        *_judge_rejections(health.rejections),
        *(Finding(Check.AGENT_WARNING, Severity.WARNING, each) for each in health.warnings),
    ]


def judge_configuration(file: str, error: str, after_restart: Sequence[str]) -> Finding:
    """Judge whether the agent goes by its file as it is; `after_restart` are the fields that need one, "" no file."""
    if error:
        return Finding(
            Check.CONFIGURATION,
            Severity.WARNING,
            f"{file} was changed, and is refused: the agent goes by what it had read, and can't start again: {error}",
            f"correct {file}",
        )
    if after_restart:
        return Finding(
            Check.CONFIGURATION,
            Severity.WARNING,
            f"{file} was changed, and the agent takes these over when it is restarted only: {', '.join(after_restart)}",
            "restart the agent; ipvsproxy config show",
        )
    whose = file or "its flags and the defaults"
    return Finding(
        Check.CONFIGURATION, Severity.OK, f"the agent goes by {whose}: what is expected here follows from it"
    )


def judge_run_directory(found: RunDirectory) -> Finding:
    """Judge who may enter the run directory."""
    if found.owner or found.mode & _ROOT_ONLY:
        return Finding(
            Check.RUN_DIRECTORY,
            Severity.WARNING,
            f"{found.path} belongs to user {found.owner} with permissions {found.mode:o}: "
            "others than root may see the agent's lock, or put something in its place",
            f"chown root: {found.path}; chmod 700 {found.path}",
        )
    return Finding(Check.RUN_DIRECTORY, Severity.OK, f"{found.path} is for root only")


def _judge_synced(health: Health) -> Finding:
    name = f"agent {health.version}, process {health.process}, node {health.node_name}"
    if health.synced:
        return Finding(
            Check.AGENT, Severity.OK, f"{name}: it answers, and has compared everything with the kernel"
        )
    waiting = f"{name}: it has not compared everything with the kernel yet"
    if any(not watch.connected and watch.error for watch in health.watches):
        return Finding(Check.AGENT, Severity.INFO, f"{waiting}, for what it watches is out of reach")
    return Finding(
        Check.AGENT,
        Severity.WARNING,
        f"{waiting}; it waits for the API server's lists, or has just begun",
        "ipvsproxy check again in a moment; read the agent's log if it stays so",
    )


def _judge_node(health: Health) -> Finding:
    if health.node_known:
        return Finding(Check.NODE, Severity.OK, f"the agent works for the node {health.node_name}")
    return Finding(
        Check.NODE,
        Severity.ERROR,
        f"the API server has no Node named {health.node_name}, which the agent works for: no endpoint counts as "
        "one of this node under a traffic policy Local, and the node's zone and addresses are not known",
        "start the agent with --hostname-override and the name that `kubectl get nodes` shows",
    )


def _judge_version(health: Health, version: str) -> Finding:
    if health.version == version:
        return Finding(Check.AGENT_VERSION, Severity.OK, f"the agent and this program are both {version}")
    return Finding(
        Check.AGENT_VERSION,
        Severity.WARNING,
        f"the agent is {health.version}, this program {version}: what this one expects may not be what the agent does",
        "use the ipvsproxy of the agent's version, or restart the agent with this one",
    )


def _judge_resync(health: Health) -> Finding:
    seconds, overdue = health.seconds_since_resync, health.resync_overdue_after
    if seconds is None:
        return Finding(Check.RESYNC, Severity.UNKNOWN, "there was no comparison with the kernel yet")
    state = f"the last comparison with the kernel was {format_duration(seconds)} ago"
    if seconds > overdue:
        return Finding(
            Check.RESYNC,
            Severity.ERROR,
            f"{state}, more than {format_duration(math.ceil(overdue))}: it fails, or the agent hangs; "
            "what others change is not repaired",
            "read the agent's log for `resync failed`; restart the agent if there is nothing",
        )
    return Finding(Check.RESYNC, Severity.OK, state)


def _judge_watches(health: Health) -> list[Finding]:
    broken: dict[str, list[Watch]] = {}
    for watch in health.watches:
        if not watch.connected:
            # The words of an error differ from resource to resource, and from one attempt to the next.
            broken.setdefault(watch.remedy, []).append(watch)
    if health.watches and not broken:
        names = ", ".join(watch.resource for watch in health.watches)
        return [Finding(Check.WATCH, Severity.OK, f"connected: {names}")]
    return [_judge_broken(watches) for watches in broken.values()]


def _judge_broken(watches: Sequence[Watch]) -> Finding:
    """Judge what is out of reach for one reason."""
    *others, last_one = sorted(watch.resource for watch in watches)
    names = f"{', '.join(others)} and {last_one}" if others else last_one
    heard = [watch.seconds_since_contact for watch in watches if watch.seconds_since_contact is not None]
    last = f"last heard of {format_duration(max(heard))} ago" if heard else "never heard of"
    errors = dict.fromkeys(watch.error for watch in watches if watch.error)
    error = f": {'; '.join(errors)}" if errors else ""
    return Finding(
        Check.WATCH,
        Severity.ERROR,
        f"{names} are out of reach, {last}, so changes are not seen{error}",
        watches[0].remedy
        or "see that the API server can be reached from this node, as the agent's kubeconfig says",
        names,
    )


def _judge_failures(failures: Sequence[str]) -> Finding:
    if not failures:
        return Finding(Check.FAILURES, Severity.OK, "the kernel refuses nothing")
    changes = "1 change" if len(failures) == 1 else f"{len(failures)} changes"
    return Finding(
        Check.FAILURES,
        Severity.ERROR,
        f"the kernel refuses {changes}: {listed(failures)}",
        "ipvsproxy dump, at the end: reasons, and when each is tried again",
    )


def _judge_differences(differences: Sequence[Several] | None) -> list[Finding]:
    if differences is None:
        return [
            Finding(Check.DIFFERENCES, Severity.UNKNOWN, "there is nothing to compare the kernel with yet")
        ]
    return [
        _judge_several(Check.DIFFERENCES, each, "ipvsproxy dump --diff; the next comparison repairs them")
        for each in differences
    ] or [Finding(Check.DIFFERENCES, Severity.OK, "the kernel has what the agent wants")]


def _judge_rejections(rejections: Sequence[Several]) -> list[Finding]:
    return [
        _judge_several(Check.REJECTIONS, each, "ipvsproxy dump, at REJECTED: correct the objects")
        for each in rejections
    ] or [Finding(Check.REJECTIONS, Severity.OK, "nothing that the agent was given is rejected")]


def _judge_several(check: Check, several: Several, mend: str) -> Finding:
    return Finding(
        check,
        Severity.ERROR if several.fails else Severity.WARNING,
        f"{several.kind} ({len(several.sentences)}): {listed(several.sentences)}",
        mend,
        several.kind,
    )
