"""deploy/docker: an image that is small, reproducible and runs as nobody."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tomllib
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import pytest

from tests.deploy.files import DEPLOY, passes, tool
from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCKER = DEPLOY / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
PIN = re.compile(
    r"^([a-z0-9-]+)==([^ ;]+)((?: ;[^\\]*)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)


def instructions() -> list[str]:
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_hadolint_finds_nothing() -> None:
    passes(tool("hadolint"), "--no-color", str(DOCKERFILE))


def test_the_last_stage_runs_as_nobody_and_needs_no_shell() -> None:
    said = instructions()
    last = said[max(index for index, line in enumerate(said) if line.startswith("FROM ")) :]
    assert not [line for line in last if line.startswith("RUN ")]
    assert last[-3:] == ["USER 10001:10001", 'ENTRYPOINT ["reconcile"]', 'CMD ["--help"]']


def test_everything_that_is_installed_has_a_version_and_a_hash() -> None:
    for line in instructions():
        for install in re.findall(r"pip [^&]*install[^&]*", line):
            assert "--require-hashes" in install or "--no-index" in install, install
    for name in ("requirements.txt", "build-requirements.txt"):
        text = (DOCKER / name).read_text(encoding="utf-8")
        left = PIN.sub("", text)
        assert [line for line in left.splitlines() if line and not line.startswith("#")] == []


def test_what_the_program_needs_is_what_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["vault"], *extras["github"]]
    text = (DOCKER / "requirements.txt").read_text(encoding="utf-8")
    pinned = {name: version for name, version, _ in PIN.findall(text)}
    for one in wanted:
        name, _, least = one.partition(">=")
        version = pinned[name.lower()]
        assert numbers(version) >= numbers(least), f"{one}: {version} is installed"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(r"\d+", version)[:3])


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    allowed = [
        line[1:]
        for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for line in instructions()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert len(copied) == 6
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source
    assert (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()[1] == "*"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The files that the wheel is made of, as the Dockerfile copies them."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "btp_reconcile", tmp_path / "btp_reconcile", ignore=ignored)
    return tmp_path


def test_the_same_sources_make_the_same_wheel_whenever_it_is_built(context: Path) -> None:
    found = set()
    for age in (1_000_000_000, 1_700_000_000):
        for one in context.rglob("*"):
            os.utime(one, (age, age))
        passes(
            *(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "dist", "."),
            cwd=context,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        )
        wheel = next((context / "dist").glob("*.whl"))
        found.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
        wheel.unlink()
    assert len(found) == 1
