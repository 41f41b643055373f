"""The whole chain in one run, with a real OpenBao: entitlement, instance, key, proof, Vault, file, destination; then drift in each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from btp_reconcile.core.model import Action, Address
from btp_reconcile.sandbox import InProcessAdapter
from tests.sinks.bao import ROOT_TOKEN, served
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.sinks.bao import Bao

GUID = "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10"
SPEC = """\
version: 1
owner: finance
name: chain
access:
  central: {service_key: "${env:A}"}
  cloud_foundry: {username: u, password: "${env:C}"}
  vault: {address: "${env:VAULT}", token: "${env:VAULT_ROOT}", ca_file: CA}
  destination: {service_key: "${env:D}"}
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: GUID
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
      apim:
        api: api-management
        parameters: {role: APIPortal.Administrator}
        keys:
          transport:
            keep_old_for: 2d
            deliver:
              safe: {vault: {path: secret/apim/transport}}
              disk: {file: {path: key.json}}
    destinations:
      APIManagement: {recipe: api-management-transport, key: apim/transport, ignore: [Description]}
"""
KEY = "key:prod/apim/transport"
SAFE = "delivery:prod/apim/transport/safe"
DISK = "delivery:prod/apim/transport/disk"
DESTINATION = "destination:prod/APIManagement"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with served(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path, bao: Bao) -> Bench:
    found = Bench(tmp_path)
    found.environment |= {"VAULT": bao.address, "VAULT_ROOT": ROOT_TOKEN}
    found.write(SPEC.replace("GUID", GUID).replace("CA}", f"{bao.ca_file}}}"))
    return found


def planned(bench: Bench) -> dict[str, Action]:
    plan = bench.plan(str(bench.folder / "spec.yaml")).plan
    assert (plan.objections, plan.unseen) == ((), ())
    return {str(one.address): one.action for one in plan.changes if one.action is not Action.KEEP}


def applied(bench: Bench, **options: Any) -> list[str]:
    reports = bench.apply(str(bench.folder / "spec.yaml"), **options)
    left = [(str(one.step.id), one.error) for one in reports[-1].outcomes if one.status != "done"]
    assert left == []
    return [str(one.step.id).partition("#")[0] for one in reports[-1].outcomes]


def destinations(bench: Bench) -> tuple[requests.Session, str]:
    """A person at the Destination service."""
    key = bench.sandbox.access()["destination"][GUID]
    session = requests.Session()
    session.mount("https://", InProcessAdapter(bench.sandbox))
    who = {"client_id": key["clientid"], "client_secret": key["clientsecret"]}
    form = {"grant_type": "client_credentials", **who}
    token = session.post(f"{key['url']}/oauth/token", data=form).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    return session, f"{key['uri']}/destination-configuration/v1"


def works(bench: Bench) -> bool:
    """Does the destination get a token with what it holds?"""
    session, base = destinations(bench)
    (token,) = session.get(f"{base}/destinations/APIManagement").json()["authTokens"]
    return bool(token["value"]) and not token.get("error")


def test_one_run_carries_the_key_to_everybody_and_what_is_changed_there_is_mended(
    bench: Bench, bao: Bao
) -> None:
    steps = applied(bench)
    assert steps.index(f"create {KEY}") < steps.index(f"verify {KEY}") < steps.index(f"create {SAFE}")
    assert planned(bench) == {}
    held = bao.data("apim/transport")
    assert held == json.loads((bench.folder / "key.json").read_text(encoding="utf-8"))
    assert works(bench)

    # the version in Vault is deleted
    bao.ask("DELETE", "secret/data/apim/transport")
    assert planned(bench) == {SAFE: Action.CREATE}
    applied(bench)
    assert bao.data("apim/transport") == held

    # somebody writes another secret there
    bao.ask("POST", "secret/data/apim/transport", {"data": {**held, "clientSecret": "another"}})
    assert planned(bench) == {SAFE: Action.UPDATE}
    applied(bench)
    assert bao.data("apim/transport") == held

    # a secret and a property of the destination are changed; its description is left to others
    session, base = destinations(bench)
    there = session.get(f"{base}/subaccountDestinations/APIManagement").json()
    changed = {**there, "clientSecret": "another", "URL": "https://elsewhere.invalid", "Description": "ours"}
    session.put(f"{base}/subaccountDestinations", json=changed).raise_for_status()
    fields = next(
        one.fields
        for one in bench.plan(str(bench.folder / "spec.yaml")).plan.changes
        if str(one.address) == DESTINATION
    )
    assert {one.path for one in fields if one.changes} == {"URL", "clientSecret"}
    assert not works(bench)
    applied(bench)
    assert works(bench)
    after = session.get(f"{base}/subaccountDestinations/APIManagement").json()
    assert (after["URL"], after["clientSecret"], after["Description"]) == (
        there["URL"],
        there["clientSecret"],
        "ours",
    )
    assert planned(bench) == {}

    # everybody moves to the next generation together, and the old key goes two days later
    again = frozenset({Address.parse(KEY)})
    assert sorted(applied(bench, reapply=again)) == sorted(
        [
            f"create {KEY}",
            f"verify {KEY}",
            f"update {SAFE}",
            f"update {DISK}",
            f"update {DESTINATION}",
            f"date {KEY}",
        ]
    )
    assert bao.data("apim/transport")["clientSecret"] != held["clientSecret"]
    assert works(bench)
    bench.advance(2.1 * 86400)
    assert applied(bench) == [f"delete {KEY}"]
    assert works(bench)
    assert planned(bench) == {}
