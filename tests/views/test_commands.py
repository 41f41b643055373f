"""The views as people ask for them, and that every plan there is can be shown in each."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from btp_reconcile.core import report
from btp_reconcile.core.errors import SpecError
from btp_reconcile.views import graph, html, markdown
from tests import plan_cases
from tests.commands import PROGRAM, Desk
from tests.test_cases import CASES, folders

MARKER = "<!-- btp-reconcile:plan finance-platform/prod -->\n"


@pytest.fixture
def saved(desk: Desk) -> Desk:
    """A desk with a saved plan."""
    assert desk.run("plan", "--sandbox", "--out", "plan.json").code == 0
    return desk


def test_a_plan_and_the_saved_plan_are_shown_alike(desk: Desk) -> None:
    shown = {}
    for one in ("text", "markdown", "html"):
        made = desk.run("plan", "--sandbox", "--out", "plan.json", "--format", one)
        again = desk.run("show", "plan.json", "--format", one)
        shown[one] = made.out

        assert (made.code, made.err, again.code, again.err) == (0, "", 0, "")
        assert again.out == made.out
    assert shown["markdown"].startswith(MARKER + "\n### Plan: 9 to add, 0 to change, 0 to destroy.\n")
    assert shown["html"].startswith('<!doctype html>\n<html lang="en">')
    assert shown["html"].endswith("</html>\n")


def test_drift_has_the_same_views(desk: Desk) -> None:
    as_markdown = desk.run("drift", "--sandbox", "--format", "markdown")
    as_html = desk.run("drift", "--sandbox", "--format", "html")

    assert (as_markdown.code, as_html.code) == (2, 2)
    assert as_markdown.out.startswith(
        "<!-- btp-reconcile:drift finance-platform/prod -->\n\n### Drift: 9 of 9 differ."
    )
    assert "<h1>Drift: finance-platform/prod</h1>" in as_html.out


def test_applying_is_told_as_a_comment(desk: Desk) -> None:
    ended = desk.run("apply", "--sandbox", "--yes", "--verify", "--format", "markdown")

    assert ended.code == 0
    assert ended.out.startswith("<!-- btp-reconcile:apply finance-platform/prod -->\n\n### Apply: ")
    assert "<summary>Keys tried</summary>" in ended.out
    assert "\n+ instance:prod/apim\n" in ended.out


def test_a_comment_has_the_size_that_is_asked_for(saved: Desk) -> None:
    small = saved.run("show", "plan.json", "--format", "markdown", "--max-size", "2000").out

    assert len(small.encode()) <= 2_000
    assert "      (more than a comment holds)\n" in small


@pytest.mark.parametrize(
    "line",
    [
        "plan --sandbox --max-size 5000",
        "plan --sandbox --format html --max-size 5000",
        "plan --sandbox --format markdown --max-size 10",
        "show specs/prod.yaml --format html",
        "show specs/prod.yaml --format markdown",
        "graph --format png",
        "graph nothing.json",
        "completion tcsh",
    ],
)
def test_what_cannot_be_shown_is_wrong_usage(desk: Desk, line: str) -> None:
    ended = desk.run(*line.split())

    assert (ended.code, ended.out) == (64, "")
    assert "Error: " in ended.err


def test_pages_are_utf_8_whatever_the_locale(desk: Desk) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [*PROGRAM, "plan", "--sandbox", "--format", "html"],
        cwd=desk.folder,
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert "· digest" in ended.stdout.decode()


# --- graph ----------------------------------------------------------------------------------------------


def test_specs_are_drawn_without_any_account_or_value_from_outside(desk: Desk) -> None:
    drawn = {one: desk.run("graph", "--format", one) for one in ("mermaid", "dot", "svg")}

    assert [(one.code, one.err) for one in drawn.values()] == [(0, "")] * 3
    assert drawn["mermaid"].out == desk.run("graph", "specs/prod.yaml").out
    assert drawn["mermaid"].out.startswith("flowchart LR\n")
    assert drawn["dot"].out.startswith("digraph reconcile {\n")
    assert ET.fromstring(drawn["svg"].out).tag == "{http://www.w3.org/2000/svg}svg"
    assert not desk.state.exists()


def test_a_saved_plan_is_drawn_with_what_happens(saved: Desk) -> None:
    assert "#43; create instance<br/>apim" in saved.run("graph", "plan.json").out
    assert "<br/>apim" in saved.run("graph").out
    assert "create" not in saved.run("graph").out


def test_a_graph_that_mermaid_does_not_draw_whole_says_so(desk: Desk) -> None:
    keys = "".join(f"          k{number}: {{}}\n" for number in range(600))
    text = Path("specs/prod.yaml").read_text(encoding="utf-8")
    assert "          transport: {}\n" in text
    desk.write(
        "specs/prod.yaml", text.replace("          transport: {}\n", "          transport: {}\n" + keys)
    )
    drawn = desk.run("graph")

    assert drawn.code == 0
    assert drawn.out.count("-->") > graph.MERMAID_EDGES
    assert "at most 500 are shown" in drawn.err
    assert desk.run("graph", "--format", "svg").err == ""


def test_a_spec_that_is_wrong_is_not_drawn(desk: Desk) -> None:
    ended = desk.run("graph", desk.write("wrong.yaml", "version: 2\n"))

    assert (ended.code, ended.out) == (3, "")


def test_a_plan_file_that_was_changed_by_hand_is_not_shown(saved: Desk) -> None:
    data = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    del data["changes"][0]["address"]
    saved.write("plan.json", json.dumps(data))

    for line in ("graph plan.json", "show plan.json --format html", "show plan.json --format markdown"):
        ended = saved.run(*line.split())
        assert (ended.code, ended.out) == (64, "")
        assert "changed after it was written" in ended.err


# --- completion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_its_script(desk: Desk, shell: str) -> None:
    ended = desk.run("completion", shell)

    assert ended.code == 0
    assert "_RECONCILE_COMPLETE" in ended.out


def test_bash_completes_commands_options_formats_and_files(desk: Desk) -> None:
    words = " ".join(f"'{word}'" for word in PROGRAM)
    program = desk.folder / desk.write("bin/reconcile", f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o700)

    def completed(*typed: str) -> list[str]:
        said = " ".join(f"'{word}'" for word in ("reconcile", *typed))
        script = (
            'PATH=bin:$PATH; eval "$(reconcile completion bash)"\n'
            f"COMP_WORDS=({said}) COMP_CWORD={len(typed)}\n"
            '_reconcile_completion reconcile 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        ended = subprocess.run(
            ["bash", "-c", script], cwd=desk.folder, capture_output=True, text=True, check=False, timeout=60
        )
        return ended.stdout.split()

    assert completed("gr") == ["graph"]
    assert completed("plan", "--form") == ["--format"]
    assert completed("plan", "--format", "m") == ["markdown"]
    assert (
        completed("plan", "specs/p") == []
    )  # the shell's own files: click tells it so with `compopt -o default`


# --- every plan there is --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", folders("plans"))
def test_every_plan_can_be_shown_in_each_view(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES / "plans" / name)
    try:
        planned = plan_cases._Told(CASES / "plans" / name, tmp_path).plan()
    except SpecError:
        return
    wanted = planned.prepared.wanted
    for drift in (False, True):
        data = report.plan_json(
            planned.plan, wanted.subaccounts, planned.prepared.warnings, drift=drift, owners=wanted.owners
        )
        comment, page = markdown.plan(data), html.page(data)
        told = [one["address"] for one in data["changes"] if report.worth_showing(one)]

        assert [one for one in told if one not in comment] == []
        assert page.count('<li class="') == len(data["changes"])
        assert {node.address for node in graph.of_plan(data).nodes} == {
            one["address"] for one in data["changes"]
        }
        assert all(one["message"].split("\n")[0][:30] in comment for one in data["objections"])
