"""`make demo`: the main job on the embedded sandbox, told step by step. Ends with 0 only if all of it held."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import requests

from btp_reconcile.sandbox import InProcessAdapter, Sandbox

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".demo"
STATE = SCRATCH / "sandbox.json"
SPEC = "specs/prod.yaml"


def main() -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(mode=0o700)
    say("1. What would be done? A plan reads only.")
    run("plan", SPEC)
    say("2. Do it.")
    run("apply", SPEC, "--yes")
    say("3. Plan again: nothing is left to do.")
    assert "No changes" in run("plan", SPEC, "--detailed-exitcode")
    say("4. Somebody works by hand: deletes the key `transport`, and tags the instance `apim`.")
    by_hand()
    say("5. The drift check finds both, and ends with 2.")
    found = run("drift", SPEC, expected=2)
    assert "key:prod/apim/transport" in found
    assert "tags" in found
    say("6. Apply mends it.")
    run("apply", SPEC, "--yes")
    say("7. In sync again.")
    assert "In sync" in run("drift", SPEC)
    say("8. What the sandbox has now.")
    show_world()
    print("\nDone. Nothing left this machine, and no credential was printed.")


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*arguments: str, expected: int = 0) -> str:
    command = [str(Path(sys.executable).with_name("reconcile")), *arguments, "--sandbox"]
    print("$ reconcile", shlex.join(command[1:]), flush=True)
    environment = {**os.environ, "RECONCILE_SANDBOX": str(STATE)}
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    print(ended.stdout, end="", flush=True)
    if ended.returncode != expected:
        sys.exit(f"expected exit code {expected}, got {ended.returncode}")
    return ended.stdout


def show_world() -> None:
    """Names only: what is in the sandbox, as its own list says."""
    for spaces in Sandbox(STATE).snapshot()["cloud_foundry"].values():
        for org, spaces_of_org in spaces.items():
            for space, instances in spaces_of_org.items():
                print(f"  organization {org}, space {space}")
                for name, instance in instances.items():
                    print(f"    {name}, with the keys {' and '.join(sorted(instance['keys']))}")


def by_hand() -> None:
    """What a person would do with the cf command line client."""
    sandbox = Sandbox(STATE)
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


if __name__ == "__main__":
    main()
