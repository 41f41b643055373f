"""`reconcile drift --every`: an hour of trouble with a moved clock, and a real process that is asked and stopped."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import tracemalloc
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import clear_cache  # type: ignore[attr-defined] # there for tests, says the library's own text

import pytest
from prometheus_client.parser import text_string_to_metric_families

from btp_reconcile.cli.drift import look_once
from btp_reconcile.cli.watch import checking, pages
from btp_reconcile.cli.world import Lasting, Setting, Stopping
from btp_reconcile.core.errors import UsageError
from btp_reconcile.core.watch import LATE, Checked, Status, dice_of, pause, wait
from btp_reconcile.edges.clock import Interrupted, MovingClock
from btp_reconcile.edges.service import Service
from btp_reconcile.edges.tokens import People
from tests import test_cli

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from tests.commands import Desk

real = test_cli.real
SPEC = "specs/prod.yaml"
START = 1_767_225_600.0
CLOUD_FOUNDRY = ("--path", "^/v3/service_instances")


def measured(text: str) -> dict[tuple[str, ...], float]:
    """Name and the values of the labels → value."""
    return {
        (one.name, *(value for key, value in sorted(one.labels.items()) if key != "run")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


class Rig:
    """A service over a desk's sandbox, which lives by a clock that is moved."""

    def __init__(
        self,
        desk: Desk,
        checks: int,
        before: Callable[[int], None],
        *,
        spec: str = SPEC,
        sandbox: bool = True,
    ) -> None:
        self.desk = desk
        self.spec = spec
        self.clock = MovingClock(START)
        self.lasting = Lasting(Stopping(self.clock), People())
        self.checks: list[tuple[Checked, Status]] = []
        self.setting = Setting(sandbox=sandbox, state=None, allow_host=(), parallel=2, lasting=self.lasting)
        self.left = checks
        self.before = before
        self.number = 0
        self.made = checking(self.look, lambda: False)
        self.service = Service(
            self.check,
            clock=self.clock,
            every=60.0,
            jitter=10,
            host="host",
            requests=lambda: self.lasting.requests,
        )
        self.page = pages(self.service, self.clock.now)

    def look(self) -> tuple[Mapping[str, Any], int]:
        with self.setting.world(lambda *_: None) as world:
            return look_once([self.spec], world, (), None, None)

    def check(self) -> Checked:
        if self.number == self.left:
            raise Interrupted("enough")
        self.before(self.number)
        self.number += 1
        return self.made()

    def run(self, told: Callable[[int, dict[tuple[str, ...], float]], None]) -> None:
        self.service.run(lambda *_: told(self.number - 1, measured(self.page("/metrics").text)))


def fault(desk: Desk, *words: str) -> None:
    assert desk.run("sandbox", "faults", "add", *words).code == 0


def tags(desk: Desk, *names: str) -> None:
    """Somebody changes the tags of an instance by hand."""
    with desk.sandbox().hold() as world:
        (row,) = [one for one in world.table("cf.service_instances").values() if one["name"] == "apim"]
        row["tags"] = list(names)


def threads() -> int:
    """How many there are, once those of the last check have had a moment to end."""
    before = set(threading.enumerate())
    for one in before - {threading.current_thread()}:
        one.join(2)
    return threading.active_count()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


PASSING = (
    ("cf-429", "--times", "1"),
    ("cf-500", "--times", "2"),
    ("html", "--times", "2", "--host", "*"),
    ("reset", "--times", "1", "--method", "GET"),
    ("expire-tokens", "--at", "4"),
    ("slow", "--times", "1", "--method", "GET"),
    ("uaa-429", "--times", "1"),
    ("small-pages",),
)
"""What a check gets over by itself."""


