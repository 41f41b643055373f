"""validate, plan, apply, drift, show."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btp_reconcile import pipeline
from btp_reconcile.cli import talk
from btp_reconcile.cli.world import Setting
from btp_reconcile.core import report
from btp_reconcile.core.diff import Policy
from btp_reconcile.core.errors import Refused, SpecError, UsageError
from btp_reconcile.core.model import Address, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btp_reconcile.core.model import Report

DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Promise:
    """What a plan file holds besides the plan: enough to make the same plan again."""

    specs: tuple[str, ...]
    now: float
    prune: bool
    target: tuple[str, ...]
    allow: tuple[str, ...]
    reapply: tuple[str, ...]
    sandbox: bool

    def policy(self) -> Policy:
        return Policy(
            self.now,
            self.prune,
            _addresses(self.target, "--target"),
            frozenset(self.allow),
            frozenset(_addresses(self.reapply, "--reapply")),
        )


def _addresses(texts: Sequence[str], option: str) -> tuple[Address, ...]:
    try:
        return tuple(Address.parse(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _paths(specs: Sequence[str]) -> tuple[str, ...]:
    return tuple(specs) or ("specs/",)


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
    with talk.telling(log_format) as events, setting.world(events) as world:
        promise = Promise(
            _paths(specs),
            world.clock.now(),
            prune,
            tuple(target),
            tuple(allow),
            tuple(reapply),
            setting.sandbox,
        )
        policy = promise.policy()
        planned = pipeline.make_plan(pipeline.prepare(promise.specs, world), world, policy)
        shown = _show_plan(planned, format_)
        if out is not None:
            _write_private(
                Path(out), json.dumps({**shown, "promise": _promise_json(promise)}, indent=2) + "\n"
            )
        return report.plan_exit(planned.plan, detailed=detailed_exitcode)


def _show_plan(planned: pipeline.Planned, format_: str, *, drift: bool = False) -> dict[str, Any]:
    prepared = planned.prepared
    shown = report.plan_json(planned.plan, prepared.wanted.subaccounts, prepared.warnings, drift=drift)
    if format_ == "json":
        talk.data(shown)
    else:
        talk.lines(report.plan_text(shown))
    return shown


def drift(specs: Sequence[str], *, target: Sequence[str], format_: str, log_format: str, **where: Any) -> int:
    """How the platform differs from the specs."""
    with talk.telling(log_format) as events, Setting(**where).world(events) as world:
        policy = Policy(world.clock.now(), targets=_addresses(target, "--target"))
        planned = pipeline.make_plan(pipeline.prepare(_paths(specs), world), world, policy)
        _show_plan(planned, format_, drift=True)
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
    saved = _saved(specs)
    if saved is not None:
        if any((target, prune, allow, reapply)):
            raise UsageError(
                "a saved plan carries its own options: leave out --target, --prune, --allow and --reapply"
            )
        promise = _promise(saved, specs[0])
        where["sandbox"] = promise.sandbox
    setting = Setting(**where)
    asks = sys.stdin is not None and sys.stdin.isatty() and not yes and saved is None
    if not (yes or asks or saved is not None or os.environ.get("CI") == "true"):
        raise UsageError("nobody can be asked here: say --yes, give a plan file, or set CI=true")
    with talk.telling(log_format) as quiet, setting.world(quiet) as world:
        if saved is None:
            promise = Promise(
                _paths(specs),
                world.clock.now(),
                prune,
                tuple(target),
                tuple(allow),
                tuple(reapply),
                setting.sandbox,
            )
        policy = promise.policy()
        prepared = pipeline.prepare(promise.specs, world)
        planned = pipeline.make_plan(prepared, world, policy)
        if saved is not None:
            _keep_promise(planned, saved, specs[0])
        if format_ == "text":
            _show_plan(planned, format_)
        if planned.plan.objections:
            raise Refused(planned.plan.objections)
        reports: list[Report] = []
        if planned.plan.steps:
            if asks and not click.confirm("Apply this?", err=True):
                talk.say("nothing was done")
                return report.DONE
            rounds = 1 if saved is not None else pipeline.ROUNDS
            with talk.telling(log_format, len(planned.plan.steps)) as events:
                telling = replace(world, events=events)
                planned, reports = pipeline.settle(planned, telling, policy, deadline, rounds)
        _show_reports(planned, reports, format_)
        return report.apply_exit(planned.plan, reports)


def _show_reports(planned: pipeline.Planned, reports: Sequence[Report], format_: str) -> None:
    if format_ == "json":
        prepared = planned.prepared
        shown = report.plan_json(planned.plan, prepared.wanted.subaccounts, prepared.warnings)
        talk.data({"plan": shown, "reports": [report.report_json(one) for one in reports]})
        return
    for one in reports:
        talk.lines(report.report_text(report.report_json(one)))


# --- plan files -----------------------------------------------------------------------------------------


def _saved(specs: Sequence[str]) -> dict[str, Any] | None:
    """The plan file, if that is what was given. Several files, or YAML, are specs."""
    if len(specs) != 1 or not specs[0].endswith(".json"):
        return None
    try:
        with Path(specs[0]).open(encoding="utf-8") as stream:
            saved = json.load(stream)
    except (ValueError, RecursionError):
        raise UsageError(
            f"{specs[0]} is no plan file: `reconcile plan --out {specs[0]}` writes one"
        ) from None
    if not isinstance(saved, dict) or saved.get("format") != report.FORMAT:
        raise UsageError(f"{specs[0]} is no plan file: `reconcile plan --out {specs[0]}` writes one")
    if saved.get("version") != report.VERSION:
        raise UsageError(f"{specs[0]} was written by another version of reconcile: plan again")
    return saved


def _promise_json(promise: Promise) -> dict[str, Any]:
    return {
        "specs": list(promise.specs),
        "now": promise.now,
        "prune": promise.prune,
        "target": list(promise.target),
        "allow": list(promise.allow),
        "reapply": list(promise.reapply),
        "sandbox": promise.sandbox,
    }


def _promise(saved: dict[str, Any], file: str) -> Promise:
    said = saved.get("promise")
    texts = ("specs", "target", "allow", "reapply")
    if (
        not isinstance(said, dict)
        or any(not isinstance(said.get(one), list) for one in texts)
        or any(not isinstance(item, str) for one in texts for item in said[one])
        or not isinstance(said.get("now"), (int, float))
        or isinstance(said.get("now"), bool)
        or any(not isinstance(said.get(one), bool) for one in ("prune", "sandbox"))
        or not isinstance(saved.get("digest"), str)
    ):
        raise UsageError(f"{file} is a plan, but not one that was saved to be applied: use plan --out")
    return Promise(
        tuple(said["specs"]),
        float(said["now"]),
        said["prune"],
        tuple(said["target"]),
        tuple(said["allow"]),
        tuple(said["reapply"]),
        said["sandbox"],
    )


def _keep_promise(planned: pipeline.Planned, saved: dict[str, Any], file: str) -> None:
    """Act only if the same plan comes out again."""
    if planned.plan.digest == saved["digest"]:
        return
    now = report.plan_json(planned.plan, planned.prepared.wanted.subaccounts)["changes"]
    before = saved.get("changes")
    then = (
        {one.get("address"): one for one in before if isinstance(one, dict)}
        if isinstance(before, list)
        else {}
    )
    keys = ("action", "fields", "found", "generation", "gate")
    moved = [
        one["address"]
        for one in now
        if any(one.get(key) != then.get(one["address"], {}).get(key) for key in keys)
    ]
    gone = sorted(str(address) for address in then if address not in {one["address"] for one in now})
    said = ", ".join([*moved, *gone][:10]) or "what stands against it"
    raise Refused(
        [
            Problem(
                "plan/stale",
                f"{file} is not what would be done now; different: {said}",
                hint="plan again, and have the new plan approved",
            )
        ]
    )


def _write_private(path: Path, text: str) -> None:
    """A whole file or none, readable by its owner only."""
    folder = path.parent
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def show(specs: Sequence[str], format_: str, *, detailed_exitcode: bool) -> int:
    """Specs with everything merged in, or a saved plan."""
    saved = _saved(specs)
    if saved is None:
        merged = {spec.file: spec.data for spec in pipeline.check(_paths(specs)).specs}
        if format_ == "json":
            talk.data(merged)
        else:
            talk.lines([("", pipeline.yaml_text(merged))])
        return report.DONE
    if format_ == "json":
        talk.data(saved)
    else:
        try:
            talk.lines(list(report.plan_text(saved)))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UsageError(f"{specs[0]} is a plan file that was changed by hand: plan again") from None
    if not detailed_exitcode:
        return report.DONE
    return report.saved_exit(saved)


def _duration(text: str) -> float:
    match = DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"--timeout: {text!r} is no duration; write 90s, 30m or 2h")
    return float(match.group(1)) * UNITS[match.group(2)]
