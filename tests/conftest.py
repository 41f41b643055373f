"""No test leaves this machine, and none sees how this machine is set up."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from btp_reconcile import cli
from tests import needs
from tests.commands import Desk
from tests.guard.sitecustomize import guard
from tests.worlds import ROOT

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

PRIVATE = ("BTP_", "CF_", "RECONCILE_", "XDG_", "REQUESTS_", "CURL_", "SSL_", "GIT_", "PIP_")
"""What a developer may have set. `RECONCILE_ACCEPT` is an order to the tests, and stays."""
SWITCHES = {"CI", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "PYTHONWARNINGS", "PYTHONIOENCODING"}
PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
GUARD = str(Path(__file__).parent / "guard")

# How long an example takes says how busy the machine is: the first one on a new machine makes the tables of Unicode.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

_homes = count()

guard()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs.leave_out(items, needs.required())


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for line in needs.told(str(one.longrepr[2]) for one in skipped if isinstance(one.longrepr, tuple)):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def _homes_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch: pytest.MonkeyPatch, _homes_of_nobody: Path) -> Path:
    """An environment without anything of the developer's, and an empty home, which it gives.

    Every Python that a test starts is kept on this machine too.
    """
    for name in list(os.environ):
        private = name.startswith(PRIVATE) and name != "RECONCILE_ACCEPT"
        if private or name in SWITCHES or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    home = _homes_of_nobody / str(next(_homes))
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTHONPATH", GUARD)
    return home


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Desk:
    """A folder with `specs/prod.yaml` and a sandbox of its own, in which commands are run."""
    (tmp_path / "specs").mkdir()
    shutil.copy(ROOT / "specs/prod.yaml", tmp_path / "specs")
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capfd)
    monkeypatch.setenv("RECONCILE_SANDBOX", str(desk.state))
    monkeypatch.setenv("PYTHONPATH", f"{GUARD}{os.pathsep}{ROOT}")
    return desk


@pytest.fixture(scope="session")
def _applied_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Applying takes half a second, so it is done once in a process."""
    state = tmp_path_factory.mktemp("applied") / "world.json"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert (
            cli.run(["apply", str(ROOT / "specs/prod.yaml"), "--sandbox", "--yes", "--state", str(state)])
            == 0
        )
    return state


@pytest.fixture
def in_sync(desk: Desk, _applied_world: Path) -> Desk:
    """A desk whose world is what `specs/prod.yaml` says."""
    shutil.copy(_applied_world, desk.state)
    return desk
