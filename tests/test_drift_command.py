"""`reconcile drift` as people, CI systems and monitoring start it, against the embedded sandbox."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from junitparser import JUnitXml
from prometheus_client.openmetrics import parser as openmetrics

from btp_reconcile.core.baseline import FORMAT

if TYPE_CHECKING:
    from tests.commands import Desk

DRIFT = ("drift", "--sandbox")
SPEC = "specs/prod.yaml"
APIM = "instance:prod/apim"


def tagged(desk: Desk, tag: str = "billing") -> None:
    """The spec wants a tag that is not there."""
    path = desk.folder / SPEC
    text = path.read_text(encoding="utf-8")
    line = "        api: api-management\n"
    assert text.count(line) == 1
    path.write_text(text.replace(line, f"{line}        tags: [{tag}]\n"), encoding="utf-8")


def away(desk: Desk) -> None:
    """Cloud Foundry refuses whatever it is asked."""
    assert desk.run("sandbox", "faults", "add", "refuse", "--path", "^/v3/service_instances").code == 0


def measured(desk: Desk, name: str = "prod.prom") -> dict[tuple[str, ...], float]:
    """Name and the values of the labels → value."""
    text = (desk.folder / name).read_text(encoding="utf-8")
    return {
        (one.name, *(value for key, value in sorted(one.labels.items()) if key != "run")): one.value
        for family in openmetrics.text_string_to_metric_families(text)
        for one in family.samples
    }


# --- formats --------------------------------------------------------------------------------------------


def test_junit_is_printed_whole_and_the_exit_code_stays(in_sync: Desk) -> None:
    tagged(in_sync)
    ended = in_sync.run(*DRIFT, "--format", "junit")

    assert ended.code == 2
    assert JUnitXml.fromstring(ended.out.encode()).failures >= 1


def test_sarif_names_the_line_of_the_spec(in_sync: Desk) -> None:
    tagged(in_sync)
    ended = in_sync.run(*DRIFT, "--format", "sarif")
    (run,) = json.loads(ended.out)["runs"]
    places = {
        one["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]: one["locations"][0][
            "physicalLocation"
        ]
        for one in run["results"]
    }
    line = places[APIM]["region"]["startLine"]
    text = (in_sync.folder / SPEC).read_text(encoding="utf-8").splitlines()

    assert (ended.code, run["invocations"][0]["exitCode"]) == (2, 2)
    assert places[APIM]["artifactLocation"]["uri"] == SPEC
    assert text[line - 1].strip().startswith("apim:")


@pytest.mark.parametrize("format_", ["text", "json", "markdown", "html", "junit", "sarif"])
def test_every_format_says_something_and_ends_the_same(in_sync: Desk, format_: str) -> None:
    ended = in_sync.run(*DRIFT, "--format", format_)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("\n")


@pytest.mark.parametrize("format_", ["junit", "sarif"])
def test_wrong_specs_are_told_in_the_format_that_was_asked_for(desk: Desk, format_: str) -> None:
    desk.write("x.yaml", "version: 1\nowner: x\ncolour: red\n")
    ended = desk.run("drift", "x.yaml", "--sandbox", "--format", format_)

    assert ended.code == 3
    assert "colour" in ended.err
    if format_ == "junit":
        assert JUnitXml.fromstring(ended.out.encode()).errors == 1
    else:
        (result,) = json.loads(ended.out)["runs"][0]["results"]
        assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 3, "startColumn": 1}


def test_json_says_the_state_of_everything_and_of_every_key(in_sync: Desk) -> None:
    shown = json.loads(in_sync.run(*DRIFT, "--format", "json").out)

    assert {(one["sync"], one["health"]) for one in shown["changes"]} == {("in-sync", "ready")}
    assert len(shown["keys"]) == sum(one["address"].startswith("key:") for one in shown["changes"])
    assert shown["now"].endswith("Z")


# --- metrics --------------------------------------------------------------------------------------------


def test_metrics_are_written_readable_for_the_exporter(in_sync: Desk) -> None:
    before = time.time()
    ended = in_sync.run(*DRIFT, "--metrics", "prod.prom")
    found = measured(in_sync)

    assert (ended.code, ended.err) == (0, "")
    assert (in_sync.folder / "prod.prom").stat().st_mode & 0o777 == 0o644
    assert found["reconcile_last_run_exit_code",] == 0
    assert before - 1 <= found["reconcile_last_run_timestamp_seconds",] <= time.time() + 1
    assert found["reconcile_drifted", "instance", "prod"] == 0
    assert ("reconcile_key_not_after_seconds", "key:prod/apim/pipeline", "1") in found


def test_drift_is_measured(in_sync: Desk) -> None:
    tagged(in_sync)
    in_sync.run(*DRIFT, "--metrics", "prod.prom")
    found = measured(in_sync)

    assert found["reconcile_last_run_exit_code",] == 2
    assert found["reconcile_drifted", "instance", "prod"] == 1
    assert found["reconcile_resources", "instance", "prod", "drifted"] == 1


def test_what_could_not_be_seen_is_measured_too(in_sync: Desk) -> None:
    away(in_sync)
    ended = in_sync.run(*DRIFT, "--metrics", "prod.prom")
    found = measured(in_sync)

    assert ended.code == 1
    assert found["reconcile_last_run_exit_code",] == 1
    assert found["reconcile_unseen", "cloud_foundry", "prod"] == 1


def test_a_check_that_could_not_compare_does_not_look_well(in_sync: Desk) -> None:
    in_sync.run(*DRIFT, "--metrics", "prod.prom")
    in_sync.write(SPEC, "version: 1\nowner: x\ncolour: red\n")
    ended = in_sync.run(*DRIFT, "--metrics", "prod.prom")

    assert ended.code == 3
    assert {name: value for (name, *_), value in measured(in_sync).items() if "time" not in name} == {
        "reconcile_last_run_exit_code": 3
    }


def test_metrics_take_the_place_of_the_old_ones_whole(in_sync: Desk) -> None:
    in_sync.write("prod.prom", "older")
    in_sync.run(*DRIFT, "--metrics", "prod.prom")

    assert measured(in_sync)
    assert [one.name for one in in_sync.folder.iterdir() if one.name.startswith(".prod")] == []


def test_two_files_hold_no_sample_in_common(in_sync: Desk) -> None:
    in_sync.run(*DRIFT, "--metrics", "one.prom")
    in_sync.run(*DRIFT, "--metrics", "two.prom")
    lines = [
        {
            line.rpartition(" ")[0]
            for line in (in_sync.folder / name).read_text("utf-8").splitlines()
            if line[0] != "#"
        }
        for name in ("one.prom", "two.prom")
    ]

    assert lines[0]
    assert lines[0] & lines[1] == set()


def test_a_name_that_the_exporter_passes_over_is_said(in_sync: Desk) -> None:
    ended = in_sync.run(*DRIFT, "--metrics", "metrics.txt")

    assert ended.code == 0
    assert "reads no file but *.prom" in ended.err
    assert measured(in_sync, "metrics.txt")


@pytest.mark.parametrize("option", ["--metrics", "--write-baseline"])
def test_a_folder_that_is_not_there_is_said_before_anything_is_asked(desk: Desk, option: str) -> None:
    ended = desk.run(*DRIFT, option, "nowhere/x.prom")

    assert (ended.code, ended.err) == (64, f"Error: {option}: there is no folder nowhere; make it first\n")
    assert not desk.state.exists()


def test_metrics_that_cannot_be_written_end_with_1(in_sync: Desk) -> None:
    (in_sync.folder / "full.prom").symlink_to("/dev/full")
    ended = in_sync.run(*DRIFT, "--metrics", "full.prom")

    assert ended.code == 1
    assert ended.err == "full.prom: the metrics could not be written: No space left on device\n"


# --- the baseline ---------------------------------------------------------------------------------------


def test_accepted_drift_ends_with_0_until_something_else_differs(in_sync: Desk) -> None:
    before = (in_sync.folder / SPEC).read_text(encoding="utf-8")
    tagged(in_sync)
    written = in_sync.run(*DRIFT, "--write-baseline", "known.json")
    again = in_sync.run(*DRIFT, "--baseline", "known.json")
    in_sync.write(SPEC, before)
    tagged(in_sync, "sales")
    other = in_sync.run(*DRIFT, "--baseline", "known.json")

    assert (written.code, again.code, other.code) == (0, 0, 2)
    assert (in_sync.folder / "known.json").stat().st_mode & 0o777 == 0o644
    assert f"    {APIM}: differs: tags" in again.out
    assert again.out.splitlines()[-1].startswith("No new drift: ")


def test_new_drift_beside_accepted_drift_ends_with_2_and_is_counted_alone(in_sync: Desk) -> None:
    tagged(in_sync)
    in_sync.run(*DRIFT, "--write-baseline", "known.json")
    accepted = {one["address"] for one in known(in_sync)["accepted"]}
    text = (in_sync.folder / SPEC).read_text(encoding="utf-8")
    (in_sync.folder / SPEC).write_text(
        text.replace("task-center: {}", "task-center: {}\n          more: {}"), encoding="utf-8"
    )
    ended = in_sync.run(*DRIFT, "--baseline", "known.json", "--metrics", "prod.prom", "--format", "json")
    found = measured(in_sync)
    fresh = {
        one["address"]
        for one in json.loads(ended.out)["changes"]
        if one["drifted"] and not one.get("accepted")
    }

    assert ended.code == 2
    assert APIM in accepted
    assert fresh == {"key:prod/afc-api/more"}
    assert (found["reconcile_drifted", "key", "prod"], found["reconcile_accepted", "instance", "prod"]) == (
        1,
        1,
    )


def test_what_is_as_the_spec_says_again_is_told(in_sync: Desk) -> None:
    before = (in_sync.folder / SPEC).read_text(encoding="utf-8")
    tagged(in_sync)
    in_sync.run(*DRIFT, "--write-baseline", "known.json")
    in_sync.write(SPEC, before)
    ended = in_sync.run(*DRIFT, "--baseline", "known.json")

    assert ended.code == 0
    assert "In the baseline, and not so any more" in ended.out
    assert f"    {APIM}: differs: tags" in ended.out


def test_a_baseline_is_not_written_while_something_could_not_be_seen(in_sync: Desk) -> None:
    in_sync.write("known.json", "older")
    away(in_sync)
    ended = in_sync.run(*DRIFT, "--write-baseline", "known.json")

    assert ended.code == 1
    assert "known.json is left as it is: not everything could be seen" in ended.err
    assert (in_sync.folder / "known.json").read_text(encoding="utf-8") == "older"


@pytest.mark.parametrize("option", [("--target", APIM), ("--shard", "1/2")], ids=" ".join)
def test_a_baseline_takes_everything(desk: Desk, option: tuple[str, str]) -> None:
    ended = desk.run(*DRIFT, "--write-baseline", "known.json", *option)

    assert (ended.code, ended.err) == (
        64,
        "Error: --write-baseline takes everything: leave out --target and --shard\n",
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff", json.dumps({"format": FORMAT, "version": 9})])
def test_what_is_no_baseline_is_answered_before_anything_is_asked(desk: Desk, text: str) -> None:
    (desk.folder / "known.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    ended = desk.run(*DRIFT, "--baseline", "known.json")

    assert ended.code == 64
    assert ended.err.startswith("Error: --baseline: known.json ")


def test_a_baseline_that_is_not_there_is_said(desk: Desk) -> None:
    ended = desk.run(*DRIFT, "--baseline", "known.json")

    assert (ended.code, ended.err) == (
        64,
        "Error: --baseline: known.json cannot be read: No such file or directory\n",
    )


def known(desk: Desk) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((desk.folder / "known.json").read_text(encoding="utf-8"))
    return found
