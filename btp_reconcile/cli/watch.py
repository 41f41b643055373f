"""drift --every: the same check again and again, with figures for who watches it."""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from btp_reconcile.cli import planfile, talk, work
from btp_reconcile.cli.drift import code_of, look_once, read_baseline
from btp_reconcile.cli.world import Lasting, Setting, Stopping
from btp_reconcile.core import report
from btp_reconcile.core.errors import SpecError, UsageError
from btp_reconcile.core.watch import SHORTEST, Checked
from btp_reconcile.edges.clock import Interrupted, WallClock
from btp_reconcile.edges.listener import Listener, Page, place
from btp_reconcile.edges.service import Service
from btp_reconcile.edges.tokens import People
from btp_reconcile.views import service as answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from btp_reconcile.cli.notify import Notifier
    from btp_reconcile.cli.talk import Events
    from btp_reconcile.core.watch import Status

STOPPED = "stopped"
PATHS = ("/healthz", "/readyz", "/metrics")


def watch(
    specs: Sequence[str],
    *,
    every: str,
    listen: str | None,
    jitter: int,
    target: Sequence[str],
    format_: str,
    baseline: str | None,
    log_format: str,
    shard: str | None,
    webhook: Callable[[Events, Mapping[str, Any]], AbstractContextManager[Notifier | None]],
    **where: Any,
) -> int:
    """Until it is stopped. Ends with 0 then."""
    if format_ not in {"text", "json"}:
        raise UsageError(
            f"--every prints a line for each check, as text or json: --format {format_} is one check"
        )
    interval = work.span(every, "--every")
    if interval < SHORTEST:
        raise UsageError(f"--every: {every} is too often; once a minute (1m) is the most")
    targets = planfile.addresses(target, "--target")
    part = planfile.shard_of(shard, os.environ)
    known = read_baseline(baseline) if baseline is not None else None
    names = work.paths(specs)
    clock = WallClock()
    with talk.telling(log_format) as events, Stopping(clock, report.DONE, STOPPED, clock) as stopping:
        setting = Setting(**where, lasting=Lasting(stopping, People()))

        def look() -> tuple[Mapping[str, Any], int]:
            with setting.world(events) as world:
                return look_once(names, world, targets, part, known)

        service = Service(
            checking(look, lambda: stopping.asked),
            clock=clock,
            every=interval,
            jitter=jitter,
            host=socket.gethostname(),
            requests=lambda: setting.lasting.requests if setting.lasting is not None else {},
        )
        with ExitStack() as opened:
            tell = opened.enter_context(webhook(events, where))
            counts = tell.counts if tell is not None else {}
            if listen is not None:
                listener = opened.enter_context(_listening(listen, pages(service, clock.now, counts)))
                events("listening", {"address": listener.address})
            service.run(lambda checked, status: _tell(checked, status, format_, tell))
        events(STOPPED, {"checks": service.status.checks, "failures": service.status.failures})
    return report.DONE


def checking(
    look: Callable[[], tuple[Mapping[str, Any], int]], stopped: Callable[[], bool]
) -> Callable[[], Checked]:
    """One check that raises only `Interrupted`, once it was made for the first time: a service goes on, whatever
    happens, except for usage that was wrong from the start.
    """
    made: list[bool] = []

    def check() -> Checked:
        try:
            data, code = look()
        except Interrupted:
            raise
        except UsageError as error:
            if not made:
                raise
            checked = Checked(talk.ended(error))
        except SpecError as error:
            checked = Checked(talk.ended(error), problems=tuple(_place(one) for one in error.problems))
        except Exception as error:  # noqa: BLE001 - said in words and counted; the next check may see what this could not
            if stopped():
                raise Interrupted(STOPPED) from None
            checked = Checked(talk.ended(error) and code_of(error))
        else:
            checked = Checked(code, data)
        made.append(True)
        del made[1:]
        return checked

    return check


def _place(problem: Any) -> str:
    """A problem of the specs, without a word of what is written there."""
    where = f" {problem.source}" if problem.source is not None else ""
    return f"{problem.code}{where}"


def _tell(checked: Checked, status: Status, format_: str, tell: Notifier | None) -> None:
    at = status.ended if status.ended is not None else status.started
    found = answers.check(checked.data, checked.code, at, status.seconds, len(checked.problems))
    text = json.dumps(found, ensure_ascii=False) if format_ == "json" else answers.line(found)
    talk.lines([("", text)])
    if tell is not None:
        tell.tell(found)


def pages(
    service: Service, now: Callable[[], float], notified: Mapping[str, int] | None = None
) -> Callable[[str], Page]:
    """What is answered to who asks for a path. `notified`: how often somebody was told of a new state, and how."""
    drawn: list[tuple[Status, dict[str, int], str]] = []

    def answer(path: str) -> Page:
        status = service.status
        if path == "/metrics":
            told = dict(notified or {})
            if not drawn or drawn[0][0] is not status or drawn[0][1] != told:
                drawn[:] = [(status, told, answers.figures(status, told))]
            return Page(200, drawn[0][2], answers.TYPE)
        if path in {"/healthz", "/readyz"}:
            why = status.ill(now()) if path == "/healthz" else status.unready()
            return Page(503 if why else 200, answers.health(status, now(), why), "application/json")
        return Page(404, f"there is {', '.join(PATHS)}\n")

    return answer


@contextmanager
def _listening(listen: str, answer: Callable[[str], Page]) -> Iterator[Listener]:
    try:
        host, port = place(listen)
    except ValueError as error:
        raise UsageError(f"--listen: {error}; write 127.0.0.1:9464") from None
    listener = Listener(host, port, answer)
    try:
        listener.open()
    except OSError as error:
        raise UsageError(
            f"--listen: {listener.address} cannot be had: {error.strerror}; name another"
        ) from None
    with listener:
        yield listener
