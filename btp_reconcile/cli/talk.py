"""What is shown: results to stdout, logs and progress to stderr; colour only on a terminal that wants it."""

from __future__ import annotations

import json
import os
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


def coloured(stream: Any) -> bool:
    """Is this a terminal whose reader wants colour?"""
    return bool(stream.isatty()) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def lines(shown: Iterable[Line], *, error: bool = False) -> None:
    """Print styled lines."""
    stream = sys.stderr if error else sys.stdout
    colour = coloured(stream)
    for style, text in shown:
        click.echo(click.style(text, **STYLES[style]) if colour and style else text, err=error)


def data(value: Any) -> None:
    """Print JSON, one value, readable."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """One line for a person, beside the results."""
    click.echo(text, err=True)


def problems(found: Iterable[Any]) -> None:
    """Problems, all of them, to stderr."""
    from btp_reconcile.core import problems as rendering

    click.echo(rendering.text(tuple(found)), err=True)


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
    if isinstance(error, OSError):
        say(f"{error.filename or 'this machine'}: {error.strerror or error}")
        return report.FAILED
    if type(error).__name__ == "Interrupted":
        say("stopped; what had been started goes on at the platform, run again to finish it")
        return report.PENDING
    if os.environ.get("RECONCILE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    say(
        f"this is a defect of reconcile: {type(error).__name__} at {_place(error)}; please report it (RECONCILE_DEBUG=1 shows more)"
    )
    return report.FAILED


EXTRAS = {"cheroot": "sandbox", "cryptography": "sandbox", "jwt": "sandbox"}
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
    if log_format == "text" and coloured(sys.stderr) and steps:
        with _progress(steps) as tell:
            yield tell
    else:
        yield _logging(log_format)


def _logging(log_format: str) -> Events:
    import structlog

    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if log_format == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=coloured(sys.stderr), pad_event_to=8)
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.add_log_level,
            renderer,
        ],
    )

    def tell(event: str, fields: Mapping[str, Any]) -> None:
        logger.info(event, **{key: value for key, value in fields.items() if key != "event"})

    return tell


@contextmanager
def _progress(steps: int) -> Iterator[Events]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    lock = threading.Lock()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("applying", total=steps)
        ends = {"done", "failed", "blocked", "pending"}

        def tell(event: str, fields: Mapping[str, Any]) -> None:
            with lock:
                if event == "retry":
                    said = f"waits {fields.get('wait', 0):.0f} s ({fields.get('status') or 'no answer'})"
                    progress.update(task, description=said)
                elif event == "step":
                    said = f"{fields['verb']} {fields['address']}"
                    progress.update(task, description=said, advance=1 if str(fields["status"]) in ends else 0)

        yield tell
