"""`make demo` tells a story that is true."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests import demo
from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demonstration_runs_to_its_end(tmp_path: Path) -> None:
    """With a real server for Vault, and without a warning."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.demo", str(tmp_path / "demo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("\nDone. Nothing left this machine, and no credential was printed.\n")
    assert "Drift: 3 of 9 differ." in ended.stdout
    assert (
        "    apim, with the keys pipeline and transport\n  destinations of prod: APIManagement\n"
        in ended.stdout
    )
    for number in (1, 2):
        assert f"  destination APIManagement: generation {number} of the key\n" in ended.stdout
        assert f"  Vault, secret/apim/transport: version {number}\n" in ended.stdout


def test_where_there_is_no_server_for_vault_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = demo.begin(tmp_path / "demo")

    assert demo.can_serve_vault()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
        assert not demo.can_serve_vault()
    demo.whole_life(stage, None)
    demo.no_secret_was_printed(stage, None)

    said = capsys.readouterr().out
    assert "deliveries to Vault are recorded, not made" in said
    assert "  destination APIManagement: generation 2 of the key\n" in said
    assert "Vault, secret" not in said


def test_a_secret_that_was_printed_would_be_found(tmp_path: Path) -> None:
    stage = demo.begin(tmp_path / "demo")
    stage.deliver = ("file",)
    stage.rehearse("apply", demo.TRANSPORT, "--yes")
    demo.no_secret_was_printed(stage, None)
    stage.show(next(iter(demo.secrets_of(stage))))

    with pytest.raises(AssertionError):
        demo.no_secret_was_printed(stage, None)
