"""What is shown: results to stdout, logs and progress to stderr; colour only on a terminal that wants it."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btp_reconcile.core import errors, report

if TYPE_CHECKING:
    from btp_reconcile.core.report import Line

STYLES: Mapping[str, Mapping[str, Any]] = {
    "bold": {"bold": True},
    "dim": {"dim": True},
    "red": {"fg": "red"},
    "green": {"fg": "green"},
    "yellow": {"fg": "yellow"},
    "magenta": {"fg": "magenta"},
    "cyan": {"fg": "cyan"},
    "blue": {"fg": "blue"},
    "": {},
}


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What could move a cursor or turn the direction of a text: no name and no answer of a platform may do that."""


def terminal(stream: Any) -> bool:
    """Does a person look at it, on a terminal that can move its cursor?"""
    return stream is not None and bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def coloured(stream: Any) -> bool:
    """Is this a terminal whose reader wants colour?"""
    return terminal(stream) and not os.environ.get("NO_COLOR")


def lines(shown: Iterable[Line], *, error: bool = False, wrap: bool = False) -> None:
    """Print styled lines. With `wrap`, a terminal breaks them between words and keeps them indented."""
    stream = sys.stderr if error else sys.stdout
    colour, narrow = coloured(stream), wrap and terminal(stream)
    for style, shown_text in shown:
        text = CONTROL.sub("�", shown_text)
        if narrow:
            text = _wrapped(text)
        _echo(click.style(text, **STYLES[style]) if colour and style else text, error=error)


def _wrapped(text: str) -> str:
    import shutil
    import textwrap

    indent = " " * (len(text) - len(text.lstrip()) + 2)
    width = max(shutil.get_terminal_size().columns, 40)
    broken = textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(broken)


def _echo(text: str | bytes, *, error: bool = False, end: bool = True) -> None:
    """Print. A reader that has had enough (`| head`) does not stop what was asked for, nor change how it ends."""
    try:
        click.echo(text, err=error, nl=end)
    except BrokenPipeError:
        _nobody_listens(2 if error else 1)
    except OSError:
        if not error:
            raise
        _nobody_listens(2)


