"""validate, plan, apply, drift, show."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import planfile, talk
from btp_reconcile.cli.hide import Hidden, hidden, within
from btp_reconcile.cli.planfile import Promise
from btp_reconcile.cli.world import Setting, asking
from btp_reconcile.core import report
from btp_reconcile.core.errors import SpecError, UsageError
from btp_reconcile.core.plan import MANY
from btp_reconcile.core.view import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from btp_reconcile.core.model import Report

DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _paths(specs: Sequence[str]) -> tuple[str, ...]:
    """The specs to work on. A saved plan is none, and says where it belongs."""
    for one in specs:
        if one.endswith(".json") and planfile.is_one(one):
            raise UsageError(
                f"{one} is a saved plan, which stands alone: `reconcile show {one}` or `reconcile apply {one}`"
            )
    return tuple(specs) or ("specs/",)


def _known(planned: pipeline.Planned, policy: Policy) -> None:
    """What the options name must be there: a misspelt target would plan nothing, and look like success."""
    if not (policy.targets or policy.reapply or policy.allow):
        return
    wanted = {str(one.address) for one in planned.prepared.wanted.resources}
    wanted |= {f"subaccount:{name}" for name in planned.prepared.wanted.subaccounts}
    planned_for = [change.address for change in planned.plan.changes]
    for target in policy.targets:
        if str(target) not in wanted and not any(one.within(target) for one in planned_for):
            raise UsageError(f"--target: there is no {target}{talk.nearest(str(target), wanted)}")
    for option, names in (("--reapply", {str(one) for one in policy.reapply}), ("--allow", policy.allow)):
        for name in sorted(names):
            if name not in wanted and not (option == "--allow" and name == MANY):
                raise UsageError(f"{option}: there is no {name}{talk.nearest(name, wanted)}")


def validate(specs: Sequence[str], format_: str) -> int:
    """Everything that can be known offline."""
    try:
        checked = pipeline.check(_paths(specs))
    except SpecError as error:
        if format_ == "json":
            talk.data({"valid": False, "problems": [report.problem_json(one) for one in error.problems]})
            return report.SPEC
        raise
    if format_ == "json":
        talk.data({"valid": True, "warnings": [report.problem_json(one) for one in checked.warnings]})
        return report.DONE
    if checked.warnings:
        talk.problems(checked.warnings)
    for spec in checked.specs:
        subaccounts = spec.data.get("subaccounts") or {}
        instances = [one for sub in subaccounts.values() for one in (sub.get("instances") or {}).values()]
        keys = sum(len(one.get("keys") or {}) for one in instances)
        said = f"{spec.file}: valid, {_count(len(subaccounts), 'subaccount')}, {_count(len(instances), 'instance')}"
        talk.lines([("green", f"{said}, {_count(keys, 'key')}")])
    return report.DONE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plan(
    specs: Sequence[str],
    *,
    target: Sequence[str],
    prune: bool,
    allow: Sequence[str],
    reapply: Sequence[str],
    format_: str,
    out: str | None,
    detailed_exitcode: bool,
    log_format: str,
    **where: Any,
) -> int:
    """What would be done."""
    setting = Setting(**where)
    asked = Promise(_paths(specs), 0.0, prune, tuple(target), tuple(allow), tuple(reapply), setting.sandbox)
    if out is not None:
        planfile.check_name(out)
    with talk.telling(log_format) as events, setting.world(events) as world:
        promise = replace(asked, now=world.clock.now())
        policy = promise.policy()
        with _spoken(format_):
            planned = pipeline.make_plan(pipeline.prepare(promise.specs, world), world, policy)
        _known(planned, policy)
        shown = _show_plan(planned, format_, hidden(planned.prepared.wanted, world))
        if out is not None:
            planfile.write(out, shown, promise)
        return report.plan_exit(planned.plan, detailed=detailed_exitcode)


@contextmanager
def _spoken(format_: str) -> Iterator[None]:
    """Who asked for JSON gets it for problems, too; the words go to stderr as always."""
    try:
        yield
    except SpecError as error:
        if format_ == "json":
            said = [report.problem_json(one) for one in error.problems]
            talk.data({"format": "btp-reconcile/problems", "version": report.VERSION, "problems": said})
        raise


def _plan_json(planned: pipeline.Planned, what: Hidden, *, drift: bool = False) -> dict[str, Any]:
    prepared = planned.prepared
    shown = report.plan_json(planned.plan, prepared.wanted.subaccounts, prepared.warnings, drift=drift)
    found: dict[str, Any] = within(shown, what)
    return found


def _show_plan(
    planned: pipeline.Planned, format_: str, what: Hidden, *, drift: bool = False
) -> dict[str, Any]:
    shown = _plan_json(planned, what, drift=drift)
    if format_ == "json":
        talk.data(shown)
    else:
        talk.lines(report.plan_text(shown), wrap=True)
    return shown


def drift(specs: Sequence[str], *, target: Sequence[str], format_: str, log_format: str, **where: Any) -> int:
    """How the platform differs from the specs."""
    with talk.telling(log_format) as events, Setting(**where).world(events) as world:
        policy = Policy(world.clock.now(), targets=planfile.addresses(target, "--target"))
        with _spoken(format_):
            planned = pipeline.make_plan(pipeline.prepare(_paths(specs), world), world, policy)
        _known(planned, policy)
        _show_plan(planned, format_, hidden(planned.prepared.wanted, world), drift=True)
        return report.plan_exit(planned.plan, detailed=True, drift=True)


def apply(
    specs: Sequence[str],
    *,
    target: Sequence[str],
    prune: bool,
    allow: Sequence[str],
    reapply: Sequence[str],
    format_: str,
    yes: bool,
    timeout: str,
    log_format: str,
    **where: Any,
) -> int:
    """Do it."""
    deadline = _duration(timeout)
    setting = Setting(**where)
    saved = planfile.read(specs)
    if saved is None:
        promise = Promise(
            _paths(specs), 0.0, prune, tuple(target), tuple(allow), tuple(reapply), setting.sandbox
        )
    else:
        if any((target, prune, allow, reapply)):
            raise UsageError(
                "a saved plan carries its own options: leave out --target, --prune, --allow and --reapply"
            )
        promise = planfile.promise(saved, specs[0])
        if setting.sandbox and not promise.sandbox:
            raise UsageError(f"{specs[0]} was not made with --sandbox, and is not applied there: plan again")
        setting.sandbox = promise.sandbox
    asks = sys.stdin is not None and sys.stdin.isatty() and not yes and saved is None
    if not (yes or asks or saved is not None or os.environ.get("CI") == "true"):
        raise UsageError("nobody can be asked here: say --yes, give a plan file, or set CI=true")
    with talk.telling(log_format) as log:
        told = [log]  # the last one is told: while steps are run, retries belong to the progress, too

        what: Hidden = {}

        def events(event: str, fields: Mapping[str, Any]) -> None:
            told[-1](event, within(fields, what))

        with setting.world(events) as world:
            if saved is None:
                promise = replace(promise, now=world.clock.now())
            with _spoken(format_):
                prepared = pipeline.prepare(promise.specs, world)
                planned = pipeline.make_plan(prepared, world, promise.policy())
            what = hidden(planned.prepared.wanted, world)
            if saved is None:
                _known(planned, promise.policy())
            else:
                planfile.keep(planned, saved, specs[0])
            if format_ == "text":
                _show_plan(planned, format_, what)
            reports: list[Report] = []
            if planned.plan.objections:
                talk.say("refused: nothing was done")
            elif planned.plan.steps:
                if asks and not _agreed(planned, format_, what):
                    talk.say("nothing was done")
                    return report.PENDING
                # Who approved a plan approved no other one.
                rounds = 1 if saved is not None or asks else pipeline.ROUNDS
                with talk.telling(log_format, len(planned.plan.steps)) as progress:
                    told.append(progress)
                    planned, reports = pipeline.settle(planned, world, promise.policy(), deadline, rounds)
                    told.pop()
            _show_reports(planned, reports, format_, what)
            if report.follows(planned.plan, reports):
                talk.say("what was waited for is at rest; run again for what follows from it")
            return report.apply_exit(planned.plan, reports)


def _agreed(planned: pipeline.Planned, format_: str, what: Hidden) -> bool:
    """Show the plan to the person who is asked, if it was not shown yet, and ask."""
    if format_ == "json":
        talk.lines(report.plan_text(_plan_json(planned, what)), error=True, wrap=True)
    try:
        with asking():
            return talk.agreed("Apply this?")
    except KeyboardInterrupt:
        talk.say("")
        return False


def _show_reports(planned: pipeline.Planned, reports: Sequence[Report], format_: str, what: Hidden) -> None:
    shown = [within(report.report_json(one), what) for one in reports]
    if format_ == "json":
        talk.data({"plan": _plan_json(planned, what), "reports": shown})
        return
    for one in shown:
        talk.lines(report.report_text(one), wrap=True)


def show(specs: Sequence[str], format_: str, *, detailed_exitcode: bool) -> int:
    """Specs with everything merged in, or a saved plan."""
    saved = planfile.read(specs)
    if saved is None:
        merged = {spec.file: spec.data for spec in pipeline.check(_paths(specs)).specs}
        if format_ == "json":
            talk.data(merged)
        else:
            talk.lines([("", pipeline.yaml_text(merged).rstrip())])
        return report.DONE
    try:
        shown = list(report.plan_text(saved))
        code = report.saved_exit(saved) if detailed_exitcode else report.DONE
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UsageError(f"{specs[0]} was changed after it was written: plan again") from None
    if format_ == "json":
        talk.data(saved)
    else:
        talk.lines(shown, wrap=True)
    return code


def _duration(text: str) -> float:
    match = DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"--timeout: {text!r} is no duration; write 90s, 30m or 2h")
    return float(match.group(1)) * UNITS[match.group(2)]
