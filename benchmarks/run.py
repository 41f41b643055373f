"""`make benchmark`: how long `reconcile` takes at size, what it costs, and how that moved since the last committed run.

The sandbox runs in another process, so the figures are those of `reconcile` alone. Without arguments every scenario is
run; names of scenarios run these only. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COMPILED = ROOT / ".benchmarks"
RECONCILE = str(Path(sys.executable).with_name("reconcile"))

Figures = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One command, run several times; `size` is that of the landscape it works on, none if it asks nobody."""

    title: str
    command: tuple[str, ...]
    size: dict[str, int] = field(default_factory=dict)
    latency: float = 0.0
    in_sync: bool = True
    operation: float = 2.0
    """Seconds that the platform takes to make something."""
    repeats: int = 5
    said: str = ""
    """What the command must have printed."""
    most: dict[str, float] = field(default_factory=dict)
    """What is promised: figure → its largest value."""
    least: dict[str, float] = field(default_factory=dict)


PLAN = ("plan", "SPEC")
IN_SYNC = "No changes"

SCENARIOS = {
    "help": Scenario("reconcile --help", ("--help",), repeats=11, said="Usage"),
    "validate": Scenario(
        "reconcile validate specs/prod.yaml", ("validate", "specs/prod.yaml"), repeats=11, said="valid"
    ),
    "a": Scenario(
        "plan, in sync: 500 instances, 1,500 keys, 200 entitlements, both runtimes, 200 ms an answer",
        PLAN,
        {"subaccounts": 20, "instances": 25, "keys": 3, "services": 10, "other": 2},
        latency=0.2,
        said=IN_SYNC,
        most={"wall": 2.0},
    ),
    "b": Scenario(
        "plan, in sync: 5,000 instances, 15,000 keys, 50 subaccounts from one template",
        PLAN,
        {"subaccounts": 50, "instances": 100, "keys": 3, "services": 5},
        said=IN_SYNC,
        most={"wall": 4.0, "memory": 300.0},
    ),
    "c": Scenario(
        "plan, in sync: 33,400 instances, 100,200 keys, 334 subaccounts from one template",
        PLAN,
        {"subaccounts": 334, "instances": 100, "keys": 3, "services": 5},
        repeats=1,
        said=IN_SYNC,
    ),
    "d": Scenario(
        "apply: 1,000 new instances, 2,000 new keys, 50 ms an answer, 8 requests at once",
        ("apply", "SPEC", "--yes"),
        {"subaccounts": 10, "instances": 100, "keys": 2, "services": 5},
        latency=0.05,
        in_sync=False,
        repeats=1,
        said="3000 steps done",
        least={"share": 0.8},
    ),
}


