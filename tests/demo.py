"""`make demo`: the main job on the embedded sandbox, told step by step. Ends with 0 only if all of it held."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from btp_reconcile.sandbox import InProcessAdapter, Sandbox
from tests.sinks.bao import ROOT_TOKEN, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sinks.bao import Bao

ROOT = Path(__file__).resolve().parent.parent
PROD = "specs/prod.yaml"
TRANSPORT = "specs/transport.yaml"
KEY = "key:source/apim/transport"
STORED = "apim/transport"
FILE = "credentials/apim-transport.json"
_SECRET = re.compile(r"secret$|password$|^private_?key$|^key$|^access_token$|^refresh_token$", re.IGNORECASE)


@dataclass
class Stage:
    """A folder with a copy of `specs/` and a sandbox, and all that was printed."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    deliver: tuple[str, ...] = ()
    printed: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "sandbox.json"

    def say(self, text: str) -> None:
        self.show(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")

    def show(self, text: str) -> None:
        """Print. A terminal breaks long lines between words."""
        self.printed.append(text)
        print("\n".join(map(_broken, text.split("\n"))) if sys.stdout.isatty() else text, flush=True)

    def run(self, *arguments: str, expected: int = 0) -> str:
        """`reconcile`, in the folder. Its results are shown; its logs, which repeat them, are not."""
        self.show(f"$ reconcile {shlex.join(arguments)}")
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("reconcile")), *arguments],
            cwd=self.folder,
            env={**os.environ, "RECONCILE_SANDBOX": str(self.state), **self.environment},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        self.show(ended.stdout.removesuffix("\n"))
        self.printed.append(ended.stderr)
        if ended.returncode != expected:
            sys.exit(f"{ended.stderr}expected exit code {expected}, got {ended.returncode}")
        return ended.stdout

    def rehearse(self, command: str, *arguments: str, expected: int = 0) -> str:
        """A command against the sandbox; what it delivers is really delivered to the sinks of `deliver`."""
        really = [word for sink in self.deliver for word in ("--sandbox-deliver", sink)]
        return self.run(command, *arguments, "--sandbox", *really, expected=expected)


def _broken(line: str) -> str:
    width = max(shutil.get_terminal_size().columns, 40)
    if len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return "\n".join(
        textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )


def main() -> None:
    stage = begin(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".demo")
    as_declared(stage)
    with contextlib.ExitStack() as closing:
        vault = closing.enter_context(served(stage.folder)) if can_serve_vault() else None
        whole_life(stage, vault)
    no_secret_was_printed(stage, vault)
    stage.show("\nDone. Nothing left this machine, and no credential was printed.")


