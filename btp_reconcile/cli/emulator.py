"""`reconcile sandbox`: a small BTP on this machine, for people and other clients."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import talk
from btp_reconcile.cli.work import span
from btp_reconcile.cli.world import (
    holds_a_world,
    open_sandbox,
    read_outside,
    rehearse,
    state_file,
    within_sandbox,
)
from btp_reconcile.core import report
from btp_reconcile.core.errors import UsageError
from btp_reconcile.edges.clock import MovingClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from btp_reconcile.core.model import Subaccount
    from btp_reconcile.sandbox import Sandbox
    from btp_reconcile.sandbox.doors import Served


def start(specs: Sequence[str], *, port: int, tls: bool, state: str | None, seed: int) -> int:
    """Serve until Ctrl-C. Prints what a person needs to sign in with `cf`, `smctl` and `reconcile`."""
    from btp_reconcile.sandbox import serve

    wanted = pipeline.prepare(specs, _world()).wanted if specs else None
    sandbox = open_sandbox(state, seed, time="seconds")
    _in_seconds(sandbox)
    if wanted is not None:
        rehearse(sandbox, wanted)
    try:
        served = serve(sandbox, port=port, tls=tls)
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used: {error.strerror or error}; --port 0 takes a free one"
        ) from None
    with contextlib.suppress(KeyboardInterrupt):  # from here on SIGTERM is Ctrl-C, and both are a good end
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        talk.lines(_sign_in(served, dict(wanted.subaccounts) if wanted else {}, state_file(state)))
        served.forever()
    # An answer that a fault holds back would hold up the end as well.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(report.DONE))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    return report.DONE


def _in_seconds(sandbox: Sandbox) -> None:
    """A world that rehearsals made counts time in looks; for people it goes on in seconds, and never backwards."""
    with sandbox.hold() as world:
        if world.mode == "looks":
            before = world.now()
            world.state.update(time="seconds", elapsed=0)
            world.state["elapsed"] = max(0.0, before - world.now())


def _world() -> pipeline.World:
    """Enough of a world to read specs: everything that is not set becomes a placeholder."""

    def nobody(*_: Any) -> Any:
        raise UsageError("nothing is asked here")

    return pipeline.World(
        os.environ,
        read_outside,
        nobody,
        MovingClock(),
        lambda *_: None,
        rehearsal=True,
        served=within_sandbox,
    )


def _sign_in(served: Served, subaccounts: dict[str, Subaccount], state: Path) -> Iterable[tuple[str, str]]:
    access = served.access()
    skip = ""
    yield "bold", f"SAP BTP sandbox at {served.url}"
    yield "dim", f"its world is kept in {state}; Ctrl-C ends it, `reconcile sandbox reset` forgets it"
    if served.certificate is not None:
        skip = " --skip-ssl-validation"
        kept = state.with_name(f"{state.name}.pem")
        kept.write_text(served.certificate, encoding="utf-8")
        yield "", ""
        yield "bold", "Its certificate, for clients that must trust it"
        yield "", f"  export REQUESTS_CA_BUNDLE={shlex.quote(str(kept.absolute()))}"
    for landscape, foundry in access["cloud_foundry"].items():
        yield from _foundry(landscape, foundry, skip, subaccounts.values())
    yield "", ""
    yield "bold", "Entitlements and accounts: the cis/central key"
    yield "", f"  export BTP_CIS_CENTRAL_KEY={shlex.quote(json.dumps(access['central']))}"
    names = {one.id: name for name, one in subaccounts.items()}
    for guid, key in access["service_manager"].items():
        yield "", ""
        yield "bold", f"Service Manager of {names.get(guid, guid)}"
        who = f"--client-id {shlex.quote(key['clientid'])} --client-secret {shlex.quote(key['clientsecret'])}"
        yield "", f"  smctl login -a {key['sm_url']} --auth-flow client-credentials {who}{skip}"
        yield "", f"  export BTP_SERVICE_MANAGER_KEY={shlex.quote(json.dumps(key))}"
        if guid in access["destination"]:
            yield "", ""
            yield "bold", f"Destinations of {names.get(guid, guid)}"
            yield "", f"  export BTP_DESTINATION_KEY={shlex.quote(json.dumps(access['destination'][guid]))}"
    if not access["service_manager"]:
        yield "", ""
        yield (
            "dim",
            "no subaccounts yet: reconcile sandbox start specs/prod.yaml makes those that a spec names",
        )


def _foundry(
    landscape: str, foundry: Mapping[str, str], skip: str, subaccounts: Iterable[Subaccount]
) -> Iterable[tuple[str, str]]:
    """How to sign in at one landscape, with the `cf` client and with `reconcile`."""
    user, password = shlex.quote(foundry["username"]), shlex.quote(foundry["password"])
    yield "", ""
    yield "bold", f"Cloud Foundry, landscape {landscape}"
    yield "", f"  cf login -a {foundry['api']} -u {user} -p {password}{skip}"
    for one in subaccounts:
        place = one.cloud_foundry
        if place is not None and place.space and f".{landscape}." in place.api:
            yield "", f"  cf target -o {shlex.quote(place.org)} -s {shlex.quote(place.space)}"
    yield "", f"  export CF_USER={user} CF_PASSWORD={password}"
    yield "dim", f"  in a spec:  cloud_foundry: {{api: {json.dumps(foundry['api'])}, org: …, space: …}}"


MATCHING = ("method", "host", "path", "body", "name", "offering", "plan", "verb")
"""The options of `faults add` that say what is befallen; the others say when, and how."""


def list_faults(state: str | None, format_: str) -> int:
    """What goes wrong, and how often it has."""
    rules = open_sandbox(state).faults.rules() if state_file(state).exists() else []
    if format_ == "json":
        talk.data(rules)
    elif not rules:
        talk.lines([("dim", "nothing goes wrong")])
    else:
        talk.lines([("", _numbered(rule)) for rule in rules])
    return report.DONE


def add_fault(state: str | None, deed: str, **options: Any) -> int:
    """One more; a served sandbox has it at its next request."""
    from btp_reconcile.sandbox.faults import checked

    said = {
        key: value
        for key, value in options.items()
        if value is not None and value is not False and value != ()
    }
    match = {key: said.pop(key) for key in MATCHING if key in said}
    if "header" in said:
        said["headers"] = dict(_header(line) for line in said.pop("header"))
    if "answer" in said:
        said["body"] = _json_or_text(said.pop("answer"))
    if "status" in said:
        said["status"] = _json_or_text(said["status"])
    if "seconds" in said and said["seconds"].is_integer():
        said["seconds"] = int(said["seconds"])
    try:
        rule = checked({"do": deed, "match": match, **said})
    except (ValueError, TypeError) as error:
        raise UsageError(f"{error}") from None
    sandbox = open_sandbox(state)
    number = sandbox.faults.add(rule)
    talk.lines([("", _numbered(one)) for one in sandbox.faults.rules() if one.get("id") == number])
    return report.DONE


def clear_faults(state: str | None, names: Sequence[str]) -> int:
    """None any more, or these no more."""
    if not state_file(state).exists():
        if names:
            raise UsageError(f"there is no fault {names[0]}, for there is no sandbox yet")
        talk.lines([("dim", "nothing goes wrong")])
        return report.DONE
    faults = open_sandbox(state).faults
    try:
        count = faults.remove(names or [rule.get("id", 0) for rule in faults.rules()])
    except LookupError as error:
        raise UsageError(str(error.args[0])) from None
    talk.lines([("", f"{count} cleared")])
    return report.DONE


def _numbered(rule: Mapping[str, Any]) -> str:
    from btp_reconcile.sandbox.faults import described

    return f"{rule.get('id', 0):>3}  {described(rule)}"


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header takes 'NAME: VALUE', not {line!r}; 'NAME:' takes one away")
    return name.strip(), value.strip()


def _json_or_text(text: str) -> Any:
    """JSON, or else the text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def reset(state: str | None) -> int:
    """Forget the world, and what rehearsals have delivered. Deletes nothing that is none."""
    path = state_file(state)
    if not path.exists():
        talk.lines([("", f"{path}: there was nothing to forget")])
        return report.DONE
    if not path.is_file() or not holds_a_world(path):
        raise UsageError(f"{path} holds something else than a sandbox's world, so it stays")
    # The world goes last: a reset that was cut short can be repeated.
    kept, delivered, files = (path.with_name(f"{path.name}.{end}") for end in ("pem", "delivered", "files"))
    if files.is_dir() and not files.is_symlink():
        shutil.rmtree(files)
    for one in (kept, delivered, path):
        one.unlink(missing_ok=True)
    talk.lines([("", f"{path}: forgotten")])
    return report.DONE


def advance(duration: str, state: str | None) -> int:
    """Let time pass there: keys age, certificates end, tokens expire."""
    seconds = span(duration, "DURATION", "520w")
    sandbox = open_sandbox(state)
    with sandbox.hold() as world:
        if world.mode == "seconds":
            raise UsageError(
                "this sandbox was served and lives in real time; `reconcile sandbox reset` begins another"
            )
        world.advance(seconds)
        now = world.stamp()
    talk.lines([("", f"it is {now} there now")])
    return report.DONE
