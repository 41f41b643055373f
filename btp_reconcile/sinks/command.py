"""A program of the user's own that carries the credentials on.

It is run without a shell and gets everything on standard input, as one JSON object, because arguments and environments
of a process can be read by others on many systems:

```json
{"version": 1,
 "identity": {"owner": "…", "spec": "…", "delivery": "delivery:prod/apim/transport/main", "key": "…", "generation": 2},
 "credentials": {}}
```

What it writes is counted and dropped: programs that fail tend to show what they were given.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from btp_reconcile.core.digest import plain
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.lifetimes import seconds
from btp_reconcile.core.sink import Held
from btp_reconcile.sinks._parcel import rooted

if TYPE_CHECKING:
    import subprocess

    from btp_reconcile.core.model import Data
    from btp_reconcile.core.sink import Around, Parcel

KEPT = ("PATH", "HOME", "LANG")
"""Variables that every program gets. All others are named by the spec."""
GRACE = 2.0
"""Seconds that a program has to end when its time is over."""
LONGEST_LINE = 100
_TURN = 0.05
"""Seconds after which it is asked whether the program has ended, while something it started keeps its output open."""

SCHEMA: Data = {
    "title": "a command",
    "description": "A program that gets the credentials as JSON on standard input. Needs --allow-commands.",
    "type": "object",
    "additionalProperties": False,
    "required": ["run"],
    "properties": {
        "run": {
            "type": "array",
            "minItems": 1,
            "items": {"$ref": "#/$defs/text"},
            "description": "The program and its arguments; no shell reads them. A program's relative path with a slash "
            "starts at the spec's folder; arguments are handed over as they are.",
        },
        "timeout": {
            "$ref": "#/$defs/patience",
            "description": "After this it is ended, with all that it started. Default 30s.",
        },
        "environment": {
            "type": "array",
            "items": {"$ref": "#/$defs/text"},
            "description": "Names of variables that it gets, as far as they are set, beside PATH, HOME and LANG.",
        },
    },
}


class CommandSink:
    """The sink `command`."""

    name = "command"
    title = "a program that gets the credentials on standard input"
    schema: Data = SCHEMA
    access: Data | None = None
    extra = ""
    can_look = False

    def objections(self, block: Data) -> tuple[str, ...]:  # noqa: ARG002 - its schema says it all
        return ()

    def place(self, block: Data) -> str:
        line = shlex.join(str(part) for part in block["run"])
        line = "".join(sign if sign.isprintable() else "?" for sign in line)
        return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"

    def located(self, access: Data, folder: str) -> Data:  # noqa: ARG002 - no path stands in it
        return access

    def open(self, access: Data, around: Around) -> _Commands:  # noqa: ARG002 - it needs no access
        return _Commands(around)


def _failed(program: str, message: str, code: str = "") -> PlatformError:
    return PlatformError(Blame("command", code=code, message=f"{program} {message}"))


class _Commands:
    """Runs one program per delivery."""

    def __init__(self, around: Around) -> None:
        self._around = around

    def look(self, block: Data) -> Held | None:  # noqa: ARG002 - there is nothing to look at
        """Runs nothing. What was delivered is assumed to be there."""
        return Held()

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:  # noqa: ARG002 - a program has no versions
        arguments = [str(part) for part in block["run"]] or [""]
        name = arguments[0]
        if not self._around.commands:
            raise _failed(name, "is not run: allow it with --allow-commands", code="commands")
        message = {
            "version": 1,
            "identity": asdict(parcel.identity),
            "credentials": plain(parcel.content),
        }
        limit = float(seconds(block["timeout"])) if "timeout" in block else self._around.timeout
        wrote = 0
        process = self._start(arguments, block)
        try:
            wrote = _fed(process, json.dumps(message).encode() + b"\n", time.monotonic() + limit)
        except TimeoutError:
            raise _failed(
                name,
                f"did not end within {limit:g} s, and was ended; if it needs longer, say so with timeout",
            ) from None
        finally:
            _end(process)
        code = process.returncode
        if code:
            how = f"was ended by {_signal(-code)}" if code < 0 else f"failed with exit code {code}"
            said = f"what it wrote ({wrote:,} bytes) is not shown, because it may hold secrets"
            raise _failed(name, f"{how}; {said if wrote else 'it wrote nothing'}", code=str(code))
        return Held()

    def close(self) -> None:
        pass

    def _start(self, arguments: list[str], block: Data) -> subprocess.Popen[bytes]:
        import subprocess

        around = self._around.environment
        names = (*KEPT, *block.get("environment", ()))
        environment = {name: around[name] for name in names if name in around}
        try:
            return subprocess.Popen(  # noqa: S603 - running what the spec says is what was allowed
                arguments,
                executable=self._found(arguments[0], str(block.get("base") or "")),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "an argument holds a zero byte"
            raise _failed(arguments[0], f"cannot be run: {why}") from None

    def _found(self, program: str, base: str) -> str:
        """The program's file. `base`: the folder that a relative path starts at, which is never the current one."""
        if os.path.isabs(program):  # noqa: PTH117 - a text stays a text
            return program
        if "/" in program:
            return self._around.folder(rooted(program, base))
        found = shutil.which(program, path=self._around.environment.get("PATH", os.defpath))
        if found is None:
            raise _failed(
                program, "cannot be run: there is no such program on the PATH; install it, or write its path"
            )
        return found


def _fed(process: subprocess.Popen[bytes], given: bytes, until: float) -> int:
    """Hand over what is given, drop what comes back, wait for the end. Gives the number of bytes that came back.

    Raises TimeoutError. A program that ends without reading everything is judged by its exit code alone. One that it left
    behind, and that keeps the output open, is not waited for.
    """
    import selectors

    assert process.stdin is not None  # noqa: S101 - it was asked for
    assert process.stdout is not None  # noqa: S101 - it was asked for
    rest, wrote = memoryview(given), 0
    os.set_blocking(process.stdin.fileno(), False)
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            left = until - time.monotonic()
            if left <= 0 and not ended:
                raise TimeoutError
            ready = [key.fileobj for key, _ in selector.select(0 if ended else min(left, _TURN))]
            if process.stdin in ready:
                try:
                    rest = rest[os.write(process.stdin.fileno(), rest) :]
                except BrokenPipeError:
                    rest = rest[len(rest) :]
                if not rest:
                    selector.unregister(process.stdin)
                    process.stdin.close()
            if process.stdout in ready:
                part = os.read(process.stdout.fileno(), 64 * 1024)
                wrote += len(part)
                if not part:
                    selector.unregister(process.stdout)
            if ended:
                return wrote


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let go of a program; if it still runs, end it and all that it started."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    if process.poll() is not None:
        return
    _signal_all(process, signal.SIGTERM)
    import subprocess

    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    _signal_all(process, signal.SIGKILL)
    process.wait()


def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
