"""`make demo` tells a story that is true."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demonstration_runs_to_its_end(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "tests/demo.py", str(tmp_path / "demo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("\nDone. Nothing left this machine, and no credential was printed.\n")
    assert "Drift: 2 of 8 differ." in ended.stdout
    assert "    apim, with the keys pipeline and transport\n" in ended.stdout
