"""`reconcile` as people start it: in this process, as a process of its own, or at a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from fcntl import ioctl
from typing import TYPE_CHECKING, Any

from btp_reconcile import cli
from btp_reconcile.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

PROGRAM = (sys.executable, "-m", "btp_reconcile")
LIMIT = 60.0
"""Seconds after which something hangs."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said where."""

    code: int
    out: str
    err: str


@dataclass
class Desk:
    """A folder with `specs/prod.yaml` and a sandbox of its own, in which commands are run."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def state(self) -> Path:
        return self.folder / "world.json"

    def run(self, *arguments: str) -> Ended:
        """In this process."""
        self.capture.readouterr()
        code = cli.run(arguments)
        said = self.capture.readouterr()
        return Ended(code, said.out, said.err)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """As a process of its own, its streams piped."""
        environment = {**os.environ, **options.pop("env", {})}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*PROGRAM, *arguments], cwd=self.folder, text=True, env=environment, **{**pipes, **options}
        )

    def process(self, *arguments: str, **options: Any) -> Ended:
        """As a process of its own, to its end."""
        with self.start(*arguments, **options) as running:
            out, err = running.communicate(timeout=LIMIT)
        return Ended(running.returncode, out, err)

    def shell(self, line: str) -> Ended:
        """A line of bash in which `reconcile` is this one. Give codes of pipes away with ${PIPESTATUS[0]}."""
        words = " ".join(f"'{word}'" for word in PROGRAM)
        script = f'reconcile() {{ {words} "$@"; }}\n{line}'
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
            stdin=subprocess.DEVNULL,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    def sandbox(self) -> Sandbox:
        """The world of this desk, to be looked at or changed by hand."""
        return Sandbox(self.state)


@dataclass
class Terminal:
    """A process at a terminal of so many columns."""

    running: subprocess.Popen[bytes]
    master: int
    shown: str = ""

    def until(self, text: str) -> None:
        """Read until something is shown. Ends at once when the process does."""
        while text not in self.shown and self._read():
            pass

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> int:
        """Read to the end, and give the exit code."""
        while self._read():
            pass
        return self.running.wait(LIMIT)

    def _read(self) -> bool:
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += chunk.decode(errors="replace")
        return bool(chunk)


@contextlib.contextmanager
def terminal(
    folder: Path, *arguments: str, columns: int = 100, env: Mapping[str, str] | None = None, **streams: Any
) -> Iterator[Terminal]:
    """`reconcile` with a person in front of it. Streams that are named are piped elsewhere."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **(env or {})}
    running = subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment,
        start_new_session=True,
        **{"stdin": slave, "stdout": slave, "stderr": slave, **streams},
    )
    os.close(slave)
    try:
        yield Terminal(running, master)
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
        running.wait()
        for stream in (running.stdout, running.stderr):
            if stream is not None:
                stream.close()
        os.close(master)
