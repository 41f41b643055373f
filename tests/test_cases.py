"""Folders become tests: what stands in a folder goes in, what is said must be what its text files say.

`tests/cases/messages/NAME/` holds specs (and `_` files they use); `problems.txt` or `warnings.txt` what is said of
them. `tests/cases/plans/NAME/` holds specs and the world they meet (`plan_cases.py` says how); `plan.txt` what would
be done, as people read it, and the exit code. `RECONCILE_ACCEPT=1` (`make accept`) rewrites the texts: read that diff as carefully as code.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from btp_reconcile.core import catalogue, problems, report, validate
from btp_reconcile.core.errors import SpecError
from btp_reconcile.edges import load
from btp_reconcile.kinds import KINDS
from btp_reconcile.sinks import SINKS
from tests import plan_cases

CASES = Path(__file__).parent / "cases"


def folders(kind: str) -> list[str]:
    """The names of all cases of one kind."""
    return sorted(one.name for one in (CASES / kind).iterdir() if one.is_dir())


def agrees(expected: Path, actual: str) -> None:
    """The text is what the file says; or the file is rewritten, when that was asked for."""
    if os.environ.get("RECONCILE_ACCEPT") == "1":
        if actual:
            expected.write_text(actual, encoding="utf-8")
        elif expected.exists():
            expected.unlink()
    said = expected.read_text(encoding="utf-8") if expected.exists() else ""

    assert said == actual


def said_of(paths: list[str]) -> tuple[str, str]:
    """(problems, warnings) of these specs, as people read them."""
    try:
        documents = load.documents(paths)
        known = catalogue.build(load.catalogue(load.own_catalogues(documents)))
        checked = validate.check(documents, KINDS, known, SINKS)
    except SpecError as error:
        return problems.text(error.problems), ""
    return "", problems.text(checked.warnings)


@pytest.mark.parametrize("name", folders("messages"))
def test_what_is_said_of_a_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CASES / "messages" / name
    monkeypatch.chdir(folder)

    wrong, suspicious = said_of(["."])

    assert wrong or suspicious, "a case of messages has something to say"
    agrees(folder / "problems.txt", wrong)
    agrees(folder / "warnings.txt", suspicious)


@pytest.mark.parametrize("name", folders("plans"))
def test_what_is_planned(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = CASES / "plans" / name
    monkeypatch.chdir(folder)

    agrees(folder / "plan.txt", plan_cases.said(folder, tmp_path))


@pytest.mark.parametrize("name", folders("plans"))
def test_what_is_planned_is_what_apply_does(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = CASES / "plans" / name
    monkeypatch.chdir(folder)

    assert plan_cases.left_undone(folder, tmp_path) == []


def test_the_cases_show_every_sign_and_every_way_to_know_a_field() -> None:
    plans = "\n".join(one.read_text(encoding="utf-8") for one in CASES.glob("plans/*/plan.txt"))

    missing = [sign for sign in (*report.SIGNS.values(), "!") if f"\n  {sign} " not in plans]
    assert missing == []
    assert all(one in plans for one in ("(assumed, ", "cannot be seen", "tags: ["))
    assert {f"exit {code}" for code in (0, 1, 2, 4, 5, 6)} <= set(plans.splitlines())


def test_the_cases_show_every_role_of_the_catalogue() -> None:
    plans = "\n".join(one.read_text(encoding="utf-8") for one in CASES.glob("plans/*/plan.txt"))
    known = catalogue.build(load.catalogue())
    roles = {
        role
        for api in known.apis
        for role in api.parameters.get("properties", {}).get("role", {}).get("enum", [])
    }

    assert roles
    assert sorted(role for role in roles if f"parameters.role: {role}\n" not in plans) == []
