"""What is published is what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from btp_reconcile.core import catalogue, schema, shape, validate
from btp_reconcile.core.codes import CODES
from btp_reconcile.edges import load
from btp_reconcile.kinds import KINDS

ROOT = Path(__file__).parents[1]
CATALOGUE = catalogue.build(load.catalogue())
SCHEMA = schema.build(KINDS, CATALOGUE)
EDITOR = Draft202012Validator(SCHEMA)

_CODE = re.compile(
    r'"((?:spec|catalogue|input|conflict|safety|entitlement|access|platform|plan|stale|gate)/[a-z-]+)"'
)
_RAISED = re.compile(r'Problem\(\s*"([a-z-]+/[a-z-]+)"|code="([a-z-]+/[a-z-]+)"')


def sources() -> list[Path]:
    package = ROOT / "btp_reconcile"
    return [one for one in package.rglob("*.py") if "sandbox" not in one.parts and one.name != "codes.py"]


# --- the schema -----------------------------------------------------------------------------------------


def test_the_schema_for_editors_is_what_the_code_says() -> None:
    """`make schemas` writes it."""
    assert (ROOT / "schemas/spec.schema.json").read_text(encoding="utf-8") == schema.text(KINDS, CATALOGUE)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("[!_]*.yaml")), ids=lambda path: path.name)
def test_every_example_spec_is_good_for_editor_and_validator(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith("# yaml-language-server: $schema=../schemas/spec.schema.json\n")
    EDITOR.validate(yaml.safe_load(text))
    assert validate.check(load.documents([path]), KINDS, CATALOGUE).warnings == ()


@pytest.mark.parametrize(
    ("kind", "number"), [(kind.name, number) for kind in KINDS for number in range(len(kind.examples))]
)
def test_every_example_of_a_kind_is_good_for_editor_and_validator(
    kind: str, number: int, tmp_path: Path
) -> None:
    text = next(one for one in KINDS if one.name == kind).examples[number]
    (tmp_path / "example.yaml").write_text(text, encoding="utf-8")

    EDITOR.validate(yaml.safe_load(text))
    assert validate.check(load.documents([tmp_path / "example.yaml"]), KINDS, CATALOGUE).warnings == ()


def test_words_of_later_versions_stand_nowhere() -> None:
    published = schema.text(KINDS, CATALOGUE) + "".join(
        one.read_text(encoding="utf-8") for one in (ROOT / "specs").glob("*.yaml")
    )
    later = {word for words in shape.LATER.values() for word in words} - {"destination"}

    assert [word for word in sorted(later) if re.search(rf'["\s]{word}"?:', published)] == []


def wrong(change: dict[str, Any]) -> list[str]:
    """Where an editor finds fault with an instance."""
    instance = {"api": "api-management", "runtime": "other", **change}
    whole = {"version": 1, "owner": "x", "subaccounts": {"a": {"instances": {"i": instance}}}}
    return [
        "/".join(str(part) for part in list(error.absolute_path)[4:]) for error in EDITOR.iter_errors(whole)
    ]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"parameters": {"role": "APIPortal.Guest"}}, []),
        ({"parameters": {"role": "${env:ROLE}"}}, []),
        ({"parameters": {"role": "APIportal.Administrator"}}, ["parameters/role"]),
        ({"parameters": {"roles": []}}, ["parameters"]),
        ({"parameters": None, "keys": {"k": None}}, []),
        ({"api": "afc", "parameters": {"role": "anything"}}, []),
        ({"api": "acf"}, ["api"]),
        ({"keep_old_for": "7 days"}, ["keep_old_for"]),
        ({"runtime": "kyma"}, ["runtime"]),
        ({"keys": {"K": {}}}, ["keys"]),
        (
            {"keys": {"k": {"parameters": {"xsuaa": {"credential-type": "instance-secret"}}}}},
            ["keys/k/parameters/xsuaa"],
        ),
        ({"adopt": True}, []),
        ({"adopt": {"id": "x"}}, []),
        ({"colour": 1}, [""]),
    ],
)
def test_editors_find_what_the_validator_finds(change: dict[str, Any], where: list[str]) -> None:
    assert wrong(change) == where


def test_an_own_catalogue_may_know_only_some_things() -> None:
    bare = catalogue.Api("bare", "Bare", "s", "p")
    keys = catalogue.Api("keys", "Keys", "s", "q", key_parameters={"properties": {"any": True}})
    rules = schema.build(KINDS, catalogue.Catalogue((bare, keys)))["$defs"]["instance"]["allOf"]

    assert [rule["if"]["properties"]["api"]["const"] for rule in rules] == ["keys"]
    assert list(rules[0]["then"]["properties"]) == ["keys"]


def test_roles_are_offered_for_completion() -> None:
    rules = json.dumps(SCHEMA["$defs"]["instance"]["allOf"])

    for api in CATALOGUE.apis:
        for role in api.parameters.get("properties", {}).get("role", {}).get("enum", []):
            assert f'"{role}"' in rules


# --- codes ----------------------------------------------------------------------------------------------


def test_every_code_is_explained() -> None:
    used = {code for path in sources() for code in _CODE.findall(path.read_text(encoding="utf-8"))}
    raised = {
        one or other for path in sources() for one, other in _RAISED.findall(path.read_text(encoding="utf-8"))
    }

    assert sorted((used | raised) - set(CODES)) == []


def test_every_explained_code_is_used() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sources())

    assert [code for code in CODES if f'"{code}"' not in text] == []
