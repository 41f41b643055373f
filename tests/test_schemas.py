"""What is printed as JSON is what its published schema says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from btp_reconcile.cli import SCHEMAS
from btp_reconcile.core import published
from tests.worlds import ROOT

if TYPE_CHECKING:
    from tests.commands import Desk

NAMES = sorted(published.PUBLISHED)


def check(name: str, data: Any) -> dict[str, Any]:
    Draft202012Validator(published.schema(name), format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        data
    )
    found: dict[str, Any] = data
    return found


def printed(desk: Desk, name: str, code: int, *arguments: str) -> dict[str, Any]:
    ended = desk.run(*arguments)
    assert ended.code == code, ended.err
    return check(name, json.loads(ended.out))


@pytest.mark.parametrize("name", NAMES)
def test_the_published_file_is_what_the_code_says(name: str) -> None:
    """`make schemas` writes it."""
    assert (ROOT / f"schemas/{name}.schema.json").read_text(encoding="utf-8") == published.text(name)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(published.schema(name))


def test_every_schema_has_a_file_a_command_and_a_line_in_the_makefile() -> None:
    files = {one.name.removesuffix(".schema.json") for one in (ROOT / "schemas").iterdir()}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert sorted(SCHEMAS) == sorted(files) == sorted([*NAMES, "spec"])
    assert f"for name in {' '.join(SCHEMAS)}; do" in makefile


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_command_prints_the_published_file(desk: Desk, name: str) -> None:
    ended = desk.run("schema", name)

    assert (ended.code, ended.out) == (0, (ROOT / f"schemas/{name}.schema.json").read_text(encoding="utf-8"))


def test_the_specs_schema_is_printed_when_none_is_named(desk: Desk) -> None:
    assert desk.run("schema").out == desk.run("schema", "spec").out


def everything_in(shape: Any, path: str = "") -> list[str]:
    """Where a schema lets in what it does not name."""
    found = []
    if isinstance(shape, dict):
        if shape.get("type") == "object" and "additionalProperties" not in shape and "properties" in shape:
            found.append(path)
        for key, item in shape.items():
            found += everything_in(item, f"{path}/{key}")
    elif isinstance(shape, list):
        for number, item in enumerate(shape):
            found += everything_in(item, f"{path}/{number}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_is_closed(name: str) -> None:
    assert everything_in(published.schema(name)) == []


def test_what_the_commands_print_is_valid(desk: Desk) -> None:
    """One landscape from nothing to in sync, tried out, and drifted."""
    printed(desk, "validation", 0, "validate", "--format", "json")
    printed(desk, "plan", 0, "plan", "--sandbox", "--format", "json", "--out", "plan.json")
    check("plan", json.loads((desk.folder / "plan.json").read_text(encoding="utf-8")))
    printed(desk, "keys", 0, "keys", "--sandbox", "--format", "json")
    applied = printed(desk, "apply", 0, "apply", "--sandbox", "--yes", "--verify", "--format", "json")
    assert [check("report", one)["summary"]["failed"] for one in applied["reports"]] == [0]
    check("verify", applied["verify"])
    printed(desk, "verify", 0, "verify", "--sandbox", "--format", "json")
    keys = printed(desk, "keys", 0, "keys", "--sandbox", "--format", "json")
    assert {one["state"] for one in keys["keys"]} == {"current"}
    shown = printed(
        desk, "plan", 0, "drift", "--sandbox", "--format", "json", "--write-baseline", "known.json"
    )
    assert shown["kind"] == "drift"
    assert [one["name"] for one in shown["keys"]] == [one["name"] for one in keys["keys"]]
    check("baseline", json.loads((desk.folder / "known.json").read_text(encoding="utf-8")))


def test_what_is_printed_of_wrong_specs_is_valid(desk: Desk) -> None:
    desk.write("x.yaml", "version: 1\nowner: x\ncolour: red\n")

    printed(desk, "validation", 3, "validate", "x.yaml", "--format", "json")
    printed(desk, "problems", 3, "plan", "x.yaml", "--sandbox", "--format", "json")
    printed(desk, "problems", 3, "drift", "x.yaml", "--sandbox", "--format", "json")


def test_the_plans_of_shards_and_their_sum_are_valid(desk: Desk) -> None:
    for part in ("1/2", "2/2"):
        file = f"plan-{part[0]}.json"
        printed(desk, "plan", 0, "plan", "--sandbox", "--shard", part, "--format", "json", "--out", file)
    merged = printed(desk, "plan", 0, "report", "merge", "plan-1.json", "plan-2.json", "--format", "json")

    assert merged["merged"]["of"] == 2