def test_an_hour_of_trouble_is_told_as_it_was_and_leaves_nothing_behind(in_sync: Desk) -> None:
    """Drift by hand every ninth check for three checks, no Cloud Foundry every tenth, broken specs every thirteenth."""
    good = (in_sync.folder / SPEC).read_text(encoding="utf-8")
    truth: list[dict[str, Any]] = []
    held: list[tuple[int, int, int]] = []

    def before(number: int) -> None:
        in_sync.run("sandbox", "faults", "clear")
        drifted, away, broken = number % 9 in {4, 5, 6}, number % 10 == 7, number % 13 == 11
        tags(in_sync, *(["by-hand"] if drifted else []))
        if away:
            fault(in_sync, "refuse", *CLOUD_FOUNDRY)
        else:
            fault(in_sync, *PASSING[number % len(PASSING)])
        in_sync.write(SPEC, "version: 1\nowner: x\ncolour: red\n" if broken else good)
        truth.append({"drifted": drifted, "away": away, "broken": broken})

    def told(number: int, found: dict[tuple[str, ...], float]) -> None:
        now = truth[number]
        failed = sum(one["away"] or one["broken"] for one in truth)
        shown = next(one for one in reversed(truth) if not one["broken"])
        code = 3 if now["broken"] else 1 if now["away"] else 2 if now["drifted"] else 0
        expected = {
            ("reconcile_checks_total",): number + 1,
            ("reconcile_check_failures_total",): failed,
            ("reconcile_spec_errors",): 1.0 if now["broken"] else 0.0,
            ("reconcile_last_run_exit_code",): code,
            ("reconcile_last_run_timestamp_seconds",): round(rig.clock.now(), 3),
            ("reconcile_unseen", "cloud_foundry", "prod"): 1.0 if shown["away"] else None,
            ("reconcile_drifted", "instance", "prod"): float(shown["drifted"] and not shown["away"]),
        }
        asked = {key[1]: value for key, value in found.items() if key[0] == "reconcile_requests_total"}

        assert {key: found.get(key) for key in expected} == expected, number
        assert asked == {name: float(count) for name, count in rig.lasting.requests.items()}
        if not now["away"] and not now["broken"]:
            assert found["reconcile_last_success_timestamp_seconds",] == round(rig.clock.now(), 3)
        assert rig.page("/healthz").status == 200
        if number == 20:
            tracemalloc.start()
        if number > 20:
            clear_cache()  # the library remembers the last addresses it took apart; that is no leak, it has an end
            held.append((threads(), descriptors(), tracemalloc.get_traced_memory()[0]))

    rig = Rig(in_sync, 60, before)
    try:
        rig.run(told)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert rig.service.status.checks == 60
    assert rig.clock.now() - START > 59 * 60 * 0.9
    assert {one[:2] for one in held} == {held[0][:2]}
    # What one check finds is some 100 KB. If anything of it stayed, twenty checks would show; bounded caches may fill.
    assert max(one[2] for one in held[20:]) < max(one[2] for one in held[:20]) + 256 * 1024
    assert peak < 64 * 1024 * 1024


def test_broken_specs_keep_the_last_figures_and_are_told_by_place_alone(in_sync: Desk) -> None:
    def before(number: int) -> None:
        if number == 1:
            in_sync.write(SPEC, "version: 1\nowner: x\nsecretword: red\n")

    rig = Rig(in_sync, 2, before)
    seen: list[dict[tuple[str, ...], float]] = []
    rig.run(lambda _, found: seen.append(found))
    health = json.loads(rig.page("/healthz").text)
    kept = ("reconcile_resources", "instance", "prod", "in-sync")

    assert (seen[0][kept], seen[1][kept]) == (seen[0][kept], seen[0][kept])
    assert (health["last_result"], health["spec_errors"]) == ("spec", len(health["problems"]))
    assert any(f"{SPEC}:3:1" in one for one in health["problems"])
    assert "secretword" not in rig.page("/healthz").text + rig.page("/metrics").text


def test_a_refused_password_is_not_tried_again_by_the_next_check(in_sync: Desk) -> None:
    """Repeats lock accounts. What signs in without a password is asked as before."""
    fault(in_sync, "lock-account", "--seconds", "100000")
    rig = Rig(in_sync, 4, lambda _: None)
    signed_in = [0]

    rig.run(lambda *_: signed_in.append(rig.lasting.requests["sign_in"]))
    each = [after - before for before, after in pairwise(signed_in)]

    assert rig.service.status.failures == 4
    assert each == [each[1] + 1, each[1], each[1], each[1]]


