"""Arguments, streams, exit codes. Thin: everything else is in `pipeline.py`, and is imported only when used."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from btp_reconcile import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_CODES = """\b
Exit codes, the first that applies:
  64  wrong usage
   3  the spec or its inputs are wrong
   4  refused: unsafe, in conflict, or no longer what was approved
   1  the platform failed
   6  waits for a person
   5  pending, run again
   2  changes or drift (plan --detailed-exitcode, drift)
   0  done, or in sync
"""

Command = click.Command


def _specs(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("specs", nargs=-1, metavar="[SPEC]...")(command)


def _rehearse(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--sandbox", is_flag=True, help="Rehearse against the embedded sandbox; nothing leaves loopback."
        ),
        click.option("--state", metavar="FILE", help="Where the sandbox keeps its world."),
        click.option(
            "--allow-host",
            multiple=True,
            metavar="HOST",
            help="Also send credentials to this host (*.suffix works).",
        ),
        click.option(
            "--parallel",
            type=click.IntRange(1, 32),
            default=8,
            show_default=True,
            help="Requests at once, per host and user.",
        ),
        click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True),
    )[::-1]:  # the last one applied is shown first
        command = option(command)
    return command


def _selection(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--target",
            multiple=True,
            metavar="ADDRESS",
            help="Only this, what stands in it, and what it needs; subaccount:NAME works, too.",
        ),
        click.option(
            "--prune", is_flag=True, help="Delete what carries our mark and no spec names any more."
        ),
        click.option("--allow", multiple=True, metavar="ADDRESS", help="Answer an objection by its name."),
        click.option(
            "--reapply",
            multiple=True,
            metavar="ADDRESS",
            help="Send again although nothing is seen to differ.",
        ),
    )[::-1]:
        command = option(command)
    return command


def _format(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--format", "format_", type=click.Choice(formats), default=formats[0], show_default=True
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="reconcile", message="%(prog)s %(version)s")
def cli() -> None:
    """Declare SAP BTP API access in Git: entitlements, API instances and service keys.

    Without SPEC the folder specs/ is taken.
    """


@cli.command()
@_specs
@_format("text", "json")
def validate(**options: Any) -> int:
    """Check everything that can be known offline."""
    from btp_reconcile.cli import work

    return work.validate(**options)


@cli.command()
@_specs
@_selection
@_rehearse
@_format("text", "json")
@click.option("--out", metavar="FILE", help="Also write the plan to a file that `apply FILE` keeps to.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="End with 2 if there are changes, 5 or 6 if something waits."
)
def plan(**options: Any) -> int:
    """Show what would be done, and why. Reads only."""
    from btp_reconcile.cli import work

    return work.plan(**options)


@cli.command()
@_specs
@_selection
@_rehearse
@_format("text", "json")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, hidden=True)
@click.option(
    "--timeout",
    default="30m",
    show_default=True,
    metavar="DURATION",
    help="What is not finished by then is pending.",
)
def apply(**options: Any) -> int:
    """Plan, ask, and do it. Given a plan file: do exactly that, or refuse."""
    from btp_reconcile.cli import work

    if options.pop("dry_run"):
        raise click.UsageError(
            "`reconcile plan` is the dry run: it shows what apply would do, and only reads"
        )
    return work.apply(**options)


@cli.command()
@_specs
@click.option(
    "--target",
    multiple=True,
    metavar="ADDRESS",
    help="Only this, what stands in it, and what it needs; subaccount:NAME works, too.",
)
@_rehearse
@_format("text", "json")
def drift(**options: Any) -> int:
    """Compare the platform with the specs. Reads only; ends with 2 if they differ."""
    from btp_reconcile.cli import work

    return work.drift(**options)


@cli.command()
@_specs
@_format("text", "json")
@click.option(
    "--detailed-exitcode", is_flag=True, help="For a plan file: end as `plan --detailed-exitcode` did."
)
def show(**options: Any) -> int:
    """Print specs with everything merged in, or a saved plan."""
    from btp_reconcile.cli import work

    return work.show(**options)


@cli.command()
@click.argument("file", default="specs/first.yaml")
def init(**options: Any) -> int:
    """Write a first spec, commented, that validates."""
    from btp_reconcile.cli import about

    return about.init(**options)


@cli.command()
@click.argument("name", required=False)
@_format("text", "json")
def kinds(**options: Any) -> int:
    """List the kinds of resources, or show examples of one."""
    from btp_reconcile.cli import about

    return about.kinds(**options)


@cli.command()
@click.argument("name", required=False)
@_format("text", "json")
def catalogue(**options: Any) -> int:
    """List the APIs that are known by name, or show one."""
    from btp_reconcile.cli import about

    return about.catalogue(**options)


@cli.command()
def schema() -> int:
    """Print the JSON Schema of a spec, for editors."""
    from btp_reconcile.cli import about

    return about.schema()


@cli.group()
def sandbox() -> None:
    """A small SAP BTP on this machine, for people and other clients."""


@sandbox.command()
@_specs
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one."
)
@click.option("--tls", is_flag=True, help="Serve https with a certificate of its own.")
@click.option("--state", metavar="FILE", help="Where the sandbox keeps its world.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Where its ids come from, in a new world."
)
def start(**options: Any) -> int:
    """Serve it on 127.0.0.1, with the subaccounts that SPEC names."""
    from btp_reconcile.cli import emulator

    return emulator.start(**options)


@sandbox.command()
@click.option("--state", metavar="FILE", help="Where the sandbox keeps its world.")
def reset(**options: Any) -> int:
    """Forget everything in it. End a served one first."""
    from btp_reconcile.cli import emulator

    return emulator.reset(**options)


_STATE = click.option("--state", metavar="FILE", help="Where the sandbox keeps its world.")


class _Catalogued(click.Command):
    """A command whose help ends with every fault there is; their table is read when it is asked for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from btp_reconcile.sandbox.fault_catalogue import CATALOGUE

        del ctx
        with formatter.section("Faults (what is in capitals can be said by the option of that name)"):
            formatter.write_dl([(name, fault.about) for name, fault in CATALOGUE.items()])


