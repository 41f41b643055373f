"""The worlds and specs that are made worse: small, and with something of everything in them."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from btp_reconcile import cli
from btp_reconcile.cli import world
from btp_reconcile.sandbox import Sandbox
from tests.fuzz.running import PLANTED

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
PROD = (ROOT / "specs/prod.yaml").read_text(encoding="utf-8")
LANDSCAPE = (ROOT / "specs/landscape.yaml").read_text(encoding="utf-8")
GUID = "22222222-2222-4222-8222-222222222222"
MIXED = f"""\
version: 1
owner: fuzz
name: mixed
access:
  central: {{service_key: "${{env:BTP_CIS_CENTRAL_KEY}}"}}
  service_manager: {{service_key: "${{env:BTP_SERVICE_MANAGER_KEY}}"}}
  cloud_foundry: {{username: "${{env:CF_USER}}", password: "${{env:CF_PASSWORD}}"}}
subaccounts:
  two:
    id: {GUID}
    region: eu10
    cloud_foundry: {{org: org-two, space: a}}
    entitlements:
      APPLICATION_RUNTIME: {{MEMORY: 2}}
    instances:
      x:
        service: sandbox-config
        plan: standard
        runtime: cloudfoundry
        parameters: {{size: 1, password: "${{env:PLANTED}}"}}
        tags: [red]
        keys: {{k: {{parameters: {{use: read}}}}, l: {{}}}}
      y: {{service: sandbox-config, plan: standard, runtime: other, parameters: {{size: 1}}, keys: {{k: {{}}}}}}
      z: {{service: sandbox-slow, plan: standard, runtime: other, keys: {{k: {{}}}}}}
      w: {{service: sandbox-config, plan: standard, runtime: other, adopt: true, keys: {{k: {{adopt: true}}}}}}
"""
STRANGERS = {
    "subaccounts": {
        "two": {
            "id": GUID,
            "region": "eu10",
            "cloud_foundry": {"landscape": "eu10", "org": "org-two", "spaces": ["a"]},
            "instances": [
                {
                    "runtime": runtime,
                    "name": name,
                    "service": "sandbox-config",
                    "plan": "standard",
                    "parameters": {"size": 1},
                    "keys": [{"name": "k"}],
                    **({"space": "a"} if runtime == "cloudfoundry" else {}),
                }
                for runtime, name in (("cloudfoundry", "stranger"), ("other", "stranger"), ("other", "w"))
            ],
        }
    }
}


@dataclass(frozen=True)
class Scene:
    """A spec, and the name of the world that it meets."""

    spec: str
    world: str


CHANGED = MIXED.replace("size: 1", "size: 2").replace("tags: [red]", "tags: [green]").replace(", l: {}", "")
GUEST = PROD.partition("    destinations:\n")[0].replace("APIPortal.Administrator", "APIPortal.Guest")
"""Without the destination, whose recipe allows one role only."""
SCENES = {
    "prod, nothing there": Scene(PROD, "empty prod"),
    "prod, in sync": Scene(PROD, "prod"),
    "prod, another role": Scene(GUEST, "prod"),
    "prod, a key changed": Scene(PROD.replace("validity: 30d", "validity: 28d"), "prod"),
    "landscape, nothing there": Scene(LANDSCAPE, "empty landscape"),
    "landscape, in sync": Scene(LANDSCAPE, "landscape"),
    "mixed, nothing there": Scene(MIXED, "empty mixed"),
    "mixed, in sync": Scene(MIXED, "mixed"),
    "mixed, changed": Scene(CHANGED, "mixed"),
    "mixed, moved": Scene(
        MIXED.replace("runtime: cloudfoundry", "runtime: other").replace("        tags: [red]\n", ""), "mixed"
    ),
    "mixed, most absent": Scene(
        MIXED.replace("runtime: other, ", "runtime: other, ensure: absent, "), "mixed"
    ),
}
SPECS = {"prod": PROD, "landscape": LANDSCAPE, "mixed": MIXED}


@functools.cache
def maker(name: str) -> Any:
    """What makes the world of that name."""
    return functools.partial(_made, name)


def _made(name: str) -> Sandbox:
    sandbox = Sandbox()
    spec = SPECS[name.removeprefix("empty ")]
    if spec is MIXED:
        sandbox.seed(STRANGERS)
    verb = ("plan",) if name.startswith("empty ") else ("apply", "--yes")
    said = io.StringIO()
    with (
        TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        patch.dict(os.environ, {"PLANTED": PLANTED["PLANTED"], "HOME": folder}),
        patch.object(world, "open_sandbox", lambda *_, **__: sandbox),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        Path("spec.yaml").write_text(spec, encoding="utf-8")
        code = cli.run([*verb, "spec.yaml", "--sandbox"])
    assert code == 0, said.getvalue()
    sandbox.requests.clear()
    return sandbox


def environment(sandbox: Sandbox) -> dict[str, str]:
    """The variables in which people keep what opens this world."""
    keys: Mapping[str, Any] = sandbox.access()
    found = {
        "PLANTED": PLANTED["PLANTED"],
        "BTP_CIS_CENTRAL_KEY": json.dumps(keys["central"]),
    }
    for foundry in keys["cloud_foundry"].values():
        found |= {"CF_USER": foundry["username"], "CF_PASSWORD": foundry["password"]}
    for guid, key in keys["service_manager"].items():
        name = "BTP_SM_INTEGRATION_PROD_KEY" if guid.endswith("4a03") else "BTP_SERVICE_MANAGER_KEY"
        if name == "BTP_SM_INTEGRATION_PROD_KEY" or guid == GUID:
            found[name] = json.dumps(key)
    for guid, key in keys["destination"].items():
        if guid == GUID or guid in PROD:
            found["BTP_DESTINATION_KEY"] = json.dumps(key)
    return found