def test_a_check_that_takes_too_long_delays_the_next_and_the_service_is_called_ill() -> None:
    clock = MovingClock(START)
    begun: list[float] = []
    ill: list[str] = []

    def check() -> Checked:
        begun.append(clock.now() - START)
        if len(begun) == 3:
            raise Interrupted("enough")
        clock.sleep(200.0)
        ill.append(service.status.ill(clock.now()))
        return Checked(0, {"unseen": []})

    service = Service(check, clock=clock, every=60.0, jitter=0, host="x")
    service.run(lambda *_: None)

    assert begun == [0.0, 206.0, 412.0]
    assert ill == [
        "no check has ended: 200 s, at an interval of 60 s",
        "the last check ended long ago: 206 s, at an interval of 60 s",
    ]


def test_intervals_vary_within_the_jitter_and_the_first_one_by_the_hosts_name() -> None:
    clock = MovingClock(START)

    def check() -> Checked:
        if len(clock.slept) == 60:
            raise Interrupted("enough")
        return Checked(0, {"unseen": []})

    Service(check, clock=clock, every=900.0, jitter=10, host="one").run(lambda *_: None)
    firsts = {round(pause(900.0, 10, dice_of(f"host-{number}")), 3) for number in range(100)}

    assert clock.slept[0] == pytest.approx(pause(900.0, 10, dice_of("one")))
    assert 810 <= min(clock.slept) < 850
    assert 950 < max(clock.slept) <= 990
    assert len(firsts) == 100
    assert 810 <= min(firsts) < 850
    assert 950 < max(firsts) <= 990
    assert wait(0.0, 5.0, 60.0, 60.0) == 55.0


def test_what_hangs_is_ill_and_what_has_seen_nothing_is_not_ready() -> None:
    status = Status(START, 60.0)
    later = START + LATE * 60.0 + 1
    checked = status.after(Checked(1), later, later, {})

    assert (status.ill(START + 180), bool(status.ill(later))) == ("", True)
    assert status.unready() == "no check could compare anything yet"
    assert (checked.ill(later), checked.unready()) == ("", "no check could compare anything yet")
    assert checked.failures == 1


def test_wrong_usage_ends_the_first_check_and_no_later_one(capfd: pytest.CaptureFixture[str]) -> None:
    def wrong() -> tuple[dict[str, Any], int]:
        raise UsageError("there is no such thing")

    def well() -> tuple[dict[str, Any], int]:
        return {"unseen": []}, 0

    looks = iter([well, wrong])

    def next_one() -> tuple[dict[str, Any], int]:
        return next(looks)()

    check = checking(next_one, lambda: False)
    with pytest.raises(UsageError):
        checking(wrong, lambda: False)()

    assert (check().code, check().code) == (0, 64)
    assert capfd.readouterr().err == "Error: there is no such thing\n"