def begin(folder: Path) -> Stage:
    """A new folder, with a copy of the specs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    shutil.copytree(ROOT / "specs", folder / "specs")
    return Stage(folder.absolute())


# --- what is declared, applied and kept -----------------------------------------------------------------


def as_declared(stage: Stage) -> None:
    stage.say("1. What would be done? A plan reads only.")
    stage.rehearse("plan", PROD)
    stage.say("2. Do it.")
    stage.rehearse("apply", PROD, "--yes")
    stage.say("3. Plan again: nothing is left to do.")
    assert "No changes" in stage.rehearse("plan", PROD, "--detailed-exitcode")
    stage.say("4. Somebody works by hand: deletes the key `transport`, and tags the instance `apim`.")
    by_hand(Sandbox(stage.state))
    stage.say("5. The drift check finds both, and a destination that holds a dead key. It ends with 2.")
    found = stage.rehearse("drift", PROD, expected=2)
    assert re.findall(r"^  [+~] (\S+)", found, re.MULTILINE) == [
        "instance:prod/apim",
        "key:prod/apim/transport",
        "destination:prod/APIManagement",
    ]
    stage.say("6. Apply mends it.")
    stage.rehearse("apply", PROD, "--yes")
    stage.say("7. In sync again.")
    assert "In sync" in stage.rehearse("drift", PROD)
    stage.say("8. What the sandbox has now.")
    show_world(stage)


def show_world(stage: Stage) -> None:
    """Names only: what is in the sandbox, as its own list says."""
    world = Sandbox(stage.state).snapshot()
    for spaces in world["cloud_foundry"].values():
        for org, spaces_of_org in spaces.items():
            for space, instances in spaces_of_org.items():
                stage.show(f"  organization {org}, space {space}")
                for name, instance in instances.items():
                    stage.show(f"    {name}, with the keys {' and '.join(sorted(instance['keys']))}")
    for subaccount, destinations in world["destinations"].items():
        stage.show(f"  destinations of {subaccount}: {', '.join(sorted(destinations))}")


def by_hand(sandbox: Sandbox) -> None:
    """What a person would do with the cf command line client."""
    session = requests.Session()
    session.mount("https://", InProcessAdapter(sandbox))
    (foundry,) = sandbox.access()["cloud_foundry"].values()
    api = foundry["api"]
    uaa = session.get(api).json()["links"]["uaa"]["href"]
    form = {"grant_type": "password", "username": foundry["username"], "password": foundry["password"]}
    token = session.post(f"{uaa}/oauth/token", data=form, auth=("cf", "")).json()["access_token"]
    session.headers["Authorization"] = f"bearer {token}"

    def one(kind: str, name: str) -> str:
        (found,) = session.get(f"{api}/v3/{kind}", params={"names": name}).json()["resources"]
        return f"{api}/v3/{kind}/{found['guid']}"

    deleted = session.delete(one("service_credential_bindings", "transport"))
    deleted.raise_for_status()
    while session.get(deleted.headers["Location"]).json()["state"] not in {"COMPLETE", "FAILED"}:
        pass  # each look moves the sandbox on
    session.patch(one("service_instances", "apim"), json={"tags": ["by-hand"]}).raise_for_status()


# --- a key's whole life ---------------------------------------------------------------------------------


def whole_life(stage: Stage, vault: Bao | None) -> None:
    stage.deliver = ("file",)
    if vault is None:
        stage.say("The program `bao` does not run here: deliveries to Vault are recorded, not made.")
    else:
        stage.deliver = ("vault", "file")
        stage.environment = {
            "VAULT_ADDR": vault.address,
            "VAULT_TOKEN": ROOT_TOKEN,
            "VAULT_CACERT": vault.ca_file,
        }
        stage.say("An OpenBao server runs on 127.0.0.1: the deliveries to Vault below are real.")
    stage.say("9. From the entitlement to the consumers: key, proof, Vault, file, destination.")
    stage.rehearse("apply", TRANSPORT, "--yes")
    where_it_is(stage, vault, 1)
    stage.say("10. Plan again: nothing is left to do.")
    assert "No changes" in stage.rehearse("plan", TRANSPORT, "--detailed-exitcode")
    stage.say("11. Does each key work? A token, then one harmless request.")
    assert "Verify: 2 ok." in stage.rehearse("verify", TRANSPORT)
    stage.say("12. Where is each key, and when is it due?")
    listed = stage.rehearse("keys", TRANSPORT)
    assert "vault secret/apim/transport" in listed
    assert "destination APIManagement" in listed
    stage.say("13. Make one anew, now. Its consumers get the new one, and the old one still works.")
    rotated = stage.rehearse("rotate", KEY, TRANSPORT, "--yes")
    assert f"⟳ {KEY} (generation 2)" in rotated
    where_it_is(stage, vault, 2)
    both = stage.rehearse("keys", TRANSPORT, "--target", KEY)
    assert re.findall(r"generation (\d), (\w+)", both) == [("1", "superseded"), ("2", "current")]
    stage.say("14. Six days later the old key has had its time.")
    stage.run("sandbox", "advance", "6d")
    assert f"↓ {KEY}" in stage.rehearse("rotate", "--due", TRANSPORT, "--yes")
    left = stage.rehearse("keys", TRANSPORT, "--target", KEY)
    assert re.findall(r"generation (\d), (\w+)", left) == [("2", "current")]
    stage.say("15. Nothing is left to do, and each key still works.")
    assert "No changes" in stage.rehearse("plan", TRANSPORT, "--detailed-exitcode")
    assert "Verify: 2 ok." in stage.rehearse("verify", TRANSPORT)


def where_it_is(stage: Stage, vault: Bao | None, generation: int) -> None:
    """The key's consumers, asked without `reconcile`: all hold this generation, and the same secret."""
    sandbox = Sandbox(stage.state)
    shown = sandbox.snapshot()["destinations"]["source"]["APIManagement"]
    assert shown["btp-reconcile.key"].startswith(f"{KEY}#{generation} ")
    with sandbox.hold() as world:
        stored = world.table("destinations")[
            f"subaccount/{world.table('sandbox.subaccounts')['source']['id']}"
        ]
        secrets = [stored["APIManagement"]["properties"]["clientSecret"]]
    secrets.append(json.loads((stage.folder / FILE).read_text(encoding="utf-8"))["oauth"]["clientsecret"])
    mode = (stage.folder / FILE).stat().st_mode & 0o777
    assert mode == 0o600
    stage.show("\nThe consumers themselves, asked without reconcile:")
    stage.show(f"  destination APIManagement: generation {generation} of the key")
    stage.show(f"  file {FILE}: mode {mode:04o}")
    if vault is not None:
        metadata = vault.metadata(STORED)
        assert metadata["custom_metadata"]["btp-reconcile-generation"] == str(generation)
        assert metadata["current_version"] == generation
        secrets.append(vault.data(STORED)["clientSecret"])
        stage.show(f"  Vault, secret/{STORED}: version {metadata['current_version']}")
    assert len(set(secrets)) == 1
    stage.show("  all of them hold the same secret\n")


def can_serve_vault() -> bool:
    """Is there a server for this platform? The package installs everywhere, its binary does not come along everywhere."""
    try:
        program = Path(sysconfig.get_path("scripts")) / "bao"
        return subprocess.run([program, "version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


# --- what was not printed -------------------------------------------------------------------------------


def no_secret_was_printed(stage: Stage, vault: Bao | None) -> None:
    """No secret of the sandbox or of Vault stands in what was shown, or in the logs that were not."""
    known = secrets_of(stage)
    if vault is not None:
        known |= {ROOT_TOKEN, vault.unseal_key}
    assert len(known) > 5  # else they were looked for at the wrong place
    text = "\n".join(stage.printed)
    assert not any(one in text for one in known)
    assert "-----BEGIN" not in text


def secrets_of(stage: Stage) -> set[str]:
    """All that the sandbox has, and the file that was delivered."""
    files = (stage.state, stage.folder / FILE)
    return {one for file in files for one in _secrets(json.loads(file.read_text(encoding="utf-8")))}


def _secrets(value: Any, name: str = "") -> Iterator[str]:
    """Every text whose name says that it is a secret."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _secrets(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from _secrets(one, name)
    elif isinstance(value, str) and len(value) >= 12 and _SECRET.search(name):
        yield value


if __name__ == "__main__":
    main()