@sandbox.group()
def faults() -> None:
    """What goes wrong in it, on demand. A served sandbox sees a change at its next request."""


@faults.command("list")
@_STATE
@_format("text", "json")
def list_faults(**options: Any) -> int:
    """Show what goes wrong, and how often it has."""
    from btp_reconcile.cli import emulator

    return emulator.list_faults(**options)


def _fault_options(command: Callable[..., Any]) -> Callable[..., Any]:
    whole, text = click.INT, click.STRING
    for name, kind, metavar, told in (
        ("--method", text, "METHOD", "Which requests: POST, PATCH, …"),
        (
            "--host",
            text,
            "HOST",
            "Which requests: this host, * included. Else those that give such an answer.",
        ),
        ("--path", text, "REGEX", "Which requests: a part of the path."),
        ("--body", text, "REGEX", "Which requests: a part of what is sent."),
        (
            "--name",
            text,
            "NAME",
            "Which requests, or what brokers do: about the instance or key of this name.",
        ),
        ("--offering", text, "NAME", "Which requests, or what brokers do: about instances of this offering."),
        ("--plan", text, "NAME", "What brokers do: for this plan."),
        ("--verb", text, "VERB", "What brokers do: provision, update, deprovision, bind, unbind, assign."),
        ("--at", whole, "N", "The n-th that fits, counted from now."),
        ("--every", whole, "N", "Each n-th that fits."),
        ("--times", whole, "N", "So often at most."),
        ("--status", text, "STATUS", "HTTP status."),
        ("--answer", text, "TEXT", "What is answered: text or JSON."),
        ("--seconds", click.FLOAT, "SECONDS", "How long, or how far ahead."),
        ("--requests", whole, "N", "The limit that a 429 names."),
        ("--window", whole, "SECONDS", "The time that a 429 names."),
        ("--description", text, "TEXT", "What a broker says."),
        ("--code", text, "CODE", "A broker's error code, such as ConcurrencyError."),
        ("--to", text, "URL", "Where a redirect leads."),
        ("--user", text, "NAME", "Whose account."),
        ("--type", text, "TYPE", "A content type."),
        ("--size", whole, "N", "Bytes of a body, or things on a page."),
        ("--how", text, "HOW", "drop, retype or any."),
        ("--member", text, "REGEX", "Only members with such a path, as in resources.guid."),
        ("--seed", whole, "N", "Another number, other dice."),
        ("--phase", text, "PHASE", "'in progress' or 'initial'."),
    )[::-1]:
        command = click.option(name, type=kind, metavar=metavar, help=told)(command)
    command = click.option("--after", is_flag=True, help="The work is done before the answer is given.")(
        command
    )
    field = "'NAME: VALUE'"
    told = "A header field of the answer; 'NAME:' takes one away."
    return click.option("--header", multiple=True, metavar=field, help=told)(command)


@faults.command("add", cls=_Catalogued)
@click.argument("fault")
@_fault_options
@_STATE
def add_fault(fault: str, state: str | None, **options: Any) -> int:
    """Let something go wrong from now on."""
    from btp_reconcile.cli import emulator

    return emulator.add_fault(state, fault, **options)


@faults.command("clear")
@click.argument("names", nargs=-1, metavar="[FAULT|NUMBER]...")
@_STATE
def clear_faults(**options: Any) -> int:
    """Let these, or all of them, go wrong no more."""
    from btp_reconcile.cli import emulator

    return emulator.clear_faults(**options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and exit with a code of the table. No traceback ever reaches a user."""
    gc.set_threshold(
        100_000, 20, 20
    )  # thousands of things are read and kept: looking for garbage took a third of the time
    _open_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a sign shows another one
    code = run(arguments)
    try:
        sys.stdout.flush()
    except OSError:  # it was said already; without this the interpreter tries once more, and ends with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _open_what_is_closed() -> None:
    """Started without standard streams, the first file that is opened would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and say how it ends."""
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments), prog_name="reconcile", standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as ended:
        return 64 if ended.exit_code == 2 else ended.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return 64
    except SystemExit:  # click's way to end when the reader of --help has had enough
        return 0
    except (click.Abort, KeyboardInterrupt):
        from btp_reconcile.cli import talk

        return talk.stopped()
    except Exception as error:  # noqa: BLE001 - the one place where everything else ends, in words
        from btp_reconcile.cli import talk

        return talk.ended(error)
