"""Who may know whom. A new arrow is a decision that someone makes on purpose, here."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

from btp_reconcile.kinds import KINDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "btp_reconcile"

ARROWS = {
    "core": {"core"},
    "kinds": {"core", "kinds", "sinks"},
    "sinks": {"core", "sinks"},
    "edges": {"core", "edges"},
    "pipeline": {"core", "edges", "kinds", "sinks"},
    "views": {"core", "views"},
    "cli": {"cli", "core", "edges", "kinds", "pipeline", "sandbox", "sinks", "views"},
    "sandbox": {"sandbox"},
    "__main__": {"cli"},
    "__init__": set(),
}
HOMES = {
    "requests": {"edges/client.py", "sandbox/doors.py", "sinks/vault.py"},
    "tenacity": {"edges/client.py"},
    "hvac": {"sinks/vault.py"},
    "urllib3": {"edges/client.py", "sandbox/doors.py", "sinks/vault.py", "sinks/_line.py"},
    "yaml": {"edges/load.py"},
    "jsonschema": {"core/validate.py", "core/shape.py"},
    "structlog": {"cli/talk.py"},
    "rich": {"cli/talk.py"},
    "certifi": {"sinks/_line.py"},
    "kubernetes": {"sinks/_kubeconfig.py"},
    "nacl": {"sinks/github.py"},
    "click": {"cli/__init__.py", "cli/talk.py", "cli/work.py"},
}
"""Where a library may be imported, so that each of them could be replaced in one place."""
THREADS = {"edges/observe.py", "edges/apply.py", "edges/listener.py"}
"""Where threads start. The listener has one, so that who watches a service is answered while it checks."""

SILENCED = re.compile(
    r"#\s*(?:type:\s*ignore\b(?:\[[^]]*\])?|(?:(?:ruff|flake8):\s*)?noqa\b(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?)"
)
"""What takes a line out of a check of mypy's or ruff's."""
WORD = re.compile(r"[^\W\d_]{2}")
FOLDERS = ("btp_reconcile", "tests", "benchmarks", "docs")

FILES = sorted(PACKAGE.rglob("*.py"))


def named(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imports(file: Path) -> set[str]:
    """Every module that a file imports, wherever in it, for running or for types."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "btp_reconcile" or len(parts) == 1 or parts[1].startswith("__"):
        return None
    return parts[1] if parts[1] in ARROWS else None


@pytest.mark.parametrize("file", FILES, ids=named)
def test_imports_follow_the_allowed_arrows(file: Path) -> None:
    here = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    known = {one for module in imports(file) if (one := room(module))}

    assert known <= ARROWS[here]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_each_library_has_one_home(file: Path) -> None:
    libraries = {module.partition(".")[0] for module in imports(file)}
    strangers = {one for one in libraries & set(HOMES) if named(file) not in HOMES[one]}

    assert strangers == set()


@pytest.mark.parametrize(
    "file", [one for one in FILES if named(one).partition("/")[0] not in {"sandbox", "cli"}], ids=named
)
def test_threads_and_sleep_have_their_places(file: Path) -> None:
    """Threads start in three modules; time passes in one. (Locks may stand where something is shared.)"""
    text = file.read_text(encoding="utf-8")
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}

    assert not calls & {"time.sleep", "print", "sys.exit", "exit", "input"}
    assert named(file) in THREADS or not calls & {"threading.Thread", "ThreadPoolExecutor"}


@pytest.mark.parametrize("file", [one for one in FILES if named(one).startswith("core/")], ids=named)
def test_the_core_is_arithmetic(file: Path) -> None:
    """No clock, no network, no randomness, no files, no logging in the core."""
    roots = {module.partition(".")[0] for module in imports(file)}

    assert "pathlib.Path" not in imports(file)
    assert not roots & {
        "os",
        "pathlib",
        "random",
        "secrets",
        "socket",
        "time",
        "logging",
        "subprocess",
        "threading",
    }


def test_every_kind_is_on_the_list() -> None:
    files = {file.stem for file in (PACKAGE / "kinds").glob("*.py")} - {"__init__"}

    assert files == {kind.name for kind in KINDS}


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    names = {file.stem for file in FILES}

    assert not names & {"utils", "util", "helpers", "common", "base", "manager", "misc"}


def unexplained(file: Path) -> list[int]:
    """Lines that are taken out of a check, and neither they nor a comment above say why."""
    text = file.read_text(encoding="utf-8")
    if not SILENCED.search(text):
        return []
    with file.open("rb") as opened:
        comments = {
            one.start[0]: one for one in tokenize.tokenize(opened.readline) if one.type == tokenize.COMMENT
        }
    found = []
    for number, comment in comments.items():
        above = comments.get(number - 1)
        said = [comment.string, above.string if above and above.line.strip() == above.string else ""]
        if SILENCED.search(comment.string) and not any(WORD.search(SILENCED.sub("", one)) for one in said):
            found.append(number)
    return found


def test_a_check_is_silenced_for_a_reason() -> None:
    """Which stands behind the mark, or as a comment of its own in the line above."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]

    assert [f"{file.relative_to(ROOT)}:{line}" for file in files for line in unexplained(file)] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x = 1  # noqa: E731", False),
        ("x = 1  # noqa: E731, PTH100", False),
        ("x = 1  # type: ignore[arg-type]  # noqa: SLF001", False),
        ("x = 1  # noqa", False),
        ("x = 1  # noqa: E731 - it reads best", True),
        ("x = 1  # type: ignore[arg-type] # all that is asked of it", True),
        ("# nobody is asked\nx = 1  # type: ignore[arg-type]", True),
        ("y = 1  # a number\nx = 1  # type: ignore[arg-type]", False),
        ("# ruff: noqa: E731", False),
        ('x = "# noqa: E731"', True),
    ],
)
def test_what_counts_as_a_reason(line: str, said: bool, tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(f"{line}\n", encoding="utf-8")

    assert (unexplained(file) == []) is said