def _nobody_listens(descriptor: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def data(value: Any) -> None:
    """Print JSON, one value, readable."""
    _echo(json.dumps(value, indent=2, ensure_ascii=False))


def document(text: str) -> None:
    """Print a page, a comment or a picture: always UTF-8, whatever the locale says, and without colour."""
    _echo(text.encode("utf-8", "replace"), end=False)


def say(text: str) -> None:
    """One line for a person, beside the results."""
    _echo(CONTROL.sub("�", text), error=True)


def agreed(question: str) -> bool:
    """Ask the person at the terminal. Only a yes is a yes."""
    _echo(f"{question} [y/N] ", error=True, end=False)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        say("")
    return answer.strip().lower() in {"y", "yes"}


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that says a name is not there: which one was perhaps meant."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(names)}" if len(names) <= 12 else f"; there are {len(names)} others"


def problems(found: Iterable[Any]) -> None:
    """Problems, all of them, to stderr."""
    from btp_reconcile.core import problems as rendering

    say(rendering.text(tuple(found)).removesuffix("\n"))


def ended(error: Exception) -> int:
    """Say how a run ended that could not go on, and give its exit code."""
    if isinstance(error, errors.SpecError):
        problems(error.problems)
        return report.SPEC
    if isinstance(error, errors.Refused):
        problems(error.problems)
        return report.REFUSED
    if isinstance(error, errors.UsageError):
        say(f"Error: {error}")
        return report.USAGE
    if isinstance(error, errors.PlatformError):
        say(f"the platform failed: {error}")
        return report.FAILED
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        extra = EXTRAS[error.name]
        say(f"this needs {error.name}, which is not installed: pip install 'btp-reconcile[{extra}]'")
        return report.USAGE
    if isinstance(error, OSError) and error.strerror:
        say(f"{error.filename or 'this machine'}: {error.strerror}")
        return report.FAILED
    if type(error).__name__ == "Interrupted":
        return stopped()
    if os.environ.get("RECONCILE_DEBUG"):
        _echo(_traced(error), error=True, end=False)
    say(
        f"this is a defect of reconcile: {type(error).__name__} at {_place(error)}; please report it (RECONCILE_DEBUG=1 shows more)"
    )
    return report.FAILED


def _traced(error: BaseException) -> str:
    """Where it happened, and how it came to it: types and places. What an error says may quote a secret."""
    import traceback

    parts: list[str] = []
    found: BaseException | None = error
    while found is not None and len(parts) < 10:
        places = "".join(traceback.format_tb(found.__traceback__))
        parts.append(f"{places}{type(found).__module__}.{type(found).__qualname__}\n")
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return "caused by\n".join(parts)


STOPPED = "stopped; what had been started goes on at the platform, run again to finish it"


def stopped() -> int:
    """Say that the run was ended from outside, and give its exit code."""
    say(STOPPED)
    return report.PENDING


EXTRAS = {
    "cheroot": "sandbox",
    "hvac": "vault",
    "jwt": "sandbox",
    "kubernetes": "kubernetes",
    "nacl": "github",
}
"""Modules that come with an extra → its name."""


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


# --- events ---------------------------------------------------------------------------------------------

Events = Callable[[str, Mapping[str, Any]], None]


@contextmanager
def telling(log_format: str, steps: int = 0) -> Iterator[Events]:
    """Somebody to tell: a progress line on a terminal, otherwise one structlog event per step and per retry."""
    if log_format == "text" and terminal(sys.stderr) and steps:
        with _progress(steps) as tell:
            yield tell
    else:
        yield _logging(log_format)


def _logging(log_format: str) -> Events:
    @functools.cache
    def logger() -> Any:
        import structlog  # who has nothing to tell starts sooner without it

        renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
        if log_format == "text":
            renderer = structlog.dev.ConsoleRenderer(colors=coloured(sys.stderr), pad_event_to=8)
        return structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[
                structlog.processors.TimeStamper("iso", utc=True),
                structlog.processors.add_log_level,
                renderer,
            ],
        )

    def tell(event: str, fields: Mapping[str, Any]) -> None:
        told = {
            key: CONTROL.sub("�", item) if isinstance(item, str) else item for key, item in fields.items()
        }
        try:
            logger().info(event, **{key: item for key, item in told.items() if key != "event"})
        except OSError:  # nobody reads the log; that is no reason to stop half-way
            _nobody_listens(2)

    return tell if sys.stderr is not None else lambda *_: None


ENDS = frozenset({"done", "failed", "blocked", "pending"})


@contextmanager
def _progress(steps: int) -> Iterator[Events]:
    """One line that says how far it is, what is being done, and what is waited for. It leaves nothing behind."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    lock = threading.Lock()
    running: dict[str, str] = {}
    words = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False, table_column=words),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as progress:
        task = progress.add_task("", total=steps)

        def tell(event: str, fields: Mapping[str, Any]) -> None:
            with lock:
                if event in {"retry", "wait"}:
                    why = "a known limit" if event == "wait" else fields.get("status") or "no answer"
                    progress.update(task, description=f"waits {fields.get('wait', 0):.0f} s ({why})")
                elif event == "step":
                    ended = _take_note(running, fields)
                    progress.update(task, description=_under_way(running), advance=int(ended))
                    known = progress.tasks[0]
                    progress.update(task, total=max(known.total or 0, known.completed + len(running)))

        yield tell


def _take_note(running: dict[str, str], fields: Mapping[str, Any]) -> bool:
    """Keep what is under way; say whether a step has ended."""
    name, status = f"{fields['verb']} {fields['address']}", str(fields["status"])
    if status in ENDS:
        running.pop(name, None)
        return True
    running[name] = "" if status == "started" else f" {status}"
    return False


def _under_way(running: Mapping[str, str]) -> str:
    """The step begun first, which is what the others wait for."""
    first = next((name + said for name, said in running.items()), "")
    return f"{len(running)} under way: {first}" if len(running) > 1 else first
