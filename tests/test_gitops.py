"""A whole GitOps story with a bare repository: branch, plan for review, merge, apply of what was approved, drift, mended.

Everything here is a process of its own, as a pipeline would start it; the platform is the sandbox.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from btp_reconcile.sandbox import InProcessAdapter, Sandbox

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """\
version: 1
owner: finance
name: prod
access:
  central: {service_key: "${env:BTP_CIS_CENTRAL_KEY}"}
  cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
      apim:
        api: api-management
        parameters: {role: APIPortal.Administrator}
        keys:
          transport: {}
"""
MORE = "          pipeline: {}\n"


@dataclass(frozen=True)
class Story:
    """A bare repository, a checkout of it, and the platform."""

    folder: Path

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    @property
    def state(self) -> Path:
        return self.folder / "sandbox.json"

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.invalid"]
        ended = subprocess.run(
            ["git", *who, *arguments], cwd=self.checkout, capture_output=True, text=True, check=True
        )
        return ended.stdout

    def reconcile(self, *arguments: str, expected: int = 0) -> str:
        """One step of a pipeline: what it says on stdout, if it ends as it should."""
        inside = {**os.environ, "RECONCILE_SANDBOX": str(self.state), "CI": "true"}
        ended = subprocess.run(
            [sys.executable, "-m", "btp_reconcile", *arguments],
            cwd=self.checkout,
            env=inside,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (arguments, ended.returncode, ended.stderr[-500:] if ended.returncode != expected else "") == (
            arguments,
            expected,
            "",
        )
        return ended.stdout

    def commit(self, text: str, message: str) -> None:
        (self.checkout / "specs").mkdir(exist_ok=True)
        (self.checkout / "specs" / "prod.yaml").write_text(text, encoding="utf-8")
        self.git("add", "specs")
        self.git("commit", "--quiet", "-m", message)

    def by_hand(self) -> None:
        """Somebody deletes the key `transport` with the cf command line client."""
        sandbox = Sandbox(self.state)
        session = requests.Session()
        session.mount("https://", InProcessAdapter(sandbox))
        (foundry,) = sandbox.access()["cloud_foundry"].values()
        api = foundry["api"]
        uaa = session.get(api).json()["links"]["uaa"]["href"]
        form = {
            "grant_type": "password",
            "username": foundry["username"],
            "password": foundry["password"],
        }
        token = session.post(f"{uaa}/oauth/token", data=form, auth=("cf", "")).json()["access_token"]
        session.headers["Authorization"] = f"bearer {token}"
        keys = session.get(f"{api}/v3/service_credential_bindings", params={"names": "transport"}).json()
        (key,) = keys["resources"]
        deleted = session.delete(f"{api}/v3/service_credential_bindings/{key['guid']}")
        while session.get(deleted.headers["Location"]).json()["state"] not in {"COMPLETE", "FAILED"}:
            pass  # each look moves the sandbox on


def begun(folder: Path) -> Story:
    story = Story(folder)
    bare = folder / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(
        ["git", "clone", "--quiet", str(bare), str(story.checkout)], check=True, capture_output=True
    )
    story.git("checkout", "--quiet", "-B", "main")
    return story


def test_the_story_of_a_change_from_its_branch_to_the_platform_and_of_drift_until_it_is_mended(
    tmp_path: Path,
) -> None:
    story = begun(tmp_path)
    story.commit(SPEC, "API Management for content transport")
    story.git("push", "--quiet", "origin", "main")
    story.reconcile("apply", "specs", "--sandbox", "--yes")

    # a pull request: the plan is its comment, and is kept for whoever merges
    story.git("checkout", "--quiet", "-b", "pipeline-key")
    story.commit(SPEC + MORE, "A key for the pipeline")
    story.git("push", "--quiet", "origin", "pipeline-key")
    comment = story.reconcile("plan", "specs", "--sandbox", "--format", "markdown", "--out", "../plan.json")
    assert comment.startswith("<!-- btp-reconcile:plan")
    assert "key:prod/apim/pipeline" in comment
    assert len(comment.encode()) < 65_000
    again = story.reconcile("show", "../plan.json", "--format", "markdown")
    assert again.splitlines()[0] == comment.splitlines()[0]

    # merged: exactly what was approved is applied, once
    story.git("checkout", "--quiet", "main")
    story.git("merge", "--quiet", "--no-ff", "-m", "Merge pipeline-key", "pipeline-key")
    story.git("push", "--quiet", "origin", "main")
    assert "1 step done" in story.reconcile("apply", "../plan.json")
    story.reconcile("apply", "../plan.json", expected=4)

    # the scheduled check finds what was done by hand, in every format
    assert "In sync" in story.reconcile("drift", "specs", "--sandbox")
    story.by_hand()
    metrics = tmp_path / "reconcile.prom"
    found = json.loads(
        story.reconcile(
            "drift", "specs", "--sandbox", "--format", "json", "--metrics", str(metrics), expected=2
        )
    )
    drifted = [one["address"] for one in found["changes"] if one["drifted"]]
    assert drifted == ["key:prod/apim/transport"]
    told = {
        kind: story.reconcile("drift", "specs", "--sandbox", "--format", kind, expected=2)
        for kind in ("text", "markdown", "html", "junit", "sarif")
    }
    assert {kind: "key:prod/apim/transport" in text for kind, text in told.items()} == dict.fromkeys(
        told, True
    )
    assert len(ET.fromstring(told["junit"]).findall(".//failure")) == 1
    assert len(json.loads(told["sarif"])["runs"][0]["results"]) == 1
    assert told["html"].startswith("<!doctype html>")
    (counted,) = (
        line
        for line in metrics.read_text(encoding="utf-8").splitlines()
        if line.startswith("reconcile_drifted{") and 'kind="key"' in line
    )
    assert counted.endswith("} 1")

    # known drift is accepted by name until somebody mends it
    story.reconcile("drift", "specs", "--sandbox", "--write-baseline", "../baseline.json")
    story.reconcile("drift", "specs", "--sandbox", "--baseline", "../baseline.json")

    story.reconcile("apply", "specs", "--sandbox", "--yes")
    assert "In sync" in story.reconcile("drift", "specs", "--sandbox")
