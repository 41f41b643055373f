"""Specs become resources: references filled in, entitlements brought along, credentials only where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core import resolve, validate
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Mark, Problem, Secret
from btp_reconcile.core.resolve import Outside
from btp_reconcile.edges import load
from btp_reconcile.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from btp_reconcile.core.model import Wanted

HEAD = """\
version: 1
owner: team
name: prod
defaults: {runtime: cloudfoundry}
"""
BODY = """\
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: acme, space: apis}
    instances:
      apim:
        api: api-management
        parameters: {role: APIPortal.Guest}
        keys: {k: {}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nothing(path: str, spec_file: str) -> str:
    raise SpecError([Problem("input/file", f"{path} of {spec_file} cannot be read")])


def wanted(
    folder: Path, text: str, environment: Mapping[str, str] | None = None, *, placeholders: bool = False
) -> Wanted:
    (folder / "spec.yaml").write_text(text, encoding="utf-8")
    catalogue = pipeline.shipped_catalogue()
    checked = validate.check(load.documents(["spec.yaml"]), KINDS, catalogue)
    return resolve.resources(checked.specs, catalogue, Outside(environment or {}, nothing, placeholders))


def problems(
    folder: Path, text: str, environment: Mapping[str, str] | None = None
) -> list[tuple[str, str, str]]:
    with pytest.raises(SpecError) as raised:
        wanted(folder, text, environment)
    return [(one.code, str(one.source), one.message) for one in raised.value.problems]


def test_an_instance_brings_its_entitlement_and_everything_stands_in_order(folder: Path) -> None:
    found = wanted(folder, HEAD + BODY)

    assert [(str(one.address), [str(need) for need in one.requires]) for one in found.resources] == [
        ("entitlement:prod/apimanagement-apiportal/apiportal-apiaccess", []),
        ("instance:prod/apim", ["entitlement:prod/apimanagement-apiportal/apiportal-apiaccess"]),
        ("key:prod/apim/k", ["instance:prod/apim"]),
    ]
    assert found.owners == {("team", "prod")}
    assert found.resources[1].mark == Mark("team", "prod", "apim")
    assert found.resources[1].replace_on == ("parameters.role",)


def test_an_explicit_amount_stands_over_an_implied_one(folder: Path) -> None:
    found = wanted(
        folder, HEAD + BODY + "    entitlements: {apimanagement-apiportal: {apiportal-apiaccess: 2}}\n"
    )

    (entitlement,) = found.of("entitlement")
    assert (entitlement.spec["amount"], entitlement.spec["implied"]) == (2, False)


def test_values_from_outside_are_secrets_in_parameters_and_plain_in_places(folder: Path) -> None:
    text = HEAD + BODY.replace("org: acme", 'org: "${env:ORG}-x"').replace("APIPortal.Guest", '"${env:ROLE}"')
    found = wanted(folder, text, {"ORG": "acme", "ROLE": "APIPortal.Guest"})

    foundry = found.subaccounts["prod"].cloud_foundry
    role = found.of("instance")[0].spec["parameters"]["role"]
    assert foundry is not None
    assert foundry.org == "acme-x"
    assert isinstance(role, Secret)
    assert (str(role), role.reveal()) == ("<secret env:ROLE>", "APIPortal.Guest")


def test_a_dollar_that_is_meant_is_written_twice(folder: Path) -> None:
    text = HEAD + BODY.replace("api: api-management", "service: other, plan: p").replace(
        "{role: APIPortal.Guest}", '{text: "$${env:ORG} costs $5"}'
    )
    text = text.replace("service: other, plan: p", "service: other\n        plan: p")

    assert wanted(folder, text).of("instance")[0].spec["parameters"] == {"text": "${env:ORG} costs $5"}


def test_every_missing_value_is_told_once_and_where(folder: Path) -> None:
    text = HEAD + 'access: {cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}}\n'
    text += BODY.replace("org: acme", 'org: "${env:ORG}"').replace("APIPortal.Guest", '"${file:role.txt}"')

    assert problems(folder, text, {"CF_USER": ""}) == [
        ("input/unset-variable", "spec.yaml:5:36", "the environment variable CF_USER is empty"),
        ("input/unset-variable", "spec.yaml:5:64", "the environment variable CF_PASSWORD is not set"),
        ("input/unset-variable", "spec.yaml:10:26", "the environment variable ORG is not set"),
        ("input/file", "spec.yaml:14:28", "role.txt of spec.yaml cannot be read"),
    ]


def test_an_id_from_outside_must_be_one(folder: Path) -> None:
    text = HEAD + BODY.replace("5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10", '"${env:SUBACCOUNT}"')

    assert [one[0] for one in problems(folder, text, {"SUBACCOUNT": "prod"})] == ["input/not-a-guid"]


def test_a_rehearsal_needs_no_value_from_outside_and_reads_no_credentials(folder: Path) -> None:
    text = HEAD + 'access: {cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}}\n'
    text += BODY.replace("5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10", '"${env:SUBACCOUNT}"')
    found = wanted(folder, text, {"CF_PASSWORD": "real"}, placeholders=True)

    assert found.access == {"prod": {"cloud_foundry": {}}}
    assert found.subaccounts["prod"].id == wanted(folder, text, placeholders=True).subaccounts["prod"].id


def test_credentials_of_a_service_that_nothing_needs_are_not_read(folder: Path) -> None:
    text = HEAD + "subaccounts:\n  prod:\n    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10\n    region: eu10\n"
    text += '    access: {cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}}\n'
    text += "    entitlements: {afc-api-service: {standard: true}}\n"

    assert wanted(folder, text).access == {"prod": {}}


def test_nearer_credentials_stand_over_those_for_all(folder: Path) -> None:
    text = HEAD + 'access: {cloud_foundry: {username: "${env:A}", password: "${env:P}"}}\n' + BODY
    text += '    access: {cloud_foundry: {username: "${env:B}", password: "${env:P}"}}\n'
    found = wanted(folder, text, {"A": "for all", "B": "near", "P": "p"})

    assert found.access["prod"]["cloud_foundry"]["username"].reveal() == "near"


@pytest.mark.parametrize(
    ("landscape", "api"),
    [
        ("eu10", "https://api.cf.eu10.hana.ondemand.com"),
        ("eu10-004", "https://api.cf.eu10-004.hana.ondemand.com"),
        ("cn40", "https://api.cf.cn40.platform.sapcloud.cn"),
    ],
)
def test_where_a_landscape_is_asked(landscape: str, api: str) -> None:
    assert resolve.api_of_landscape(landscape) == api
