"""What stands in `deploy/`: its files, the commands in them, and the tools that check them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.worlds import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
SHELL_KEYS = {"run", "bash", "script", "before_script", "after_script"}
CONTINUED = re.compile(r"\\\n\s*")
CALL = re.compile(r"""(?:^|[\s/`(])reconcile[ ]+((?:"[^"\n]*"|'[^'\n]*'|[^"'`|>;&)\n])+)""", re.MULTILINE)
QUOTED = re.compile(r"`reconcile ([^`]+)`")
GROOVY_SHELL = re.compile(r"""sh '''(.*?)'''|(?:sh|script:) '([^'\n]*)'""", re.DOTALL)


def tool(name: str) -> str:
    """A program of this virtual environment."""
    found = BIN / name
    assert found.exists(), f"{name} is missing: make setup"
    return str(found)


def ran(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program that ended, with what it said."""
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)


def passes(*words: str, **options: Any) -> None:
    """The program ends with 0, or the test shows what it said."""
    ended = ran(*words, **options)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def files(*suffixes: str) -> list[Path]:
    return sorted(
        one for one in DEPLOY.rglob("*") if one.is_file() and (not suffixes or one.name.endswith(suffixes))
    )


def documents(file: Path) -> list[Any]:
    return [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one is not None]


def shown(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def shells(file: Path) -> Iterator[str]:
    """Every piece of shell in a file."""
    if file.name.startswith("Jenkinsfile"):
        for block, line in GROOVY_SHELL.findall(file.read_text(encoding="utf-8")):
            yield block or line
    elif file.suffix in {".yml", ".yaml"}:
        for document in documents(file):
            yield from _shells(document)
    elif file.suffix == ".md":
        yield from re.findall(
            r"^```(?:sh|bash)?\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )


def _shells(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in SHELL_KEYS and isinstance(value, str):
                yield value
            elif key in SHELL_KEYS and isinstance(value, list):
                yield "\n".join(str(one) for one in value)
            else:
                yield from _shells(value)
    elif isinstance(node, list):
        for one in node:
            yield from _shells(one)


def calls(file: Path) -> Iterator[str]:
    """Every call of `reconcile` in a file, as what stands after its name."""
    text = file.read_text(encoding="utf-8")
    for shell in shells(file):
        for found in CALL.findall(CONTINUED.sub(" ", shell)):
            yield found.strip()
    for found in QUOTED.findall(text):
        yield found.strip()
    if file.suffix in {".yml", ".yaml"}:
        for document in documents(file):
            yield from _asked(document)


def _asked(node: Any) -> Iterator[str]:
    """Steps that use the action, and containers."""
    if isinstance(node, dict):
        inputs = node.get("with") or {}
        if "command" in inputs:
            yield f"{inputs['command']} {inputs.get('arguments', '')}".strip()
        if str(node.get("image", "")).startswith("btp-reconcile:"):
            yield " ".join(str(one) for one in node["args"])
        for value in node.values():
            yield from _asked(value)
    elif isinstance(node, list):
        for one in node:
            yield from _asked(one)


def linted(script: str, **options: Any) -> None:
    """The script is what shellcheck finds nothing in, as bash."""
    passes(tool("shellcheck"), "--shell=bash", "--severity=style", "-", input=script, **options)


def program(name: str) -> str:
    """A program from outside, which a marker stands for."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath))
    assert found, f"{name} is missing"
    return found
