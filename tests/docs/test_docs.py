"""What the documentation says is true: its commands, its specs, its links, and the pages that the program writes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml

from btp_reconcile import pipeline
from btp_reconcile.cli import EXIT_CODES, cli
from btp_reconcile.core import report
from btp_reconcile.core.codes import CODES
from btp_reconcile.core.schema import language
from btp_reconcile.core.verdict import Word
from btp_reconcile.kinds import KINDS
from btp_reconcile.kinds.delivery import SHAPES
from btp_reconcile.sandbox.fault_catalogue import CATALOGUE
from btp_reconcile.sinks import SINKS
from docs import generate
from tests.worlds import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Desk

DOCS = ROOT / "docs"
PAGES = sorted(one for one in DOCS.rglob("*.md") if not one.name.endswith(".head.md"))
PLACE = {"subaccounts", "templates", "access", "defaults", "version"}
"""Words at the top of a spec."""


def named(page: Path) -> str:
    return str(page.relative_to(DOCS))


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every block of code, also of those inside a list."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [
        (kind, "".join(line[len(indent) :] for line in body.splitlines(keepends=True)))
        for indent, kind, body in found
    ]


# --- pages that the program writes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reference.md", "troubleshooting.md"])
def test_what_is_checked_in_is_what_make_docs_writes(name: str) -> None:
    """After a change of kinds, catalogue, codes or cases: `make docs`."""
    assert (DOCS / name).read_text(encoding="utf-8") == generate.pages()[name]


def test_every_code_has_an_entry_and_every_entry_is_a_code() -> None:
    assert set(generate.entries()) == set(CODES)


@pytest.mark.parametrize("code", sorted(CODES))
def test_an_entry_says_why_and_what_to_do_and_shows_a_message(code: str) -> None:
    entry = generate.entries()[code]
    shown = generate.example(code, entry)

    assert set(entry) in ({"why", "do", "case"}, {"why", "do", "example"})
    assert re.search(r"[.)]$", entry["why"])
    assert re.search(r"[.)]$", entry["do"])
    assert shown.rstrip().endswith(f"[{code}]")
    assert f"\n### {code} {{" in (DOCS / "troubleshooting.md").read_text(encoding="utf-8")


def test_an_example_is_written_by_hand_only_where_no_case_shows_the_code() -> None:
    cases = generate.CASES.glob("*/*/*.txt")
    told = {
        message.rpartition("[")[2].rstrip("]")
        for case in cases
        for message in generate.messages(case.read_text(encoding="utf-8"))
    }

    assert {code for code, entry in generate.entries().items() if "example" in entry} & told == set()


GIVEN = {"BTP_CIS_CENTRAL_KEY": "{}", "CF_USER": "a", "CF_PASSWORD": "b", "BTP_DESTINATION_KEY": "{}"}
PROD = (ROOT / "specs/prod.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "old", "new", "environment"),
    [
        ("input/unset-variable", "", "", {"BTP_CIS_CENTRAL_KEY": None}),
        ("input/file", "${env:CF_USER}", "${file:secrets/user}", {}),
        ("input/file-outside", "${env:CF_USER}", "${file:../../etc/hostname}", {}),
        ("input/not-a-guid", "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10", '"${env:ID}"', {"ID": "prod"}),
        ("input/not-text", "", "", {"CF_USER": "\udcff"}),
        ("access/key", "", "", {}),
    ],
)
def test_a_hand_written_example_is_what_the_program_says(
    desk: Desk, code: str, old: str, new: str, environment: dict[str, Any]
) -> None:
    desk.write("specs/prod.yaml", PROD.replace(old, new) if old else PROD)
    own = {name: value for name, value in {**GIVEN, **environment}.items() if value is not None}

    ended = desk.process("plan", "specs/prod.yaml", env=own)

    assert (ended.code, ended.err.strip()) == (3, generate.entries()[code]["example"].strip())


def test_each_field_of_the_schema_stands_in_the_reference() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    definitions = language(KINDS)["$defs"]
    fields = {name for one in definitions.values() for name in one.get("properties", {})}

    assert {name for name in fields if f"| `{name}` |" not in text} == set()


def rows(page: str, first: str, second: str) -> list[list[str]]:
    """The cells of a page's table whose head begins like this."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"| {first} | {second} |")[2]
    lines = text.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_signs_of_a_plan_are_those_of_the_code() -> None:
    told = {action: sign.strip("`") for sign, action, _ in rows("index.md", "Sign", "Action") if action}

    assert told == {action: sign for action, sign in report.SIGNS.items() if action != "keep"}


