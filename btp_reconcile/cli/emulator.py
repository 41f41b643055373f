"""`reconcile sandbox`: a small BTP on this machine, for people and other clients."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import talk
from btp_reconcile.cli.world import open_sandbox, read_outside, rehearse, state_file
from btp_reconcile.core import report
from btp_reconcile.core.errors import UsageError
from btp_reconcile.edges.clock import MovingClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btp_reconcile.core.model import Subaccount
    from btp_reconcile.sandbox.doors import Served


def start(specs: Sequence[str], *, port: int, tls: bool, state: str | None, seed: int) -> int:
    """Serve until Ctrl-C. Prints what a person needs to sign in with `cf` and `smctl`."""
    from btp_reconcile.sandbox import serve

    sandbox = open_sandbox(state, seed, time="seconds")
    subaccounts: dict[str, Subaccount] = {}
    if specs:
        wanted = pipeline.prepare(specs, _world()).wanted
        subaccounts = dict(wanted.subaccounts)
        rehearse(sandbox, wanted)
    try:
        served = serve(sandbox, port=port, tls=tls)
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used: {error.strerror or error}; --port 0 takes a free one"
        ) from None
    talk.lines(_sign_in(served, subaccounts, tls=tls, state=str(state_file(state))))
    _until_stopped(served)
    return report.DONE


def _world() -> pipeline.World:
    """Enough of a world to read specs: everything that is not set becomes a placeholder."""

    def nobody(*_: Any) -> Any:
        raise UsageError("nothing is asked here")

    return pipeline.World(os.environ, read_outside, nobody, MovingClock(), lambda *_: None, rehearsal=True)


def _until_stopped(served: Served) -> None:
    def stop(number: int, frame: object) -> None:  # noqa: ARG001 - the shape signal handlers have
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    served.forever()


def _sign_in(
    served: Served, subaccounts: dict[str, Subaccount], *, tls: bool, state: str
) -> Iterable[tuple[str, str]]:
    access = served.access()
    skip = " --skip-ssl-validation" if tls else ""
    yield "bold", f"SAP BTP sandbox at {served.url}"
    yield "dim", f"its world is kept in {state}; Ctrl-C ends it, `reconcile sandbox reset` forgets it"
    for landscape, foundry in access["cloud_foundry"].items():
        yield "", ""
        yield "bold", f"Cloud Foundry, landscape {landscape}"
        login = f"cf login -a {foundry['api']} -u {foundry['username']} -p {foundry['password']}{skip}"
        mine = [
            one
            for one in subaccounts.values()
            if one.cloud_foundry and f".{landscape}." in one.cloud_foundry.api
        ]
        yield "", f"  {login}"
        for one in mine:
            if one.cloud_foundry is not None and one.cloud_foundry.space:
                yield "", f"  cf target -o {one.cloud_foundry.org} -s {one.cloud_foundry.space}"
    yield "", ""
    yield "bold", "Entitlements and accounts: the cis/central key"
    yield "", f"  export BTP_CIS_CENTRAL_KEY='{json.dumps(access['central'])}'"
    names = {one.id: name for name, one in subaccounts.items()}
    for guid, key in access["service_manager"].items():
        yield "", ""
        yield "bold", f"Service Manager of {names.get(guid, guid)}"
        smctl = f"smctl login -a {key['sm_url']} --auth-flow client-credentials"
        yield "", f"  {smctl} --client-id '{key['clientid']}' --client-secret '{key['clientsecret']}'{skip}"
        yield "", f"  export BTP_SERVICE_MANAGER_KEY='{json.dumps(key)}'"
    if not access["service_manager"]:
        yield "", ""
        yield (
            "dim",
            "no subaccounts yet: reconcile sandbox start specs/prod.yaml makes those that a spec names",
        )


def reset(state: str | None) -> int:
    """Forget the world."""
    path = state_file(state)
    existed = path.exists()
    path.unlink(missing_ok=True)
    talk.lines([("", f"{path}: forgotten" if existed else f"{path}: there was nothing to forget")])
    return report.DONE
