"""`reconcile sandbox`: a small BTP on this machine, for people and other clients."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import talk
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


def reset(state: str | None) -> int:
    """Forget the world. Deletes nothing that is none."""
    path = state_file(state)
    if not path.exists():
        talk.lines([("", f"{path}: there was nothing to forget")])
        return report.DONE
    if not path.is_file() or not holds_a_world(path):
        raise UsageError(f"{path} holds something else than a sandbox's world, so it stays")
    for one in (path, path.with_name(f"{path.name}.pem")):
        one.unlink(missing_ok=True)
    talk.lines([("", f"{path}: forgotten")])
    return report.DONE