def test_every_exit_code_is_told_in_the_order_in_which_they_apply() -> None:
    told = [row[0] for row in rows("troubleshooting.md", "Exit code", "Meaning")]

    assert told == re.findall(r"^ +(\d+)  ", EXIT_CODES, re.MULTILINE)


def test_every_verdict_on_a_key_is_told() -> None:
    told = {row[0].strip("`") for row in rows("keys.md", "Verdict", "Meaning")}

    assert told == {str(one.value) for one in Word}


def test_every_sink_and_every_shape_is_told() -> None:
    assert {row[0].strip("`") for row in rows("keys.md", "Sink", "Delivers to")} == {
        one.name for one in SINKS
    }
    assert tuple(
        row[0].strip("`") for row in rows("keys.md", "`shape`", "How the credentials are written")
    ) == (SHAPES)


@pytest.mark.parametrize(("page", "api"), [("afc", "afc"), ("api-management", "api-management")])
def test_the_page_of_an_api_tells_its_roles_errors_and_help_page(page: str, api: str) -> None:
    text = (DOCS / f"apis/{page}.md").read_text(encoding="utf-8")
    known = pipeline.shipped_catalogue().by_name[api]
    roles = known.parameters.get("properties", {}).get("role", {}).get("enum", [])

    assert [role for role in roles if f"| `{role}` |" not in text] == []
    assert [one.match for one in known.errors if one.match not in text] == []
    assert known.service in text
    assert known.plan in text
    assert re.sub(r"\s+", " ", known.help) in re.sub(r"\s+", " ", text)


# --- commands ---------------------------------------------------------------------------------------------


def lines(page: Path) -> Iterator[str]:
    """Every line of a block, and every piece of code in the text, that starts the program."""
    text = page.read_text(encoding="utf-8")
    for kind, block in blocks(page):
        if kind in {"", "sh"}:
            yield from (line for line in block.splitlines() if line.startswith("reconcile "))
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from (line.replace("\\|", "|") for line in re.findall(r"`(reconcile [^`]+)`", prose))


PLACEHOLDERS = {"COMMAND": "plan", "NAME": "afc", "ADDRESS": "key:a/b/c", "FILE": "x.yaml"}


