"""What is installed: everything the program needs, nothing of its tests, and clear words about what is optional."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from tests.commands import Ended
from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree. Nothing is fetched for it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)]
    ended = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (found,) = folder.glob("*.whl")
    return found


def needed(name: str, known: set[str]) -> set[str]:
    """A distribution and all it stands on, without extras."""
    if name in known:
        return known
    known.add(name)
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, known)
    return known


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds this wheel and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in needed("btp-reconcile", set()) - {"btp-reconcile"}:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            if not (site / top).exists() and top != "__pycache__":
                (site / top).symlink_to(str(distribution.locate_file(top)))
    return folder / "bin/python"


def run(python: Path, folder: Path, *arguments: str) -> Ended:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [str(python), "-m", "btp_reconcile", *arguments],
        cwd=folder,
        env={**environment, "RECONCILE_SANDBOX": str(folder / "world.json")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry = next(
            archive.read(one).decode() for one in archive.namelist() if one.endswith("entry_points.txt")
        )
    package = ROOT / "btp_reconcile"
    here = {
        one.relative_to(ROOT).as_posix()
        for one in package.rglob("*")
        if one.is_file() and "__pycache__" not in one.parts
    }

    assert names == here
    assert "btp_reconcile/py.typed" in names
    assert {one.relative_to(ROOT).as_posix() for one in (package / "catalogue").glob("*.yaml")} <= names
    assert "reconcile = btp_reconcile.cli:main" in entry


def test_what_the_core_does_works_without_extras(installed: Path, tmp_path: Path) -> None:
    prod = str(ROOT / "specs/prod.yaml")

    assert (
        run(installed, tmp_path, "validate", prod).out
        == f"{prod}: valid, 1 subaccount, 2 instances, 4 keys, 1 destination\n"
    )
    assert run(installed, tmp_path, "plan", prod).code == 3
    assert run(installed, tmp_path, "init", "first.yaml").code == 0
    for line in (
        ["--help"],
        ["show", prod],
        ["kinds"],
        ["catalogue", "afc"],
        ["schema"],
        ["validate", "first.yaml"],
    ):
        ended = run(installed, tmp_path, *line)

        assert (ended.code, ended.err) == (0, "")
        assert ended.out


@pytest.mark.parametrize(
    "line", ["plan --sandbox", "apply --sandbox --yes", "drift --sandbox", "sandbox start --port 0"]
)
def test_without_its_extra_the_sandbox_says_how_to_install_it(
    installed: Path, tmp_path: Path, line: str
) -> None:
    (tmp_path / "specs").symlink_to(ROOT / "specs")

    ended = run(installed, tmp_path, *line.split())

    assert (ended.code, ended.out) == (64, "")
    assert re.fullmatch(
        r"this needs \w+, which is not installed: pip install 'btp-reconcile\[sandbox\]'\n", ended.err
    )
    assert not (tmp_path / "world.json").exists()


@pytest.mark.parametrize("extra", ["sandbox", "vault", "kubernetes", "github"])
def test_an_extra_brings_exactly_what_is_imported_for_it(extra: str) -> None:
    """The install line that is answered must be enough."""
    from btp_reconcile.cli.talk import EXTRAS

    brought = {
        Requirement(text).name
        for text in metadata.requires("btp-reconcile") or ()
        if re.search(rf"extra == ['\"]{extra}['\"]", text)
    }
    of_modules = {
        name
        for module, brings in EXTRAS.items()
        if brings == extra
        for name in metadata.packages_distributions()[module]
    }

    assert {one.lower() for one in of_modules} == {one.lower() for one in brought}