def test_a_defect_of_one_check_is_said_and_the_next_one_is_made(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> tuple[dict[str, Any], int]:
        raise ZeroDivisionError("the password is hunter2")

    check = checking(broken, lambda: False)
    found = [check(), check()]
    said = capfd.readouterr().err

    assert [(one.code, one.failed) for one in found] == [(1, True), (1, True)]
    assert said.count("ZeroDivisionError") == 2
    assert "hunter2" not in said


# --- a real process -------------------------------------------------------------------------------------


@contextmanager
def started(desk: Desk, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service and its port; killed if it is still there."""
    with desk.start(
        "drift", "--sandbox", "--every", "15m", "--listen", "127.0.0.1:0", "--log-format", "json", *options
    ) as running:
        try:
            assert running.stderr is not None
            said = json.loads(running.stderr.readline())
            yield running, int(said["address"].rpartition(":")[2])
        finally:
            running.kill()


def got(port: int, path: str) -> tuple[int, str, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_answers_and_ends_with_0_when_it_is_stopped(in_sync: Desk, number: int) -> None:
    with started(in_sync, "--format", "json") as (running, port):
        assert running.stdout is not None
        line = json.loads(running.stdout.readline())
        metrics = got(port, "/metrics")
        health = got(port, "/healthz")
        ready = got(port, "/readyz")
        running.send_signal(number)
        out, err = running.communicate(timeout=5)

    assert (running.returncode, out) == (0, "")
    assert json.loads(err.splitlines()[-1])["event"] == "stopped"
    assert (line["code"], line["result"], line["drifted"]) == (0, "in-sync", [])
    assert metrics[:2] == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert measured(metrics[2])["reconcile_checks_total",] == 1
    assert (health[0], json.loads(health[2])["status"], ready[0]) == (200, "ok", 200)


@pytest.mark.parametrize("answer", ["later", "never"])
def test_a_process_that_is_stopped_in_the_middle_of_a_check_ends_with_0_all_the_same(
    real: Desk, answer: str
) -> None:
    match = {"method": "GET", "path": "^/v3/service_instances"}
    wait_long = {"do": "cf-503", "headers": {"Retry-After": "50"}}
    test_cli.fault({"match": match, **(wait_long if answer == "later" else {"do": "slow", "seconds": 9})})
    options = ("--every", "15m", "--listen", "127.0.0.1:0", "--log-format", "json")
    with real.start("drift", "real.yaml", *options) as running:
        assert running.stderr is not None
        port = int(json.loads(running.stderr.readline())["address"].rpartition(":")[2])
        if answer == "later":
            assert json.loads(running.stderr.readline())["event"] == "retry"
        during = (got(port, "/healthz")[0], got(port, "/readyz")[0], got(port, "/metrics")[0])
        ended, took = test_cli.ended_by(running, signal.SIGTERM)
    test_cli.no_faults()

    assert (ended.code, ended.out, took < 5) == (0, "", True)
    assert during == (200, 503, 200)


def test_checks_over_real_connections_leave_none_open(real: Desk) -> None:
    """The platform is served in this very process, and closes its ends a moment later: hence the few beside."""
    rig = Rig(real, 30, lambda _: None, spec="real.yaml", sandbox=False)
    held: list[int] = []
    codes: set[float] = set()

    def told(_: int, found: dict[tuple[str, ...], float]) -> None:
        held.append(descriptors())
        codes.add(found["reconcile_check_failures_total",])

    rig.run(told)

    assert codes == {0.0}
    assert max(held[-5:]) <= max(held[:5]) + 6
    assert rig.lasting.requests["cloud_foundry"] >= 30


def test_a_check_in_text_is_one_line(in_sync: Desk) -> None:
    tags(in_sync, "by-hand")
    with started(in_sync) as (running, _):
        assert running.stdout is not None
        line = running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=5)

    assert re.fullmatch(r"\S+Z drift: [0-9]+ in-sync, 1 drifted; differs: instance:prod/apim\n", line), line
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--every", "5s"), "--every: 5s is too often; once a minute (1m) is the most"),
        (("--every", "soon"), "--every: 'soon' is no duration"),
        (("--every", "1000000h"), "--every: '1000000h' is longer than anything lasts here"),
        (("--every", "99999w"), "--every: 99999w is longer than 52w, which is the most"),
        (("--every", "53w"), "--every: 53w is longer than 52w, which is the most"),
        (("--every", "15m", "--metrics", "x.prom"), "--metrics is for one check: leave out --every"),
        (("--every", "15m", "--format", "html"), "--every prints a line for each check"),
        (("--every", "15m", "--listen", "example.com:1"), "--listen: example.com is no IP address"),
        (("--listen", "9464"), "--listen belongs to a service: add --every 15m, or leave it out"),
        (("--jitter", "5"), "--jitter belongs to a service: add --every 15m, or leave it out"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(
    desk: Desk, options: tuple[str, ...], said: str
) -> None:
    ended = desk.run("drift", "--sandbox", *options)

    assert ended.code == 64
    assert ended.err.startswith(f"Error: {said}")
    assert not desk.state.exists()


def test_an_address_that_somebody_else_has_is_named(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = desk.run("drift", "--sandbox", "--every", "15m", "--listen", address)

    assert ended.code == 64
    assert ended.err.startswith(f"Error: --listen: {address} cannot be had: Address already in use")
    assert ended.err.endswith("; name another\n")