def parsed(line: str) -> None:
    """Raises click.UsageError for a command, an option or a choice that does not exist."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line.partition(" #")[0])[1:]]
    command: click.Command = cli
    context = click.Context(cli, info_name="reconcile", **cli.context_settings)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        command, context = found, click.Context(found, parent=context, info_name=name)
    if words and words[-1] in {"--help", "-h", "…"}:
        words.pop()
    values, _, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        given = values.get(str(parameter.name))
        if isinstance(parameter.type, click.Choice) and isinstance(given, str):
            parameter.type.convert(given, parameter, context)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_that_is_named_exists_with_its_options(page: Path) -> None:
    wrong = {}
    for line in lines(page):
        try:
            parsed(line)
        except click.UsageError as error:
            wrong[line] = error.format_message()

    assert wrong == {}


@pytest.mark.parametrize(
    "line", ["reconcile plant", "reconcile plan --shart 1/2", "reconcile drift --format xml"]
)
def test_a_command_that_does_not_exist_would_be_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        parsed(line)


def test_every_fault_that_is_named_exists() -> None:
    text = (DOCS / "sandbox.md").read_text(encoding="utf-8")
    rows = text.partition("| Kind | Faults |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`([\w-]+)`", rows))

    assert told
    assert told - set(CATALOGUE) == set()


def test_the_story_of_a_key_in_the_sandbox_goes_as_it_is_told(desk: Desk) -> None:
    text = (DOCS / "sandbox.md").read_text(encoding="utf-8").partition("## Let time pass")[2]
    story = re.findall(r"^reconcile (.*)$", text.partition("## Where it lives")[0], re.MULTILINE)

    ended = [desk.run(*shlex.split(line)) for line in story]

    assert [one.code for one in ended] == [0] * 6
    assert "\n  pipeline-2  generation 2, current" in ended[-1].out
    assert "\n  pipeline  generation 1" not in ended[-1].out


def test_every_fault_line_is_taken_by_the_sandbox(desk: Desk) -> None:
    told = [line for line in lines(DOCS / "sandbox.md") if "faults" in line and "--help" not in line]

    assert [(line, desk.run(*shlex.split(line)[1:]).code) for line in told] == [(line, 0) for line in told]


# --- specs ------------------------------------------------------------------------------------------------


def whole(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a spec, put where it belongs in the example of the first page."""
    spec: dict[str, Any] = yaml.safe_load(
        next(text for kind, text in blocks(DOCS / "index.md") if kind == "yaml")
    )
    spec["access"]["destination"] = {"service_key": "${env:BTP_DESTINATION_KEY}"}
    prod = spec["subaccounts"]["prod"]
    for word, value in part.items():
        if word == "keys":
            prod["instances"]["apim"]["keys"] = value
        elif word in PLACE:
            spec[word] = value
        else:
            prod[word] = value
    return spec


def specs() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, (kind, text) in enumerate(blocks(page), start=1):
            if kind == "yaml" and yaml.safe_load(text) is not None:
                yield f"{named(page)} block {number}", text


@pytest.mark.parametrize(("where", "text"), [pytest.param(*one, id=one[0]) for one in specs()])
def test_every_spec_and_every_part_of_one_validates_without_a_warning(
    desk: Desk, where: str, text: str
) -> None:
    data = yaml.safe_load(text)
    name = desk.write("specs/shown.yaml", text if "version" in data else yaml.safe_dump(whole(data)))

    ended = desk.run("validate", name)

    assert (where, ended.code, ended.err) == (where, 0, "")


# --- the site ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    return folder


class Page(HTMLParser):
    """What a built page refers to, and what in it can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        self.ids.add(has.get("id", ""))
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        elif tag == "link" and "href" in has:
            self.loads.append(has["href"])
        elif "src" in has:
            self.loads.append(has["src"])


def test_every_page_is_built_and_nothing_else_of_the_folder(site: Path) -> None:
    built = {str(one.relative_to(site)) for one in site.rglob("*.html")} - {"404.html"}

    assert built == {named(page).replace(".md", ".html") for page in PAGES}
    assert [one for one in site.rglob("*") if one.suffix in {".py", ".yaml", ".md"}] == []


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {
        file: Page(file.read_text(encoding="utf-8"))
        for file in site.rglob("*.html")
        if file.name != "404.html"
    }
    broken = []
    for file, page in pages.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                broken.append((file.name, link))

    assert len(pages) == len(PAGES)
    assert broken == []


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for file in site.rglob("*.html"):
        outside = [link for link in Page(file.read_text(encoding="utf-8")).loads if urlsplit(link).netloc]
        assert (file.name, outside) == (file.name, [])
    styles = "".join(one.read_text(encoding="utf-8") for one in site.rglob("*.css"))
    assert re.findall(r"@import|url\(\"?(?:https?:)?//", styles) == []


def test_a_page_speaks_of_no_file_that_is_not_there() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "design.md")

    for name in set(re.findall(r"`((?:deploy|specs|btp_reconcile|schemas)/[\w./-]*)`", text)) - {
        "specs/",
        "specs/first.yaml",
    }:
        assert (ROOT / name).exists(), name
