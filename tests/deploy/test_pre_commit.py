"""The hook that others take into their repositories."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from tests.deploy.files import documents, passes, tool
from tests.worlds import ROOT

if TYPE_CHECKING:
    from tests.commands import Desk

MANIFEST = ROOT / ".pre-commit-hooks.yaml"


def test_pre_commit_accepts_the_manifest() -> None:
    passes(tool("pre-commit"), "validate-manifest", str(MANIFEST))


def test_the_hook_checks_all_specs_and_fails_with_what_is_wrong(desk: Desk) -> None:
    (hook,) = documents(MANIFEST)[0]
    arguments: list[str] = hook["args"]
    program, *words = [*shlex.split(hook["entry"]), *arguments]
    assert (hook["id"], program, hook["pass_filenames"]) == ("reconcile-validate", "reconcile", False)
    assert desk.run(*words).code == 0
    broken = desk.folder / "specs/prod.yaml"
    broken.write_text(broken.read_text(encoding="utf-8").replace("api: afc", "api: afz"), encoding="utf-8")
    ended = desk.run(*words)
    assert ended.code == 3
    assert "specs/prod.yaml:" in ended.err


def test_the_hook_runs_when_a_spec_changes() -> None:
    (hook,) = documents(MANIFEST)[0]
    changed = {
        one: bool(re.search(hook["files"], one))
        for one in ("specs/prod.yaml", "specs/eu/prod.yml", "specs/notes.md", "docs/specs/x.yaml")
    }
    assert changed == {
        "specs/prod.yaml": True,
        "specs/eu/prod.yml": True,
        "specs/notes.md": False,
        "docs/specs/x.yaml": False,
    }
