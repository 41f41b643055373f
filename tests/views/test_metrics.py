"""Metrics: one text that is valid as Prometheus' format and as OpenMetrics, and says what an alert needs."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

from btp_reconcile.views import metrics
from tests.views.plans import HOSTILE, change, every_action, field, hostile, plan

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
KEYS = [
    {
        "address": "key:prod/apim/transport",
        "name": "transport",
        "generation": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "retire_after": "2026-01-09T00:00:00Z",
    },
    {
        "address": "key:prod/apim/transport",
        "name": "transport-2",
        "generation": 2,
        "created_at": "2026-01-02T00:00:00Z",
        "not_after": "2026-02-01T00:00:00Z",
        "rotation_due": "2026-01-21T00:00:00Z",
        "verified": {"at": "2026-01-02T00:00:10Z", "verdict": "ok"},
    },
    {"address": "key:prod/apim/missing", "state": "missing"},
]


def samples(text: str) -> Samples:
    """(name, labels) → value, as both parsers read it."""
    first = {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in prometheus.text_string_to_metric_families(text)
        for one in family.samples
    }
    second = {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in openmetrics.text_string_to_metric_families(text)
        for one in family.samples
    }
    assert first == second
    return first


def of(data: dict[str, Any] | None, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one family, by the values of their labels without the run's."""
    found = samples(metrics.text(data, "prod", 1000.5, 2))
    assert all(dict(labels)["run"] == "prod" for _, labels in found)
    return {
        tuple(value for key, value in labels if key != "run"): number
        for (family, labels), number in found.items()
        if family == name
    }


def test_a_run_says_when_it_was_and_how_it_ended() -> None:
    assert of(plan(), "reconcile_last_run_timestamp_seconds") == {(): 1000.5}
    assert of(plan(), "reconcile_last_run_exit_code") == {(): 2}


def test_a_run_that_could_not_compare_says_only_that() -> None:
    names = {name for name, _ in samples(metrics.text(None, "prod", 1000, 3))}

    assert names == {"reconcile_last_run_timestamp_seconds", "reconcile_last_run_exit_code"}


def test_things_are_counted_by_kind_and_state_and_every_word_has_a_series() -> None:
    data = plan(
        change("instance:prod/apim", "update", sync="drifted"),
        change("instance:prod/other", "keep"),
        change("key:test/a/b", "create", health="pending"),
    )
    syncs, healths = of(data, "reconcile_resources"), of(data, "reconcile_health")

    assert {labels for labels, number in syncs.items() if number} == {
        ("instance", "prod", "drifted"),
        ("instance", "prod", "in-sync"),
        ("key", "test", "missing"),
    }
    assert {tuple(reversed(labels)): number for labels, number in healths.items() if number} == {
        ("prod", "instance", "ready"): 2,
        ("test", "key", "pending"): 1,
    }
    assert (len(syncs), len(healths)) == (2 * 6, 2 * 5)


def test_known_drift_is_counted_apart() -> None:
    data = plan(
        change("instance:prod/apim", "update", accepted=True),
        change("instance:prod/other", "update"),
    )

    assert of(data, "reconcile_drifted") == {("instance", "prod"): 1}
    assert of(data, "reconcile_accepted") == {("instance", "prod"): 1}


def test_fields_that_nobody_knows_are_counted() -> None:
    fields = [field("a", None, 1, seen="unknown", changes=False), field("b", 1, 1, changes=False)]

    assert of(plan(change("key:prod/a/b", "keep", fields=fields)), "reconcile_unknown_fields") == {
        ("key", "prod"): 1
    }


def test_what_could_not_be_seen_is_named() -> None:
    where = [
        {"subaccount": "test", "service": "cloud_foundry"},
        {"subaccount": "prod", "service": "cloud_foundry"},
    ]
    closed = {
        "code": "access/none",
        "message": "x",
        "where": [{"subaccount": "a", "service": "entitlements"}],
    }
    data = plan(unseen=[{"code": "platform/unseen", "message": "x", "where": where}, closed])

    assert of(data, "reconcile_unseen") == {("cloud_foundry", "prod"): 1, ("cloud_foundry", "test"): 1}


def test_conflicts_are_counted() -> None:
    assert of(every_action(), "reconcile_objections") == {(): 1}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reconcile_key_created_seconds", {"1": 1767225600, "2": 1767312000}),
        ("reconcile_key_not_after_seconds", {"2": 1769904000}),
        ("reconcile_key_rotation_due_seconds", {"2": 1768953600}),
        ("reconcile_key_retire_after_seconds", {"1": 1767916800}),
        ("reconcile_key_verified_seconds", {"2": 1767312010}),
    ],
)
def test_the_times_of_a_key_are_seconds_since_1970(name: str, expected: dict[str, float]) -> None:
    assert of(plan(keys=KEYS), name) == {
        ("key:prod/apim/transport", generation): at for generation, at in expected.items()
    }


def test_two_keys_of_one_generation_give_one_sample() -> None:
    assert of(plan(keys=[KEYS[0], KEYS[0]]), "reconcile_key_created_seconds") == {
        ("key:prod/apim/transport", "1"): 1767225600
    }


def test_no_sample_has_a_time_of_its_own() -> None:
    lines = metrics.text(every_action(keys=KEYS), "prod", 1000, 2).splitlines()

    assert {len(line.rpartition("} ")[2].split()) for line in lines if not line.startswith("#")} == {1}


@pytest.mark.parametrize("text", [*HOSTILE, 'a"b', "a\\b", "a\nb"], ids=ascii)
def test_labels_are_escaped(text: str) -> None:
    whole = metrics.text(hostile(text), text, 1000, 0)

    assert samples(whole)
    assert all(line.isprintable() for line in whole.splitlines())


def test_the_name_of_the_file_is_read_back_as_it_was() -> None:
    ((_, labels), *_rest) = samples(metrics.text(None, 'a"b\\c', 1000, 0))

    assert labels == (("run", 'a"b\\c'),)


@pytest.mark.promtool
@pytest.mark.parametrize("data", [None, every_action(keys=KEYS), *map(hostile, HOSTILE)], ids=lambda one: "")
def test_promtool_finds_nothing_wrong(data: dict[str, Any] | None) -> None:
    checked = promtool(metrics.text(data, "prod", 1000.25, 2))

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.promtool
def test_promtool_finds_what_is_wrong() -> None:
    broken = metrics.text(every_action(), "prod", 1000, 2).replace("# TYPE reconcile_drifted gauge\n", "")

    assert promtool(broken + "reconcile_x{\n").returncode != 0


def promtool(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
