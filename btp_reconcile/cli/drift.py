"""drift: how the platform differs from the specs, for people, CI systems and monitoring."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile import __version__, pipeline
from btp_reconcile.cli import look, planfile, talk, work, written
from btp_reconcile.cli.hide import hidden, within
from btp_reconcile.cli.world import Setting
from btp_reconcile.core import authors, baseline as baselines, record, report
from btp_reconcile.core.errors import Refused, SpecError, UsageError
from btp_reconcile.core.keys import keys_json
from btp_reconcile.core.shards import Shard
from btp_reconcile.core.view import Policy
from btp_reconcile.edges import files
from btp_reconcile.views import junit, metrics as measured, sarif, service as lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from btp_reconcile.cli.notify import Notifier
    from btp_reconcile.core.authors import Author
    from btp_reconcile.core.model import Address


def drift(
    specs: Sequence[str],
    *,
    target: Sequence[str],
    format_: str,
    metrics: str | None,
    baseline: str | None,
    write_baseline: str | None,
    max_size: int | None,
    log_format: str,
    shard: str | None = None,
    every: str | None = None,
    listen: str | None = None,
    jitter: int | None = None,
    notify: str | None = None,
    notify_format: str | None = None,
    notify_state: str | None = None,
    **where: Any,
) -> int:
    """How the platform differs from the specs."""
    webhook = telling_of(notify, notify_format, notify_state)
    if every is not None:
        for option, given in (
            ("--metrics", metrics),
            ("--write-baseline", write_baseline),
            ("--max-size", max_size),
        ):
            if given is not None:
                raise UsageError(f"{option} is for one check: leave out --every")
        from btp_reconcile.cli.watch import watch  # a single check does not need it, and starts sooner
        from btp_reconcile.core.watch import JITTER

        return watch(
            specs,
            every=every,
            listen=listen,
            jitter=JITTER if jitter is None else jitter,
            target=target,
            format_=format_,
            baseline=baseline,
            log_format=log_format,
            shard=shard,
            webhook=webhook,
            **where,
        )
    for option, said in (("--listen", listen), ("--jitter", jitter)):
        if said is not None:
            raise UsageError(f"{option} belongs to a service: add --every 15m, or leave it out")
    most = look.room(max_size, format_)
    targets = planfile.addresses(target, "--target")
    part = planfile.shard_of(shard, os.environ)
    for file, option in ((metrics, "--metrics"), (write_baseline, "--write-baseline")):
        if file is not None:
            written.check(file, option)
    if write_baseline is not None and (targets or part):
        raise UsageError("--write-baseline takes everything: leave out --target and --shard")
    if metrics is not None and not metrics.endswith(".prom"):
        talk.say(f"--metrics: the node exporter reads no file but *.prom; {metrics} is not one")
    with (
        _measured(metrics) as measure,
        talk.telling(log_format) as events,
        webhook(events, where) as tell,
        Setting(**where).world(events) as world,
    ):
        known = read_baseline(baseline) if baseline is not None else None
        policy = Policy(world.clock.now(), targets=targets)
        with _spoken(format_):
            planned = _planned(work.paths(specs), world, policy, part)
        work.known(planned, policy)
        shown = _json(planned, policy, world, pipeline.authors(planned, world))
        if write_baseline is not None:
            known = _write_baseline(write_baseline, shown, known)
        shown, code = _against(shown, known, planned, policy)
        _show(shown, format_, most, code)
        measure.update(data=shown, code=code)
        if tell is not None:
            now = world.clock.now()
            tell.tell(lines.check(shown, code, now, max(0.0, now - policy.now)))
        return code


def telling_of(
    url: str | None, shape: str | None, state: str | None
) -> Callable[[talk.Events, Mapping[str, Any]], AbstractContextManager[Notifier | None]]:
    """How somebody is told of a new state: given events and what the options say about the world."""
    from btp_reconcile.cli import notify  # who tells nobody does not need it, and starts sooner
    from btp_reconcile.edges.clock import WallClock

    secret = notify.address(url, shape, state)
    if state is not None:
        written.check(state, "--notify-state")

    def made(events: talk.Events, where: Mapping[str, Any]) -> AbstractContextManager[Notifier | None]:
        if secret is None:
            return nullcontext()
        return notify.Notifier(
            secret,
            shape or "json",
            clock=WallClock(),
            events=events,
            allow_hosts=where["allow_host"],
            rehearsal=where["sandbox"],
            state=state,
        )

    return made


def look_once(
    names: Sequence[str],
    world: pipeline.World,
    targets: tuple[Address, ...],
    part: str | None,
    known: dict[str, Any] | None,
) -> tuple[dict[str, Any], int]:
    """One check: its JSON, and what it ends with."""
    policy = Policy(world.clock.now(), targets=targets)
    planned = _planned(names, world, policy, part)
    work.known(planned, policy)
    shown = _json(planned, policy, world, pipeline.authors(planned, world))
    return _against(shown, known, planned, policy)


def _planned(
    names: Sequence[str], world: pipeline.World, policy: Policy, part: str | None
) -> pipeline.Planned:
    prepared = pipeline.prepare(names, world, Shard.parse(part) if part else None)
    return pipeline.make_plan(prepared, world, policy)


def _against(
    shown: dict[str, Any], known: dict[str, Any] | None, planned: pipeline.Planned, policy: Policy
) -> tuple[dict[str, Any], int]:
    """With what the baseline accepts told apart, and the exit code that follows."""
    if known is not None:
        shown = baselines.applied(shown, known, policy.targets)
    accepted = baselines.accepted(shown)
    return shown, report.plan_exit(planned.plan, detailed=True, drift=True, accepted=accepted)


def _json(
    planned: pipeline.Planned,
    policy: Policy,
    world: pipeline.World,
    changed_by: Mapping[Address, Author | str],
) -> dict[str, Any]:
    """The plan, and beside it the moment it is of, what is known of every key, and who changed what differs."""
    wanted = planned.prepared.wanted
    found = report.plan_json(
        planned.plan, wanted.places, planned.prepared.warnings, drift=True, owners=wanted.owners
    )
    keys = keys_json(wanted, planned.facts, policy.now, policy.targets)["keys"]
    found = authors.told(found, changed_by)
    shown: dict[str, Any] = within(
        {**found, "now": record.moment(policy.now), "keys": keys}, hidden(wanted, world)
    )
    return shown


def _show(shown: Mapping[str, Any], format_: str, most: int, code: int) -> None:
    if format_ == "junit":
        talk.document(junit.text(shown))
    elif format_ == "sarif":
        talk.document(sarif.text(sarif.log(shown, __version__, code)))
    else:
        look.plan(shown, format_, most)


@contextmanager
def _spoken(format_: str) -> Iterator[None]:
    """Who asked for a format gets it for problems of the specs, too; the words go to stderr as always."""
    try:
        with work.spoken(format_):
            yield
    except SpecError as error:
        found = [report.problem_json(one) for one in error.problems]
        if format_ == "junit":
            talk.document(junit.problems(found))
        elif format_ == "sarif":
            talk.document(sarif.text(sarif.problems(found, __version__, report.SPEC)))
        raise


# --- metrics --------------------------------------------------------------------------------------------


@contextmanager
def _measured(file: str | None) -> Iterator[dict[str, Any]]:
    """Writes the metrics at the end of the run, however it ends: a check that fails must not look like one that is
    well. What could not be compared is left out then, and the exit code says why.
    """
    measure: dict[str, Any] = {"data": None, "code": report.FAILED}
    try:
        yield measure
    except BaseException as error:
        measure["code"] = code_of(error)
        raise
    finally:
        if file is not None:
            text = measured.text(measure["data"], Path(file).stem, time.time(), measure["code"])
            try:
                written.write(Path(file), text, written.PUBLIC)
            except OSError as error:
                said = f"the metrics could not be written: {error.strerror}"
                raise OSError(error.errno, said, file) from None


def code_of(error: BaseException) -> int:
    """What a run ends with that could not go on."""
    if isinstance(error, SpecError):
        return report.SPEC
    if isinstance(error, Refused):
        return report.REFUSED
    if isinstance(error, UsageError):
        return report.USAGE
    stopped = isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Interrupted"
    return report.PENDING if stopped else report.FAILED


# --- the baseline ---------------------------------------------------------------------------------------


def read_baseline(file: str) -> dict[str, Any]:
    try:
        data = json.loads(files.whole(file))
    except OSError as error:
        raise UsageError(f"--baseline: {file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        data = None
    if said := baselines.problem(data):
        raise UsageError(f"--baseline: {file} {said}")
    found: dict[str, Any] = data
    return found


def _write_baseline(
    file: str, shown: Mapping[str, Any], known: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The new baseline; or the one from before, if not everything could be seen: what is hidden would be lost."""
    if any(one["code"] == "platform/unseen" for one in shown["unseen"]):
        talk.say(f"{file} is left as it is: not everything could be seen")
        return known
    made = baselines.baseline_json(shown)
    try:
        written.write(Path(file), json.dumps(made, indent=2) + "\n", written.PUBLIC)
    except OSError as error:
        said = f"the baseline could not be written: {error.strerror}"
        raise OSError(error.errno, said, file) from None
    talk.say(f"{file}: {len(made['accepted'])} accepted")
    return made
