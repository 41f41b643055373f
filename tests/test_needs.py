"""Tests that need a program are left out without it, and the run says so; unless they are required."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests import needs
from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

INNER = """\
import pytest

@pytest.mark.browser
def test_one(): pass

@pytest.mark.browser
def test_two(): pass

def test_three(): pass
"""
DEBIAN = "Debian's package "
OUTER = "from tests.conftest import pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401\n"


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """These tests, where there is no program at all."""
    (folder / "test_inner.py").write_text(INNER, encoding="utf-8")
    (folder / "conftest.py").write_text(OUTER, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = browser: x\n", encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(folder)],
        cwd=folder,
        env={**os.environ, "PATH": str(folder), "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_the_program_its_tests_are_left_out_and_counted(tmp_path: Path) -> None:
    ended = run(tmp_path)

    assert ended.returncode == 0, ended.stdout
    assert (
        "2 tests left out, marker browser: chromium is not installed (Debian's package chromium)"
        in ended.stdout
    )
    assert "1 passed, 2 skipped" in ended.stdout


def test_what_is_required_is_run_without_the_program_too(tmp_path: Path) -> None:
    ended = run(tmp_path, RECONCILE_REQUIRE="other,browser")

    assert "3 passed" in ended.stdout
    assert "left out" not in ended.stdout


def test_every_program_has_its_marker(pytestconfig: pytest.Config) -> None:
    markers = {str(line).partition(":")[0] for line in pytestconfig.getini("markers")}

    assert set(needs.PROGRAMS) <= markers


def test_ci_installs_every_program_and_requires_it() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    from_debian = {
        f"{marker}:{program}:{brought.removeprefix(DEBIAN)}"
        for marker, (program, brought) in needs.PROGRAMS.items()
        if brought.startswith(DEBIAN)
    }

    assert [one for one in from_debian if one not in script] == []
    assert [one for one in needs.PROGRAMS if one not in script] == []
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=False).returncode == 0
