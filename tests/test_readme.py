"""What the README says is what happens."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from btp_reconcile.cli import EXIT_CODES
from btp_reconcile.core import report
from btp_reconcile.core.resolve import VARIABLES
from btp_reconcile.edges.access import CF_VARIABLES, KEY_VARIABLES
from tests.commands import Desk, terminal
from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")
SPECS = sorted((ROOT / "specs").glob("[!_]*.yaml"))


def blocks(language: str = "") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def lines(program: str) -> list[str]:
    """Every line in a block that starts a program, without its comment."""
    every = [line.partition(" #")[0].strip() for block in blocks() for line in block.splitlines()]
    return [line for line in every if line.startswith(f"{program} ")]


def rows(*head: str) -> list[list[str]]:
    """The cells of the table with this head."""
    text = README.partition(f"| {' | '.join(head)}")[2]
    found = [line.strip("|").split("|") for line in text.partition("\n\n")[0].splitlines()[2:]]
    return [[cell.strip() for cell in row] for row in found]


CLAIMED = {
    "reconcile init": 0,
    "reconcile validate specs/prod.yaml": 0,
    "reconcile plan specs/prod.yaml --sandbox": 0,
    "reconcile plan specs/prod.yaml": 0,
    "reconcile apply specs/prod.yaml": 0,
    "reconcile drift specs/prod.yaml": 0,
    "reconcile plan specs/prod.yaml --out plan.json --detailed-exitcode": 0,
    "reconcile show plan.json": 0,
    "reconcile apply plan.json": 0,
}
"""How each line ends when they are run one after the other, with a person who says yes."""


@pytest.fixture
def copy(desk: Desk) -> Desk:
    """A scratch copy of what a user has."""
    shutil.copytree(ROOT / "specs", desk.folder / "specs", dirs_exist_ok=True)
    return desk


def test_every_command_line_does_what_is_claimed(copy: Desk) -> None:
    """In this order. What needs the platform is rehearsed."""
    ended: dict[str, int] = {}
    said: dict[str, str] = {}
    for line in lines("reconcile"):
        _, command, *rest = shlex.split(line)
        needs = (
            command in {"plan", "apply", "drift"} and "--sandbox" not in rest and "plan.json" not in rest[:1]
        )
        with terminal(copy.folder, command, *rest, *["--sandbox"] * needs, env={"NO_COLOR": "1"}) as shell:
            if command == "apply" and rest != ["plan.json"]:
                shell.until("[y/N]")
                shell.type("yes\n")
            ended[line] = shell.end()
        said[line] = shell.shown

    assert ended == CLAIMED
    assert "8 to add" in said["reconcile plan specs/prod.yaml --sandbox"]
    assert "Apply: 8 done." in said["reconcile apply specs/prod.yaml"]
    assert "In sync: 8 checked, no drift." in said["reconcile drift specs/prod.yaml"]
    assert copy.run("validate", "specs/first.yaml").code == 0


def test_the_lines_for_a_pipeline_do_what_is_claimed(copy: Desk) -> None:
    made = copy.run("plan", "specs/prod.yaml", "--sandbox", "--out", "plan.json", "--detailed-exitcode")
    shown = copy.run("show", "plan.json")
    applied = copy.process("apply", "plan.json")
    again = copy.process("apply", "plan.json")

    assert (made.code, shown.code, applied.code, again.code) == (2, 0, 0, 4)
    assert shown.out == made.out


def test_drift_ends_with_2_if_the_platform_differs(copy: Desk) -> None:
    assert copy.run("drift", "specs/prod.yaml", "--sandbox").code == 2


def test_without_a_path_the_folder_specs_is_taken(copy: Desk) -> None:
    assert copy.run("validate").out == copy.run("validate", "specs/").out


def test_apply_asks_on_a_terminal_and_elsewhere_needs_a_word(copy: Desk) -> None:
    assert copy.process("apply", "--sandbox").code == 64
    assert copy.process("apply", "specs/prod.yaml", "--sandbox", "--yes").code == 0
    assert copy.process("apply", "specs/prod.yaml", "--sandbox", env={"CI": "true"}).code == 0


def test_the_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert {line.split()[1] for line in lines("make")} == {"demo", "test"}
    for line in lines("make"):
        assert f"\n{line.split()[1]}: " in makefile


def test_what_is_installed_has_that_name_and_that_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (line,) = lines("pip")

    assert shlex.split(line)[2] == f"{project['name']}[sandbox]"
    assert "sandbox" in project["optional-dependencies"]
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README


# --- tables ---------------------------------------------------------------------------------------------


def test_the_table_of_signs_is_what_the_code_says() -> None:
    told = {action: sign.strip("`") for sign, action, _ in rows("Sign", "Action") if action}

    assert told == {action: sign for action, sign in report.SIGNS.items() if action != "keep"}
    assert [row[0] for row in rows("Sign", "Action") if not row[1]] == ["`!`"]


def without_brackets(text: str) -> str:
    return re.sub(r" \([^)]*\)", "", text)


def test_the_table_of_exit_codes_is_that_of_help() -> None:
    told = [tuple(row) for row in rows("Exit code", "Meaning")]
    helped = re.findall(r"^ +(\d+)  (.*)$", EXIT_CODES, re.MULTILINE)

    assert [code for code, _ in told] == [code for code, _ in helped]
    for (_, meaning), (_, short) in zip(told, helped, strict=True):
        assert without_brackets(meaning).startswith(without_brackets(short))


def test_the_variables_to_sign_in_with_are_those_that_are_read() -> None:
    told = {name for row in rows("For", "In the spec") for name in re.findall(r"`([A-Z_]{5,})`", row[2])}

    assert told == {*KEY_VARIABLES.values(), *CF_VARIABLES.values()} - {"CF_ACCESS_TOKEN"}
    assert {name for names in VARIABLES.values() for name in names} - told == {"CF_ACCESS_TOKEN"}


def test_every_variable_that_is_named_is_read_somewhere() -> None:
    named = set(re.findall(r"\b(?:RECONCILE|CF|BTP)_[A-Z_]+\b", README))
    code = "".join(one.read_text(encoding="utf-8") for one in (ROOT / "btp_reconcile").rglob("*.py"))
    specs = "".join(one.read_text(encoding="utf-8") for one in SPECS)

    assert {name for name in named if f'"{name}"' not in code and f"env:{name}" not in specs} == set()


def test_every_variable_of_this_program_is_in_the_table() -> None:
    told = {row[0].strip("`") for row in rows("Variable", "What it does")}
    code = "".join(one.read_text(encoding="utf-8") for one in (ROOT / "btp_reconcile").rglob("*.py"))

    assert set(re.findall(r'"(RECONCILE_[A-Z_]+)"', code)) <= told
    assert {name for name in told if f'"{name}"' not in code} == set()


def test_every_option_and_command_that_is_named_exists(copy: Desk) -> None:
    helped = "".join(
        copy.run(*line.split(), "--help").out
        for line in ("", "plan", "apply", "drift", "show", "sandbox", "sandbox start", "sandbox reset")
    )

    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert option in helped
    for command in set(re.findall(r"`reconcile ([a-z]+)", README)):
        assert re.search(rf"^  {command} ", helped, re.MULTILINE)


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`([\w./-]+\.(?:md|yaml|py))`", README):
        assert (ROOT / name).is_file()


# --- specs ----------------------------------------------------------------------------------------------


def essence(document: dict[str, Any]) -> dict[str, Any]:
    """A spec without what a second key, or a name that is the file's, adds."""
    one = {key: value for key, value in document.items() if key != "name"}
    subaccounts = {}
    for name, subaccount in one["subaccounts"].items():
        instances = {
            key: {**instance, "keys": list(instance["keys"])[:1]}
            for key, instance in subaccount["instances"].items()
        }
        subaccounts[name] = {**subaccount, "instances": instances}
    return {**one, "subaccounts": subaccounts}


def test_the_spec_in_it_is_the_essence_of_prod(copy: Desk) -> None:
    (text,) = blocks("yaml")
    prod = (ROOT / "specs/prod.yaml").read_text(encoding="utf-8")
    copy.write("readme.yaml", text)

    assert essence(yaml.safe_load(text)) == essence(yaml.safe_load(prod))
    assert copy.run("validate", "readme.yaml").err == ""
    assert copy.run("plan", "readme.yaml", "--sandbox").code == 0


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_every_spec_is_valid_and_applies_and_is_then_in_sync(desk: Desk, path: Path) -> None:
    name = str(path)

    assert desk.run("validate", name).err == ""
    assert desk.run("plan", name, "--sandbox", "--detailed-exitcode").code == 2
    assert desk.run("apply", name, "--sandbox", "--yes").code == 0
    assert desk.run("plan", name, "--sandbox", "--detailed-exitcode").code == 0
    assert desk.run("drift", name, "--sandbox").code == 0


def test_all_specs_together_are_in_sync_after_one_apply(copy: Desk) -> None:
    assert copy.run("apply", "--sandbox", "--yes").code == 0
    assert copy.run("plan", "--sandbox", "--detailed-exitcode").code == 0
