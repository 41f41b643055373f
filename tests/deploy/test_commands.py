"""Every command that stands in deploy/ is one that this program has."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest

from btp_reconcile import __version__
from btp_reconcile.cli import cli
from tests.deploy.files import DEPLOY, calls, files, shown

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN = [
    one
    for one in files(".yml", ".yaml", ".md", "Dockerfile") + sorted(DEPLOY.glob("jenkins/Jenkinsfile*"))
    if [*calls(one)]
]


def understood(call: str) -> str:
    """Why the command line would be refused; empty when it is not."""
    words = shlex.split(call)
    command: click.Command = cli
    while words and isinstance(command, click.Group):
        name, *words = words
        if name in {"--help", "--version"}:
            return ""
        found = command.commands.get(name)
        if found is None:
            return f"there is no command {name}"
        command = found
    try:
        command.make_context(command.name, words, parent=click.Context(cli, **cli.context_settings))
    except click.exceptions.Exit:
        return ""
    except click.ClickException as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("file", WRITTEN, ids=shown)
def test_every_call_is_one_that_the_program_understands(file: Path) -> None:
    assert {call: why for call in calls(file) if (why := understood(call))} == {}


def test_what_is_misspelt_would_be_found() -> None:
    wrong = ("aply specs", "plan --formt json", "drift --format xml", "rotate --due --at-most many")
    assert [understood(one) == "" for one in (*wrong, "plan specs")] == [False, False, False, False, True]


def test_each_pipeline_has_the_jobs_that_matter() -> None:
    said = {
        folder.name: {call.split()[0] for one in files() if folder in one.parents for call in calls(one)}
        for folder in DEPLOY.iterdir()
        if folder.is_dir()
    }
    for name in ("github", "gitlab", "azure-devops", "jenkins"):
        assert said[name] >= {"validate", "plan", "apply", "drift", "rotate"}, name
    assert said["kubernetes"] >= {"drift", "rotate"}


def test_nothing_but_a_saved_plan_is_applied() -> None:
    """What people approved is done, or nothing."""
    applied = [
        call.split()[1]
        for one in WRITTEN
        if one.suffix != ".md"
        for call in calls(one)
        if call.startswith("apply ") and "`" not in call
    ]
    assert applied
    assert all(re.fullmatch(r"(\S*/)?plan(-\$\(JOB_COMPLETION_INDEX\))?\.json", one) for one in applied)


def test_the_version_that_is_installed_is_this_one() -> None:
    for one in files(".yml", ".yaml", "Jenkinsfile", ".drift", ".rotate"):
        for line in one.read_text(encoding="utf-8").splitlines():
            for sign in ("RECONCILE_VERSION: ", "RECONCILE_VERSION = ", "newTag: ", "image: btp-reconcile:"):
                if sign in line:
                    assert line.split(sign)[1].strip("\"' ") == __version__, f"{shown(one)}: {line}"
