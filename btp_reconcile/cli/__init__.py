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

VERDICTS = """\b
Verdicts, and how the command ends, the first that applies:
   4  a key could not be told from something else of its name
   1  unreachable, token-refused, shape-error
   6  forbidden: it signs in, and may not do what its role is for
   5  skipped, because the key is not there yet
   0  ok, skipped, expires-soon (its certificate ends within 7 days)
"""

Command = click.Command


def _specs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Paths, for completion; whether there is such a file is said by who reads it."""
    path = click.Path(readable=False)
    return click.argument("specs", nargs=-1, metavar="[SPEC]...", type=path)(command)


_max_size = click.option(
    "--max-size",
    type=click.IntRange(2_000),
    metavar="BYTES",
    help="With --format markdown: the size a comment may have, 65000 unless said otherwise.",
)


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
            "--allow-commands", is_flag=True, help="Deliveries may run the programs that the spec names."
        ),
        click.option(
            "--sandbox-deliver",
            multiple=True,
            metavar="SINK",
            help="With --sandbox: really deliver to this sink (file, vault, …).",
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


_at_most = click.option(
    "--at-most",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="Keys made anew because of their age in this run; certificates that end are not held back.",
)
_timeout = click.option(
    "--timeout",
    default="30m",
    show_default=True,
    metavar="DURATION",
    help="What is not finished by then is pending.",
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


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
        _at_most,
    )[::-1]:
        command = option(command)
    return command


_shard = click.option(
    "--shard",
    metavar="I/N",
    help="Only this part of all subaccounts, like 3/16; auto/16 takes I from JOB_COMPLETION_INDEX, which counts from 0.",
)

_only = click.option(
    "--target",
    multiple=True,
    metavar="ADDRESS",
    help="Only this, what stands in it, and what it needs; subaccount:NAME works, too.",
)


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
@_shard
@_rehearse
@_format("text", "json", "markdown", "html")
@_max_size
@click.option(
    "--out",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Also write the plan to a file that `apply FILE` keeps to.",
)
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
@_shard
@_rehearse
@_format("text", "json", "markdown")
@_max_size
@_yes
@click.option("--verify", is_flag=True, help="Then try every key: a token, and one harmless request.")
@click.option(
    "--approved",
    metavar="FILE",
    help="With a shard: the whole that it belongs to, as `report merge --out` approved it.",
)
@click.option("--dry-run", is_flag=True, hidden=True)
@_timeout
def apply(**options: Any) -> int:
    """Plan, ask, and do it. Given a plan file: do exactly that, or refuse."""
    from btp_reconcile.cli import work

    if options.pop("dry_run"):
        raise click.UsageError(
            "`reconcile plan` is the dry run: it shows what apply would do, and only reads"
        )
    return work.apply(**options)


@cli.command("drift")
@_specs
@_only
@_shard
@_rehearse
@_format("text", "json", "markdown", "html", "junit", "sarif")
@_max_size
@click.option(
    "--metrics", metavar="FILE", help="Also write metrics for the node exporter's textfile collector."
)
@click.option(
    "--baseline", metavar="FILE", help="What differs as this file says is known, and does not count."
)
@click.option(
    "--write-baseline", metavar="FILE", help="Accept what differs now, so that only new drift counts."
)
@click.option(
    "--every",
    metavar="DURATION",
    help="As a service: check at once and then every 15m, say, until it is stopped; 1m is the least.",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="With --every: answer /metrics, /healthz and /readyz there, like 127.0.0.1:9464.",
)
@click.option(
    "--jitter",
    type=click.IntRange(0, 50),
    metavar="PERCENT",
    help="With --every: how much an interval varies, 10 unless said otherwise.",
)
@click.option(
    "--notify",
    metavar="URL",
    help="Tell this webhook when the state changes; better said as RECONCILE_WEBHOOK, because it is a secret.",
)
@click.option(
    "--notify-format",
    type=click.Choice(["json", "slack", "teams"]),
    help="The shape in which it is told: json unless said otherwise.",
)
@click.option(
    "--notify-state",
    metavar="FILE",
    help="What was told last, so that only news is told; without it and --every each drift is.",
)
def compare(**options: Any) -> int:
    """Compare the platform with the specs. Reads only; ends with 2 if they differ."""
    from btp_reconcile.cli import drift

    return drift.drift(**options)


@cli.command("verify", epilog=VERDICTS)
@_specs
@_only
@_shard
@_rehearse
@_format("text", "json")
def try_keys(**options: Any) -> int:
    """Try each key: a token, then one harmless call. Writes nothing."""
    from btp_reconcile.cli import verify

    return verify.verify(**options)


@cli.command()
@click.argument("what", nargs=-1, metavar="[ADDRESS]... [SPEC]...")
@click.option("--due", is_flag=True, help="Whatever is due: what a schedule runs.")
@_shard
@_rehearse
@_format("text", "json")
@_at_most
@_yes
@_timeout
def rotate(**options: Any) -> int:
    """Make keys anew with overlap, and delete old ones whose time is over.

    With an ADDRESS like key:prod/apim/transport this key, whether it is due or not; with --due every key whose
    rotate_after has passed. Each new key is tried out and given to its consumers; the old one is deleted by a later
    run, keep_old_for after every consumer has the new one.
    """
    from btp_reconcile.cli import work

    return work.rotate(**options)


@cli.command()
@_specs
@click.option("--target", multiple=True, metavar="ADDRESS", help="Only this, and what stands in it.")
@_rehearse
@_format("text", "json")
def keys(**options: Any) -> int:
    """List every key: generations, age, end, where it was delivered, how it was last proven. Reads only."""
    from btp_reconcile.cli import work

    return work.keys(**options)


@cli.command()
@_specs
@_format("text", "json", "markdown", "html")
@_max_size
@click.option(
    "--detailed-exitcode", is_flag=True, help="For a plan file: end as `plan --detailed-exitcode` did."
)
def show(**options: Any) -> int:
    """Print specs with everything merged in, or a saved plan."""
    from btp_reconcile.cli import work

    return work.show(**options)


@cli.command()
@click.argument("specs", nargs=-1, metavar="[SPEC]... | PLANFILE", type=click.Path(readable=False))
@_format("mermaid", "dot", "svg")
def graph(**options: Any) -> int:
    """Draw what depends on what: entitlement, instance, key, delivery, destination.

    From specs nobody is asked and nothing from outside is read; from a saved plan it says what happens to each.
    """
    from btp_reconcile.cli import look

    return look.graph(**options)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print what completes commands, options and files in a shell.

    In bash:  source <(reconcile completion bash)    zsh: the same with zsh
    In fish:  reconcile completion fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(cli, {}, "reconcile", "_RECONCILE_COMPLETE").source())
    return 0


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


SCHEMAS = (
    "spec",
    "plan",
    "report",
    "apply",
    "verify",
    "keys",
    "baseline",
    "check",
    "problems",
    "validation",
)
"""What has a published schema. (The list stands here too, so that --help needs no import.)"""


@cli.command()
@click.argument("name", type=click.Choice(SCHEMAS), default="spec")
def schema(**options: Any) -> int:
    """Print a JSON Schema: of a spec, for editors, or of what --format json prints.

    A drift check has the schema of a plan.
    """
    from btp_reconcile.cli import about

    return about.schema(**options)


@cli.command("export")
@click.argument("subaccount")
@_specs
@_rehearse
def export_live(**options: Any) -> int:
    """Print what is live in a subaccount and in no spec yet, as a spec that adopts it. Reads only, and no secret.

    SUBACCOUNT is a name in SPEC, or the id of one. SPEC says where it is and how it is opened; that alone is enough.
    """
    from btp_reconcile.cli import export

    return export.export(**options)


@cli.group("report")
def reports() -> None:
    """What many plans say together."""


@reports.command("merge")
@click.argument("plans", nargs=-1, required=True, metavar="PLAN.json...")
@_format("text", "json")
@click.option(
    "--out",
    metavar="FILE",
    help="Also write the sum to a file: the approval by which each shard is applied.",
)
def merge_plans(**options: Any) -> int:
    """Put the saved plans of all shards together, and say whether the whole may be applied.

    Quota and the share of deletions at once are decided here, over all subaccounts; ends with 4 if something stands
    against it.
    """
    from btp_reconcile.cli import merge

    return merge.merge(**options)


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


@sandbox.command()
@click.argument("duration")
@_STATE
def advance(**options: Any) -> int:
    """Let time pass in it, like 20d: keys age, certificates end, tokens expire."""
    from btp_reconcile.cli import emulator

    return emulator.advance(**options)


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
    # Thousands of things are read and kept: looking for garbage among them took a third of the time.
    gc.set_threshold(1_000_000, 20, 20)
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
