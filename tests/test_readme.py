"""What the README says is what happens."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from btp_reconcile import pipeline
from btp_reconcile.cli import EXIT_CODES
from btp_reconcile.core import report
from btp_reconcile.core.resolve import VARIABLES
from btp_reconcile.edges.access import CF_VARIABLES, KEY_VARIABLES
from btp_reconcile.sinks import SINKS
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
    "reconcile apply specs/prod.yaml --verify": 0,
    "reconcile drift specs/prod.yaml": 0,
    "reconcile verify specs/prod.yaml": 0,
    "reconcile keys specs/prod.yaml": 0,
    "reconcile rotate --due specs/prod.yaml": 0,
    "reconcile rotate key:prod/apim/transport specs/prod.yaml": 0,
    "reconcile plan specs/prod.yaml --out plan.json --detailed-exitcode": 0,
    "reconcile show plan.json": 0,
    "reconcile apply plan.json": 0,
}
"""How each line ends when they are run one after the other, with a person who says yes."""
REHEARSED = {"plan", "apply", "drift", "verify", "keys", "rotate"}
"""Commands that need the platform."""


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
        needs = command in REHEARSED and "--sandbox" not in rest and "plan.json" not in rest[:1]
        with terminal(copy.folder, command, *rest, *["--sandbox"] * needs, env={"NO_COLOR": "1"}) as shell:
            if command in {"apply", "rotate"} and "--due" not in rest and rest != ["plan.json"]:
                shell.until("[y/N]")
                shell.type("yes\n")
            ended[line] = shell.end()
        said[line] = shell.shown

    assert ended == CLAIMED
    assert "9 to add" in said["reconcile plan specs/prod.yaml --sandbox"]
    assert "Apply: 10 steps done." in said["reconcile apply specs/prod.yaml --verify"]
    assert "Verify: 4 ok." in said["reconcile apply specs/prod.yaml --verify"]
    assert "In sync: 9 checked, no drift." in said["reconcile drift specs/prod.yaml"]
    assert "Verify: 4 ok." in said["reconcile verify specs/prod.yaml"]
    assert "destination:prod/APIManagement: " in said["reconcile keys specs/prod.yaml"]
    assert (
        "⟳ key:prod/apim/transport (generation 2)"
        in said["reconcile rotate key:prod/apim/transport specs/prod.yaml"]
    )
    assert said["reconcile rotate --due specs/prod.yaml"] == "Nothing is due: 4 keys.\r\n"
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
        for line in ("", *REHEARSED, "show", "sandbox", "sandbox start", "sandbox reset")
    )

    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert option in helped
    for command in set(re.findall(r"`reconcile ([a-z]+)", README)):
        assert re.search(rf"^  {command} ", helped, re.MULTILINE)


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`([\w./-]+\.(?:md|yaml|py))`", README):
        assert (ROOT / name).is_file()


def test_the_table_of_sinks_is_what_the_code_has() -> None:
    told = {row[0].strip("`"): row for row in rows("Sink", "Delivers to")}
    served = {one.stem for one in (ROOT / "tests/sinks/servers").glob("*.py")}

    assert list(told) == sorted(
        told, key=["file", "vault", "command", "kubernetes", "github", "gitlab"].index
    )
    assert set(told) == {sink.name for sink in SINKS}
    for sink in SINKS:
        _, _, needs, tested = told[sink.name]
        assert re.findall(r"btp-reconcile\[(\w+)\]", needs) == ([sink.extra] if sink.extra else [])
        assert (f"`access.{sink.name}`" in needs) == (sink.access is not None)
        assert (f"`tests/sinks/servers/{sink.name}.py`" in tested) == (sink.name in served)


def test_the_table_of_recipes_is_that_of_the_catalogue() -> None:
    told = {row[0].strip("`"): row[1:] for row in rows("Recipe", "Destination")}
    known = {one.name: one for one in pipeline.shipped_catalogue().recipes}

    assert set(told) == set(known)
    for name, (destination, services) in told.items():
        fixed = known[name].destination
        assert destination == (f"`{fixed}`, a fixed name" if fixed else "a name of your choice")
        assert services == ", ".join(f"`{one}`" for one in known[name].services)


# --- keys, secrets and rehearsals -----------------------------------------------------------------------

KEY = "key:prod/apim/transport"


def generations(copy: Desk, spec: str) -> list[tuple[int, str, str]]:
    """Of the key: number, state, and from when on it may be deleted."""
    found = json.loads(copy.run("keys", spec, "--sandbox", "--target", KEY, "--format", "json").out)["keys"]
    return [(one["generation"], one["state"], one.get("retire_after", "")[:10]) for one in found]


def test_a_rotation_goes_on_where_a_failed_delivery_left_it(copy: Desk) -> None:
    """No third key, no date for the old one, however long it takes; then all of it in order."""
    (copy.folder / "here").mkdir()
    deliver = {"main": {"file": {"path": "here/key.json"}}}
    keys = {"transport": {"rotate_after": "60d", "keep_old_for": "5d", "deliver": deliver}}
    spec = copy.write("readme.yaml", json.dumps(whole(keys=keys)))
    really = ("--sandbox", "--sandbox-deliver", "file")
    assert copy.run("apply", spec, "--yes", *really).code == 0
    (copy.folder / "here").rename(copy.folder / "gone")

    failed = copy.run("rotate", KEY, spec, "--yes", *really)
    after = generations(copy, spec)
    copy.run("sandbox", "advance", "90d")
    again = copy.run("rotate", "--due", spec, "--yes", *really)
    later = generations(copy, spec)
    (copy.folder / "gone").rename(copy.folder / "here")
    mended = copy.run("rotate", "--due", spec, "--yes", *really)

    assert (failed.code, again.code, mended.code) == (1, 1, 0)
    assert after == later == [(1, "superseded", ""), (2, "current", "")]
    assert [one[:2] for one in generations(copy, spec)] == [(1, "superseded"), (2, "current")]
    assert generations(copy, spec)[0][2] > "2026-04"
    copy.run("sandbox", "advance", "6d")
    assert copy.run("apply", spec, "--yes", *really).code == 0
    assert 1 not in [number for number, _, _ in generations(copy, spec)]


def test_credentials_are_read_by_what_needs_them_and_by_nothing_else(in_sync: Desk) -> None:
    """A platform that gives no credentials away stops only who asks for them."""
    broken = ("status", "--status", "500", "--host", "*", "--path", "/details")
    assert in_sync.run("sandbox", "faults", "add", *broken).code == 0

    ended = {one: in_sync.run(one, "--sandbox").code for one in ("plan", "drift", "keys", "verify")}
    rotated = in_sync.run("rotate", KEY, "--sandbox", "--yes")

    assert ended == {"plan": 0, "drift": 0, "keys": 0, "verify": 1}
    assert rotated.code == 1


def test_another_role_is_refused_before_anything_is_made(copy: Desk) -> None:
    text = (copy.folder / "specs/prod.yaml").read_text(encoding="utf-8")
    copy.write("guest.yaml", text.replace("APIPortal.Administrator", "APIPortal.Guest"))

    refused = copy.run("apply", "guest.yaml", "--sandbox", "--yes")

    assert refused.code == 3
    assert "[spec/recipe-parameter]" in refused.err
    assert copy.sandbox().snapshot()["subaccounts"] == {}


def test_a_literal_in_the_place_of_a_secret_is_refused(copy: Desk) -> None:
    text = (copy.folder / "specs/prod.yaml").read_text(encoding="utf-8")
    copy.write("literal.yaml", text.replace("${env:CF_PASSWORD}", "hunter2-hunter2"))

    refused = copy.run("validate", "literal.yaml")

    assert refused.code == 3
    assert "hunter2" not in refused.out + refused.err


@pytest.mark.parametrize(
    ("sink", "block", "said"),
    [
        ("command", {"run": ["cat"]}, "--allow-commands"),
        ("vault", {"path": "secret/x"}, "--allow-host"),
        ("github", {"repository": "finance/closing", "secret": "APIM"}, "--allow-host"),
        ("gitlab", {"project": "finance/closing", "variable": "APIM"}, "--allow-host"),
    ],
)
def test_new_hosts_and_programs_need_a_word_on_the_command_line(
    copy: Desk, monkeypatch: pytest.MonkeyPatch, sink: str, block: dict[str, Any], said: str
) -> None:
    for name in ("VAULT_TOKEN", "GITHUB_TOKEN", "GITLAB_TOKEN"):
        monkeypatch.setenv(name, "a-token-of-nobody")
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example.com:8200")
    keys = {"transport": {"deliver": {"main": {sink: block}}}}
    spec = copy.write("readme.yaml", json.dumps(whole(keys=keys)))

    ended = copy.run("apply", spec, "--sandbox", "--yes", "--sandbox-deliver", sink)

    assert ended.code == 1
    assert said in ended.out
    assert copy.run("apply", spec, "--sandbox", "--yes").code == 0  # a rehearsal records it


def test_a_rehearsal_keeps_files_beside_the_state_of_the_sandbox(copy: Desk) -> None:
    before = {one.name for one in copy.folder.iterdir()}
    spec = "specs/transport.yaml"

    assert copy.run("apply", spec, "--sandbox", "--yes").code == 0
    made = list(copy.folder.rglob("apim-transport.json"))
    assert {one.name.partition(".json")[0] for one in copy.folder.iterdir()} - before == {"world"}
    assert len(made) == 1
    assert (copy.folder / "world.json.files") in made[0].parents


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


def snippets() -> list[Any]:
    """The first is a whole spec, the others are parts of one."""
    return [yaml.safe_load(text) for text in blocks("yaml")]


def whole(**parts: Any) -> dict[str, Any]:
    """The spec of the README with other keys of `apim`, or other destinations."""
    found: dict[str, Any] = snippets()[0]
    place = found["subaccounts"]["prod"]
    place["instances"]["apim"]["keys"] = parts.get("keys", place["instances"]["apim"]["keys"])
    place["destinations"] = parts.get("destinations", place["destinations"])
    return found


def test_the_spec_in_it_is_the_essence_of_prod(copy: Desk) -> None:
    prod = (ROOT / "specs/prod.yaml").read_text(encoding="utf-8")
    copy.write("readme.yaml", blocks("yaml")[0])

    assert essence(snippets()[0]) == essence(yaml.safe_load(prod))
    assert copy.run("validate", "readme.yaml").err == ""
    assert copy.run("plan", "readme.yaml", "--sandbox").code == 0


def test_each_part_of_a_spec_in_it_applies_and_is_then_in_sync(copy: Desk) -> None:
    parts = snippets()[1:]

    assert [list(part) for part in parts] == [["keys"], ["destinations"]]
    for part in parts:
        name = copy.write("readme.yaml", json.dumps(whole(**part)))
        assert copy.run("validate", name).err == ""
        assert copy.run("apply", name, "--sandbox", "--yes", "--verify").code == 0
        assert copy.run("plan", name, "--sandbox", "--detailed-exitcode").code == 0


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
