"""A sandbox in a process of its own, so that what is measured is `reconcile` alone.

Reads one line of JSON, what to serve; answers with one line, how to get in. After that each line on its input is
answered with the requests since the last one. The end of its input is its end.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import landscapes
from btp_reconcile import pipeline
from btp_reconcile.cli.world import within_sandbox
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.sandbox import Sandbox, serve

if TYPE_CHECKING:
    from btp_reconcile.core.model import Wanted
    from btp_reconcile.sandbox import Answer, Request

ID = re.compile(r"/[0-9a-f]{8}-[0-9a-f-]{27}")


class Slow(Sandbox):
    """A sandbox as far away as a real platform: every answer takes so long, its own work included."""

    latency = 0.0

    def answer(self, request: Request) -> Answer:
        began = time.perf_counter()
        found = super().answer(request)
        left = self.latency - (time.perf_counter() - began)
        return replace(found, delay=found.delay + max(0.0, left))


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    size = landscapes.Size(**asked["size"])
    settings = {
        "offerings": landscapes.offerings(size),
        "delays": {"default": asked["operation"], "cf.job": 0},
    }
    sandbox = Slow(time="seconds", settings=settings)
    with serve(sandbox) as served:
        Path(asked["spec"]).write_text(landscapes.spec(size, served.url), encoding="utf-8")
        wanted = _wanted(asked["spec"])
        sandbox.seed(landscapes.world(wanted, in_sync=asked["in_sync"]))
        _tell(_environment(served.access(), wanted))
        del wanted
        gc.freeze()  # the world stays; looking through it again and again would only take time from others
        sandbox.latency = asked["latency"]
        for _ in sys.stdin:
            _tell(_counted(sandbox))


def _wanted(spec: str) -> Wanted:
    """What the spec wants, with the sandbox in the place of the platform."""
    world: Any = pipeline.World(
        {},
        lambda *_: "",
        lambda *_: None,  # type: ignore[arg-type] # nobody is asked
        MovingClock(),
        lambda *_: None,
        rehearsal=True,
        served=within_sandbox,
    )
    return pipeline.prepare([spec], world).wanted


def _environment(access: dict[str, Any], wanted: Wanted) -> dict[str, str]:
    """The variables with which `reconcile` gets in."""
    found = {"BTP_CIS_CENTRAL_KEY": json.dumps(access["central"])}
    for foundry in access["cloud_foundry"].values():
        found |= {"CF_USER": foundry["username"], "CF_PASSWORD": foundry["password"]}
    for name, one in wanted.subaccounts.items():
        if one.id in access["service_manager"]:
            number = int(name.rpartition("-")[2])
            found[f"BTP_SM_{number}"] = json.dumps(access["service_manager"][one.id])
    return found


def _counted(sandbox: Sandbox) -> dict[str, int]:
    """Requests by method and path, without the ids in it."""
    asked, sandbox.requests = sandbox.requests, []
    found = Counter(f"{method} {ID.sub('/{id}', path)}" for method, _, path, _ in asked)
    return dict(found.most_common())


def _tell(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # threads of the server may still wait