def main() -> int:
    arguments = _arguments()
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    before = _last_committed()
    found: dict[str, Figures] = {}
    _warm_up()
    print(
        f"{'':10}{'wall':>9}{'cpu':>9}{'memory':>10}{'requests':>10}   against {before.get('name', 'nothing')}"
    )
    for name in arguments.scenarios or SCENARIOS:
        found[name] = _measured(SCENARIOS[name], arguments.repeats)
        print(_row(name, found[name], before.get("scenarios", {}).get(name)), flush=True)
        for line in _missed(SCENARIOS[name], found[name]):
            print(f"{'':10}{line}", flush=True)
    result = {
        "name": arguments.name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "scenarios": found,
    }
    if not arguments.dry:
        path = HERE / "results" / f"{arguments.name}.json"
        path.parent.mkdir(exist_ok=True)
        kept = json.loads(path.read_text(encoding="utf-8"))["scenarios"] if path.exists() else {}
        result["scenarios"] = {**kept, **found}
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path.relative_to(ROOT)}")
    return 1 if any(_missed(SCENARIOS[name], figures) for name, figures in found.items()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    parser.add_argument(
        "--name", default=datetime.now(UTC).date().isoformat(), help="of the file in results/"
    )
    parser.add_argument("--repeats", type=int, help="how often each is run, instead of its own number")
    parser.add_argument("--dry", action="store_true", help="write no file")
    return parser.parse_args()


# --- measuring ------------------------------------------------------------------------------------------


def _measured(scenario: Scenario, repeats: int | None) -> Figures:
    with tempfile.TemporaryDirectory(prefix="reconcile-benchmark-") as folder:
        spec = str(Path(folder, "spec.yaml"))
        command = [spec if one == "SPEC" else one for one in scenario.command]
        if not scenario.size:
            runs = [_run(command, {}, scenario.said) for _ in range(repeats or scenario.repeats)]
            return _medians(runs)
        runs = []
        with _Platform(scenario, spec) as there:
            for _ in range((repeats or scenario.repeats) if scenario.in_sync else 1):
                runs.append(_run(command, there.environment, scenario.said))
                asked = there.requests()
                runs[-1]["requests"] = sum(asked.values())
        return {**_medians(runs), "asked": asked, **_share(scenario, runs[-1], asked)}


def _run(command: list[str], environment: dict[str, str], said: str) -> Figures:
    """One run in a process of its own, and what the kernel says it cost."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        child = subprocess.Popen(
            [RECONCILE, *command],
            cwd=ROOT,
            env={**_as_installed(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    if child.returncode or said not in text:
        sys.exit(f"reconcile {' '.join(command)} ended with {child.returncode} and said\n{text[-3000:]}")
    # The kernel counts in KiB, macOS in bytes.
    memory = used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": memory}


def _as_installed() -> dict[str, str]:
    """The environment, with the compiled modules that an installed program has, wherever this one lies."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(COMPILED)}


def _warm_up() -> None:
    """Have everything compiled that any command imports."""
    with tempfile.TemporaryDirectory(prefix="reconcile-benchmark-") as folder:
        state = str(Path(folder, "sandbox.json"))
        _run(["plan", "specs/prod.yaml", "--sandbox", "--state", state], {}, "to add")


def _medians(runs: list[Figures]) -> Figures:
    found: Figures = {
        name: round(statistics.median(run[name] for run in runs), 3)
        for name in ("wall", "cpu", "memory", "requests")
        if name in runs[0]
    }
    found["fastest"] = round(min(run["wall"] for run in runs), 3)
    found["runs"] = len(runs)
    return found


def _share(scenario: Scenario, run: Figures, asked: dict[str, int]) -> Figures:
    """How much of the creations that 8 requests at once allow was reached, start-up and plan included."""
    made = sum(number for what, number in asked.items() if what.startswith("POST /v3/service_"))
    if not made:
        return {}
    least = made * scenario.latency / 8
    return {
        "made": made,
        "share": round(least / run["wall"], 3),
        "busy": round(run["requests"] * scenario.latency / 8 / run["wall"], 3),
        "requests_each": round(run["requests"] / made, 3),
    }


class _Platform:
    """The other process."""

    def __init__(self, scenario: Scenario, spec: str) -> None:
        keys = ("size", "latency", "in_sync", "operation")
        self._asked = {"spec": spec, **{key: value for key, value in asdict(scenario).items() if key in keys}}
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "served.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.environment = self._answer(json.dumps(self._asked))
        return self

    def __exit__(self, *reason: object) -> None:
        self._process.kill()
        self._process.communicate()

    def requests(self) -> dict[str, int]:
        """Those since the last call."""
        found: dict[str, int] = self._answer("")
        return found

    def _answer(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            sys.exit("the sandbox ended; what it said is above")
        return json.loads(said)


# --- telling --------------------------------------------------------------------------------------------


def _row(name: str, found: Figures, before: Figures | None) -> str:
    text = f"{name:10}{found['wall']:>8.2f}s{found['cpu']:>8.2f}s{found['memory']:>7.0f} MB"
    text += f"{found['requests']:>10.0f}" if "requests" in found else f"{'':10}"
    if before:
        ratios = [
            f"{one} ×{found[one] / before[one]:.2f}"
            for one in ("wall", "cpu", "memory", "requests")
            if before.get(one) and one in found
        ]
        text += "   " + ", ".join(ratios)
    if "share" in found:
        text += f"\n{'':10}{found['made']} made, {found['requests_each']} requests each"
        text += f", {found['share']:.0%} of the rate that 8 at once allow"
    return text


def _missed(scenario: Scenario, found: Figures) -> list[str]:
    return [
        *(
            f"missed: {one} {found[one]:g} > {most:g}"
            for one, most in scenario.most.items()
            if found[one] > most
        ),
        *(
            f"missed: {one} {found[one]:g} < {least:g}"
            for one, least in scenario.least.items()
            if found[one] < least
        ),
    ]


def _last_committed() -> dict[str, Any]:
    """The newest result that is in the repository, as it was committed."""
    said = _git("ls-tree", "--name-only", "HEAD", "benchmarks/results/").split()
    found = [json.loads(_git("show", f"HEAD:{one}")) for one in said if one.endswith(".json")]
    return max(found, key=lambda one: str(one["at"]), default={})


def _git(*arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.stdout if ended.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
