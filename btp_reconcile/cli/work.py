"""validate, plan, apply, drift, show."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import look, planfile, talk
from btp_reconcile.cli.hide import Hidden, hidden, within
from btp_reconcile.cli.planfile import Promise
from btp_reconcile.cli.world import Setting, asking
from btp_reconcile.core import diff, report
from btp_reconcile.core.clocks import CLOCK
from btp_reconcile.core.errors import SpecError, UsageError
from btp_reconcile.core.keys import keys_json, keys_text
from btp_reconcile.core.model import Address, Problem
from btp_reconcile.core.shards import MANY
from btp_reconcile.core.times import SECONDS
from btp_reconcile.core.verdict import verdicts_exit, verdicts_json, verdicts_text
from btp_reconcile.core.view import AT_MOST, Policy
from btp_reconcile.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from btp_reconcile.core.model import Report
    from btp_reconcile.core.verdict import Verdict

LEFT = "plan/left-to-apply"
"""Beside a rotation: keys that are not there to be rotated. A note, which changes no exit code."""
NAMED = 3
"""How many of them are named."""
DURATION = re.compile(r"([0-9]{1,6})([smhdw])")


def paths(specs: Sequence[str]) -> tuple[str, ...]:
    """The specs to work on. A saved plan is none, and says where it belongs."""
    for one in specs:
        if one.endswith(".json") and planfile.is_one(one):
            raise UsageError(
                f"{one} is a saved plan, which stands alone: `reconcile show {one}` or `reconcile apply {one}`"
            )
    return tuple(specs) or ("specs/",)


def known(planned: pipeline.Planned, policy: Policy) -> None:
    """What the options name must be there: a misspelt target would plan nothing, and look like success."""
    if not (policy.targets or policy.reapply or policy.allow):
        return
    wanted = {str(one.address) for one in planned.prepared.wanted.resources}
    wanted |= {f"subaccount:{name}" for name in planned.prepared.wanted.subaccounts}
    planned_for = [change.address for change in planned.plan.changes]
    for target in policy.targets:
        elsewhere = target.subaccount in planned.prepared.wanted.theirs
        if str(target) not in wanted and not elsewhere and not any(one.within(target) for one in planned_for):
            raise UsageError(f"--target: there is no {target}{talk.nearest(str(target), wanted)}")
    again = "rotate" if policy.only_due else "--reapply"
    for option, names in ((again, {str(one) for one in policy.reapply}), ("--allow", policy.allow)):
        for name in sorted(names):
            if planned.prepared.wanted.theirs and _of_others(name, planned.prepared.wanted.theirs):
                continue
            if name not in wanted and not (option == "--allow" and name in {MANY, CLOCK}):
                raise UsageError(f"{option}: there is no {name}{talk.nearest(name, wanted)}")


def _of_others(name: str, theirs: frozenset[str]) -> bool:
    try:
        return Address.parse(name).subaccount in theirs
    except ValueError:
        return False


def validate(specs: Sequence[str], format_: str) -> int:
    """Everything that can be known offline."""
    form = {"format": "btp-reconcile/validation", "version": report.VERSION}
    try:
        checked = pipeline.check(paths(specs))
    except SpecError as error:
        if format_ == "json":
            found = [report.problem_json(one) for one in error.problems]
            talk.data({**form, "valid": False, "problems": found})
            return report.SPEC
        raise
    if format_ == "json":
        found = [report.problem_json(one) for one in checked.warnings]
        talk.data({**form, "valid": True, "warnings": found})
        return report.DONE
    if checked.warnings:
        talk.problems(checked.warnings)
    for spec in checked.specs:
        subaccounts = spec.data.get("subaccounts") or {}
        instances = [one for sub in subaccounts.values() for one in (sub.get("instances") or {}).values()]
        keys = sum(len(one.get("keys") or {}) for one in instances)
        said = f"{spec.file}: valid, {_count(len(subaccounts), 'subaccount')}, {_count(len(instances), 'instance')}"
        more = sum(len(sub.get("destinations") or {}) for sub in subaccounts.values())
        also = f", {_count(more, 'destination')}" if more else ""
        talk.lines([("green", f"{said}, {_count(keys, 'key')}{also}")])
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
    at_most: int,
    format_: str,
    out: str | None,
    detailed_exitcode: bool,
    log_format: str,
    max_size: int | None,
    shard: str | None = None,
    **where: Any,
) -> int:
    """What would be done."""
    setting = Setting(**where)
    most = look.room(max_size, format_)
    asked = _asked(
        specs,
        at_most,
        shard,
        sandbox=setting.sandbox,
        sandbox_deliver=setting.sandbox_deliver,
        target=target,
        prune=prune,
        allow=allow,
        reapply=reapply,
    )
    if out is not None:
        planfile.check_name(out)
    with talk.telling(log_format) as events, setting.world(events) as world:
        promise = replace(asked, now=world.clock.now())
        policy = promise.policy()
        with spoken(format_):
            prepared = pipeline.prepare(promise.specs, world, promise.part)
            planned = pipeline.make_plan(prepared, world, policy)
        known(planned, policy)
        what = hidden(planned.prepared.wanted, world)
        brief = format_ == "text" and out is None
        shown = _show_plan(planned, format_, what, most=most, brief=brief)
        if out is not None:
            planfile.write(out, shown, promise)
        return report.plan_exit(planned.plan, detailed=detailed_exitcode)


@contextmanager
def spoken(format_: str) -> Iterator[None]:
    """Who asked for JSON gets it for problems, too; the words go to stderr as always."""
    try:
        yield
    except SpecError as error:
        if format_ == "json":
            said = [report.problem_json(one) for one in error.problems]
            talk.data({"format": "btp-reconcile/problems", "version": report.VERSION, "problems": said})
        raise


def _plan_json(
    planned: pipeline.Planned, what: Hidden, *, drift: bool = False, brief: bool = False
) -> dict[str, Any]:
    prepared = planned.prepared
    shown = report.plan_json(
        planned.plan,
        prepared.wanted.places,
        prepared.warnings,
        drift=drift,
        owners=prepared.wanted.owners,
        brief=brief,
    )
    found: dict[str, Any] = within(shown, what)
    return found


def _show_plan(
    planned: pipeline.Planned,
    format_: str,
    what: Hidden,
    *,
    drift: bool = False,
    most: int = 0,
    brief: bool = False,
) -> dict[str, Any]:
    shown = _plan_json(planned, what, drift=drift, brief=brief)
    look.plan(shown, format_, most)
    return shown


def apply(
    specs: Sequence[str],
    *,
    target: Sequence[str],
    prune: bool,
    allow: Sequence[str],
    reapply: Sequence[str],
    at_most: int,
    shard: str | None = None,
    **how: Any,
) -> int:
    """Do it."""
    saved = planfile.read(specs)
    if saved is None:
        promise = _asked(
            specs,
            at_most,
            shard,
            sandbox=how["sandbox"],
            sandbox_deliver=how["sandbox_deliver"],
            target=target,
            prune=prune,
            allow=allow,
            reapply=reapply,
        )
    else:
        if any((target, prune, allow, reapply, shard)) or at_most != AT_MOST:
            raise UsageError(
                "a saved plan carries its own options: leave out --target, --prune, --allow, --reapply, --at-most "
                "and --shard"
            )
        promise = planfile.promise(saved, specs[0])
        if how["sandbox"] and not promise.sandbox:
            raise UsageError(f"{specs[0]} was not made with --sandbox, and is not applied there: plan again")
        planned_for, asked_for = set(promise.sandbox_deliver), set(how["sandbox_deliver"])
        if asked_for and asked_for != planned_for:
            made = " ".join(f"--sandbox-deliver {one}" for one in sorted(planned_for))
            raise UsageError(
                f"{specs[0]} was made {f'with {made}' if made else 'without --sandbox-deliver'}, and is applied like "
                "that: leave the option out, or plan again"
            )
    return _carry_out(promise, saved, specs[0] if saved is not None else "", **how)


def _asked(
    specs: Sequence[str],
    at_most: int,
    shard: str | None,
    *,
    sandbox: bool,
    sandbox_deliver: Sequence[str] = (),
    target: Sequence[str] = (),
    prune: bool = False,
    allow: Sequence[str] = (),
    reapply: Sequence[str] = (),
    only_due: bool = False,
) -> Promise:
    """What the options ask to be planned, at a time that is not known yet. Raises UsageError."""
    return Promise(
        paths(specs),
        0.0,
        prune,
        tuple(target),
        tuple(allow),
        tuple(reapply),
        sandbox,
        at_most,
        only_due,
        _part(shard, prune=prune),
        tuple(sandbox_deliver),
    )


def _part(shard: str | None, *, prune: bool) -> str:
    """Which part of the specs is meant. Raises UsageError."""
    found = planfile.shard_of(shard, os.environ)
    if found and prune:
        raise UsageError(
            "--shard leaves out --prune: what no spec names any more is to be seen, and deleted, by one run over all"
        )
    return found


def rotate(what: Sequence[str], *, due: bool, at_most: int, shard: str | None = None, **how: Any) -> int:
    """Make keys anew, finish what was begun, and delete what is superseded: nothing else."""
    named = tuple(one for one in what if one.startswith("key:"))
    others = tuple(one for one in what if one not in named)
    for one in others:
        if re.match(r"[a-z]+:[^/\\]", one):
            raise UsageError(f"{one} is no key: an address of a key looks like key:prod/apim/transport")
    if due == bool(named):
        raise UsageError(
            "say either --due, or the address of a key such as key:prod/apim/transport (`reconcile keys` lists them)"
        )
    promise = _asked(others, at_most, shard, sandbox=how["sandbox"], reapply=named, only_due=True)
    return _carry_out(promise, None, "", **how)


def _carry_out(
    promise: Promise,
    saved: Mapping[str, Any] | None,
    file: str,
    *,
    format_: str,
    yes: bool,
    timeout: str,
    log_format: str,
    verify: bool = False,
    max_size: int | None = None,
    approved: str | None = None,
    **where: Any,
) -> int:
    """Plan, ask, act, report."""
    most = look.room(max_size, format_)
    deadline = span(timeout, "--timeout")
    setting = Setting(**where)
    setting.sandbox = promise.sandbox
    if saved is not None:
        setting.sandbox_deliver = promise.sandbox_deliver
    asks = sys.stdin is not None and sys.stdin.isatty() and not yes and saved is None
    if not (yes or asks or saved is not None or os.environ.get("CI") == "true"):
        raise UsageError("nobody can be asked here: say --yes, give a plan file, or set CI=true")
    with talk.telling(log_format) as log:
        told = [log]  # the last one is told: while steps are run, retries belong to the progress, too

        what = Hidden()

        def events(event: str, fields: Mapping[str, Any]) -> None:
            told[-1](event, within(fields, what))

        with setting.world(events) as world:
            if saved is None:
                promise = replace(promise, now=world.clock.now())
            with spoken(format_):
                prepared = pipeline.prepare(promise.specs, world, promise.part)
                policy = replace(promise.policy(), alone=approved is None)
                planned = pipeline.make_plan(prepared, world, policy)
            if promise.only_due and not policy.reapply:
                planned = _with_what_is_left(planned, policy)
            what = hidden(planned.prepared.wanted, world)
            if saved is None:
                known(planned, promise.policy())
            else:
                planfile.keep(planned, saved, file)
            if approved is not None:
                planfile.approve(approved, planned)
            elif promise.shard and not promise.only_due and planned.plan.steps:
                talk.say(
                    f"shard {promise.shard} is applied without --approved: quota and the share of deletions were judged "
                    "by this part alone, and not by the whole; `reconcile report merge` judges that"
                )
            worth = any(one.notes for one in planned.plan.changes)
            if format_ == "text" and promise.only_due and planned.plan.quiet and not worth:
                talk.lines([("green", f"Nothing is due: {_count(len(prepared.wanted.of('key')), 'key')}.")])
                talk.lines([("yellow", one.message) for one in planned.prepared.warnings if one.code == LEFT])
            elif format_ == "text":
                _show_plan(planned, format_, what, brief=True)
            reports: list[Report] = []
            first = planned
            if planned.plan.objections:
                talk.say("refused: nothing was done")
            elif planned.plan.steps:
                if asks and not _agreed(planned, format_, what):
                    talk.say("nothing was done")
                    return report.PENDING
                # Who approved a plan, or named a key, approved no other one.
                once = saved is not None or asks or promise.only_due or approved is not None
                rounds = 1 if once else pipeline.ROUNDS
                with talk.telling(log_format, len(planned.plan.steps)) as progress:
                    told.append(progress)
                    planned, reports = pipeline.settle(planned, world, policy, deadline, rounds)
                    told.pop()
            tried: list[Verdict] | None = None
            if verify and not planned.plan.objections and not world.stopped():
                now_there = pipeline.make_plan(prepared, world, promise.policy())
                with talk.telling(log_format, len(prepared.wanted.of("key"))) as progress:
                    told.append(progress)
                    tried = pipeline.verify(now_there, world, promise.policy().targets, note=True)
                    told.pop()
            if format_ == "markdown":
                done = [within(report.report_json(one), what) for one in reports]
                proofs = within(verdicts_json(tried), what) if tried is not None else None
                look.applied(_plan_json(first, what), done, proofs, most)
            else:
                _show_reports(planned, reports, format_, what, tried)
            if report.follows(planned.plan, reports):
                talk.say("what was waited for is at rest; run again for what follows from it")
            codes = (report.apply_exit(planned.plan, reports), verdicts_exit(tried or ()))
            return next((code for code in report.WORST_FIRST if code in codes), report.DONE)


def _with_what_is_left(planned: pipeline.Planned, policy: Policy) -> pipeline.Planned:
    """Who reads nothing but what a nightly `rotate --due` says should learn of keys that nobody has any more."""
    prepared = planned.prepared
    everything = diff.compare(
        prepared.wanted, planned.facts, KINDS, prepared.catalogue, replace(policy, only_due=False)
    )
    left = diff.left_to_apply(everything.view, {one.address for one in planned.plan.changes if one.acts})
    if not left:
        return planned
    named = ", ".join(map(str, left[:NAMED])) + (f" and {len(left) - NAMED} more" if left[NAMED:] else "")
    are, mends = ("is", "it") if len(left) == 1 else ("are", "them")
    said = f"{_count(len(left), 'key')} {are} missing or not at a consumer ({named}): `reconcile apply` mends {mends}"
    warnings = (*prepared.warnings, Problem(LEFT, said))
    return replace(planned, prepared=replace(prepared, warnings=warnings))


def keys(specs: Sequence[str], *, target: Sequence[str], format_: str, log_format: str, **where: Any) -> int:
    """What is known of every key."""
    with talk.telling(log_format) as events, Setting(**where).world(events) as world:
        policy = Policy(world.clock.now(), targets=planfile.addresses(target, "--target"))
        with spoken(format_):
            planned = pipeline.make_plan(pipeline.prepare(paths(specs), world), world, policy)
        known(planned, policy)
        found = keys_json(planned.prepared.wanted, planned.facts, policy.now, policy.targets)
        shown = within(found, hidden(planned.prepared.wanted, world))
        if format_ == "json":
            talk.data(shown)
        else:
            talk.lines(keys_text(shown, policy.now), wrap=True)
        blind = [one for one in planned.plan.unseen if one.code == "platform/unseen"]
        if blind:
            talk.problems(blind)
        return report.FAILED if blind else report.DONE


def _agreed(planned: pipeline.Planned, format_: str, what: Hidden) -> bool:
    """Show the plan to the person who is asked, if it was not shown yet, and ask."""
    if format_ != "text":
        talk.lines(report.plan_text(_plan_json(planned, what, brief=True)), error=True, wrap=True)
    try:
        with asking():
            return talk.agreed("Apply this?")
    except KeyboardInterrupt:
        talk.say("")
        return False


def _show_reports(
    planned: pipeline.Planned,
    reports: Sequence[Report],
    format_: str,
    what: Hidden,
    tried: Sequence[Verdict] | None = None,
) -> None:
    shown = [within(report.report_json(one), what) for one in reports]
    verdicts = within(verdicts_json(tried), what) if tried is not None else None
    if format_ == "json":
        also = {"verify": verdicts} if verdicts is not None else {}
        talk.data({"plan": _plan_json(planned, what), "reports": shown, **also})
        return
    for one in shown:
        talk.lines(report.report_text(one), wrap=True)
    if verdicts is not None:
        talk.lines(verdicts_text(verdicts), wrap=True)


def show(specs: Sequence[str], format_: str, *, detailed_exitcode: bool, max_size: int | None = None) -> int:
    """Specs with everything merged in, or a saved plan."""
    most = look.room(max_size, format_)
    saved = planfile.merged(specs) or planfile.read(specs)
    if saved is None:
        if format_ not in {"text", "json"}:
            raise UsageError(f"--format {format_} shows a saved plan, and there is none: name one")
        merged = {spec.file: spec.data for spec in pipeline.check(paths(specs)).specs}
        if format_ == "json":
            talk.data(merged)
        else:
            talk.lines([("", pipeline.yaml_text(merged).rstrip())])
        return report.DONE
    try:
        code = report.saved_exit(saved) if detailed_exitcode else report.DONE
    except look.CHANGED:
        raise UsageError(f"{specs[0]} was changed after it was written: plan again") from None
    look.saved(saved, format_, most, specs[0])
    return code


def span(text: str, option: str, most: str = "52w") -> float:
    """A duration of the command line in seconds. Raises UsageError for what is none, or longer than `most`."""
    match = DURATION.fullmatch(text)
    if match is None:
        long = re.fullmatch(r"[0-9]{7,}[smhdw]", text, re.ASCII)
        wrong = "longer than anything lasts here" if long else "no duration"
        raise UsageError(f"{option}: {text!r} is {wrong}; write 90s, 30m, 2h or 20d")
    found = float(match.group(1)) * SECONDS[match.group(2)]
    if found > int(most[:-1]) * SECONDS[most[-1]]:
        raise UsageError(f"{option}: {text} is longer than {most}, which is the most")
    return found
