"""The sink `command`, with real programs."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.sink import Held
from btp_reconcile.sinks.command import CommandSink
from tests.sinks.deliveries import KEY, NATIVE, SECRET, around, parcel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HERE = {"PATH": os.environ["PATH"], "HOME": "/home/of/tests", "LANG": "C.UTF-8", "TOKEN": SECRET, "CI": "1"}


def put(folder: Path, run: Sequence[str], content: dict[str, Any] | None = None, **block: Any) -> Held:
    commands = CommandSink().open({}, around(folder, HERE, commands=True))
    return commands.put({"run": list(run), **block}, parcel(2, **(content or {})), None)


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def refusal(folder: Path, run: Sequence[str], **block: Any) -> str:
    """The words in which a failure is told. They hold nothing of what was handed over."""
    with pytest.raises(PlatformError) as caught:
        put(folder, run, **block)

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.blame.message


def test_a_program_gets_everything_on_standard_input(tmp_path: Path) -> None:
    assert put(tmp_path, ["tee", str(tmp_path / "got")]) == Held()
    assert json.loads((tmp_path / "got").read_text()) == {
        "version": 1,
        "identity": {
            "owner": "team",
            "spec": "prod",
            "delivery": "delivery:prod/apim/transport/main",
            "key": KEY,
            "generation": 2,
        },
        "credentials": NATIVE,
    }


def test_arguments_and_environment_hold_nothing_that_was_not_named(tmp_path: Path) -> None:
    report = tmp_path / "report"
    script = (
        "import json, os, sys; sys.stdin.read(); "
        f"open({str(report)!r}, 'w').write(json.dumps([sys.argv[1:], dict(os.environ)]))"
    )
    put(tmp_path, [*python(script), "$HOME; *"], environment=["CI", "NOT_SET"])
    arguments, environment = json.loads(report.read_text())
    environment.pop("LC_CTYPE", None)  # set by Python itself

    assert arguments == ["$HOME; *"]
    assert environment == {
        "PATH": os.environ["PATH"],
        "HOME": "/home/of/tests",
        "LANG": "C.UTF-8",
        "CI": "1",
    }


def test_nothing_is_run_unless_commands_are_allowed(tmp_path: Path) -> None:
    commands = CommandSink().open({}, around(tmp_path, HERE))

    with pytest.raises(PlatformError) as caught:
        commands.put({"run": ["touch", str(tmp_path / "ran")]}, parcel(), None)
    assert caught.value.blame.message == "touch is not run: allow it with --allow-commands"
    assert not (tmp_path / "ran").exists()


def test_looking_runs_nothing_and_makes_no_statement(tmp_path: Path) -> None:
    commands = CommandSink().open({}, around(tmp_path, HERE, commands=True))

    assert commands.look({"run": ["touch", str(tmp_path / "ran")]}) == Held()
    assert not (tmp_path / "ran").exists()
    assert CommandSink().can_look is False


def test_a_relative_program_starts_at_the_specs_folder(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/deliver"
    program.write_text('#!/bin/sh\ncat > "$1"\n')
    program.chmod(0o700)

    assert put(tmp_path, ["bin/deliver", str(tmp_path / "got")]) == Held()
    assert json.loads((tmp_path / "got").read_text())["credentials"] == NATIVE


def test_a_program_of_that_name_in_the_current_folder_is_not_the_specs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name in (("specs", "right"), (".", "wrong")):
        (tmp_path / folder).mkdir(exist_ok=True)
        program = tmp_path / folder / "tool.sh"
        program.write_text(f"#!/bin/sh\ncat > {tmp_path}/{name}\n")
        program.chmod(0o700)
    monkeypatch.chdir(tmp_path)

    assert put(tmp_path, ["./tool.sh"], base="specs") == Held()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["right", "specs", "tool.sh"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            ["no-such-program"],
            "no-such-program cannot be run: there is no such program on the PATH; install it, or write its path",
        ),
        ([], " cannot be run: there is no such program on the PATH; install it, or write its path"),
        (["bin/none"], "bin/none cannot be run: No such file or directory"),
        (["./data"], "./data cannot be run: Permission denied"),
        (["sh", "\0"], "sh cannot be run: an argument holds a zero byte"),
    ],
)
def test_what_cannot_be_run_is_told_in_words(tmp_path: Path, run: list[str], said: str) -> None:
    (tmp_path / "data").write_text("no program")

    assert refusal(tmp_path, run) == said


def test_output_is_counted_and_never_shown(tmp_path: Path) -> None:
    said = refusal(tmp_path, ["sh", "-c", f"echo '{SECRET}'; echo problem >&2; exit 3"])

    assert said == (
        f"sh failed with exit code 3; what it wrote ({len(SECRET) + 9} bytes) is not shown, "
        "because it may hold secrets"
    )


def test_a_silent_failure_is_called_silent(tmp_path: Path) -> None:
    assert refusal(tmp_path, ["sh", "-c", "exit 3"]) == "sh failed with exit code 3; it wrote nothing"


def test_a_program_that_dies_is_told_by_its_signal(tmp_path: Path) -> None:
    assert refusal(tmp_path, ["sh", "-c", "kill -9 $$"]) == "sh was ended by SIGKILL; it wrote nothing"
    real_time = signal.SIGRTMIN + 5
    assert refusal(tmp_path, ["sh", "-c", f"kill -{int(real_time)} $$"]) == (
        f"sh was ended by signal {int(real_time)}; it wrote nothing"
    )


LARGE = {"clientSecret": SECRET * 100_000}
"""More than a pipe holds."""


def test_a_program_that_reads_nothing_is_judged_by_its_exit_code(tmp_path: Path) -> None:
    assert put(tmp_path, ["true"], LARGE) == Held()
    assert refusal(tmp_path, ["false"], content=LARGE) == "false failed with exit code 1; it wrote nothing"


def test_more_than_a_pipe_holds_goes_in_and_out(tmp_path: Path) -> None:
    assert put(tmp_path, ["tee", str(tmp_path / "got")], LARGE) == Held()
    assert json.loads((tmp_path / "got").read_text())["credentials"] == LARGE


def gone(pipe: int) -> bool:
    """Has everybody who could write into this pipe ended? Waits for it, at most ten seconds."""
    return bool(select.select([pipe], [], [], 10)[0]) and os.read(pipe, 1) == b""


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path, stubborn: bool) -> None:
    """A named pipe is open for writing in the program and in its child; it ends when both have."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    trap = "trap '' TERM; " if stubborn else ""
    commands = CommandSink().open({}, around(tmp_path, HERE, commands=True, timeout=0.5))
    begun = time.monotonic()
    with pytest.raises(PlatformError) as caught:
        commands.put(
            {"run": ["sh", "-c", f"{trap}exec 3> {fifo}; sleep 60 & sleep 60; sleep 60"]}, parcel(), None
        )

    assert (
        caught.value.blame.message
        == "sh did not end within 0.5 s, and was ended; if it needs longer, say so with timeout"
    )
    assert time.monotonic() - begun < 10
    assert gone(pipe)
    os.close(pipe)


def test_a_child_left_behind_is_not_waited_for(tmp_path: Path) -> None:
    begun = time.monotonic()
    group = tmp_path / "group"
    put(tmp_path, ["sh", "-c", f"echo $$ > {group}; sleep 60 &"])

    assert time.monotonic() - begun < 10
    os.killpg(int(group.read_text()), signal.SIGKILL)


def test_an_interrupt_ends_the_program_too(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path, ["sh", "-c", f"exec 3> {fifo}; sleep 60"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert gone(pipe)
    os.close(pipe)


def test_its_own_timeout_counts(tmp_path: Path) -> None:
    commands = CommandSink().open({}, around(tmp_path, HERE, commands=True, timeout=0.01))

    assert commands.put({"run": ["sh", "-c", "sleep 0.2"], "timeout": "1m"}, parcel(), None) == Held()


def test_a_sink_says_what_it_runs_on_one_line() -> None:
    sink = CommandSink()

    assert sink.place({"run": ["bin/deliver", "two words\n"]}) == "bin/deliver 'two words?'"
    assert len(sink.place({"run": ["x" * 500]})) == 100
