"""What people see and call: exit codes, streams, prompts, plan files, and the sandbox for people."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import pytest
import requests

from btp_reconcile import __version__, cli
from btp_reconcile.cli import planfile, written
from btp_reconcile.core import report
from btp_reconcile.edges import files
from btp_reconcile.sandbox import Sandbox, serve
from tests.commands import PROGRAM, Desk, Ended, Terminal, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSI = re.compile("\x1b")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
GUID = "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10"
NINE = [
    "entitlement:prod/afc-api-service/standard",
    "entitlement:prod/apimanagement-apiportal/apiportal-apiaccess",
    "instance:prod/afc-api",
    "instance:prod/apim",
    "key:prod/afc-api/task-center",
    "key:prod/afc-api/identity-provisioning",
    "key:prod/apim/transport",
    "key:prod/apim/pipeline",
    "destination:prod/APIManagement",
]
"""What specs/prod.yaml asks for. The key of the destination is proven first: applying takes ten steps."""


def spec(instances: str, *, name: str = "prod", more: str = "") -> str:
    """A spec with one subaccount in Cloud Foundry."""
    return f"""\
version: 1
owner: team
name: {name}
defaults: {{runtime: cloudfoundry}}
subaccounts:
  prod:
    id: {GUID}
    region: eu10
    cloud_foundry: {{org: finance-prod, space: apis}}
    {more}
    instances:
{instances}
"""


def world(**subaccount: Any) -> dict[str, Any]:
    """The subaccount of such a spec, as a world that was there before."""
    foundry = {"landscape": "eu10", "org": "finance-prod", "spaces": ["apis"]}
    return {"subaccounts": {"prod": {"id": GUID, "region": "eu10", "cloud_foundry": foundry, **subaccount}}}


def strange(name: str = "one", **more: Any) -> dict[str, Any]:
    """An instance that somebody made by hand."""
    where = {"runtime": "cloudfoundry", "space": "apis", "service": "sandbox-config", "plan": "standard"}
    return {**where, "name": name, **more}


def ours(name: str = "one", owner: str = "team", spec_name: str = "prod") -> dict[str, str]:
    mark = {"owner": owner, "spec": spec_name, "name": name, "generation": "1"}
    return {f"btp.reconcile/{key}": value for key, value in mark.items()}


RUNNING = {"type": "create", "state": "in progress", "description": ""}
CONFIG = "      one: {service: sandbox-config, plan: standard}\n"
GATED = "      two: {api: afc, space: no-such-space-is-made}\n"


# --- exit codes -----------------------------------------------------------------------------------------


def test_the_table_of_exit_codes_is_what_the_code_says() -> None:
    listed = re.findall(r"^ +(\d+)  ", cli.EXIT_CODES, re.MULTILINE)

    assert [int(one) for one in listed] == [
        report.USAGE,
        report.SPEC,
        report.REFUSED,
        report.FAILED,
        report.PERSON,
        report.PENDING,
        report.CHANGES,
        report.DONE,
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "--nonsense",
        "plan --nonsense",
        "plan --format xml",
        "plan --parallel 0",
        "plan --parallel many",
        "plan --out",
        "plan --target instance --sandbox",
        "plan --target instance:prod//x --sandbox",
        "plan --state world.json",
        "apply --yes --timeout 5 --sandbox",
        "apply --yes --timeout 99999w --sandbox",
        "rotate --due --yes --timeout 8737h --sandbox",
        "sandbox advance 521w",
        "apply /dev/zero.json",
        "apply --yes --timeout -1m --sandbox",
        "apply --sandbox",
        "apply nothing.json",
        "drift --prune",
        "init a.yaml b.yaml",
        "init ''",
        "init specs",
        "kinds nonsense",
        "catalogue nonsense",
        "schema nonsense",
        "sandbox",
        "sandbox nonsense",
        "sandbox start --port 65536",
        "sandbox reset --state specs",
    ],
)
def test_wrong_usage_ends_with_64_and_says_why(desk: Desk, line: str) -> None:
    ended = desk.shell(f"reconcile {line}")

    assert (ended.code, ended.out) == (64, "")
    assert "Error: " in ended.err or ended.err.startswith("Usage: ")
    assert "Traceback" not in ended.err


def test_a_misspelt_name_gets_the_nearest(in_sync: Desk) -> None:
    said = [
        in_sync.run(*line.split()).err
        for line in (
            "plan --sandbox --target instance:prod/apin",
            "drift --sandbox --target key:prod/apim/tansport",
            "plan --sandbox --reapply instance:prod/afc-apy",
            "apply --yes --sandbox --allow instance:prod/afc-ap",
            "catalogue api-managment",
            "kinds instances",
        )
    ]

    assert said == [
        "Error: --target: there is no instance:prod/apin; did you mean 'instance:prod/apim'?\n",
        "Error: --target: there is no key:prod/apim/tansport; did you mean 'key:prod/apim/transport'?\n",
        "Error: --reapply: there is no instance:prod/afc-apy; did you mean 'instance:prod/afc-api'?\n",
        "Error: --allow: there is no instance:prod/afc-ap; did you mean 'instance:prod/afc-api'?\n",
        "Error: the catalogue has no 'api-managment'; did you mean 'api-management'?\n",
        "Error: there is no kind 'instances'; did you mean 'instance'?\n",
    ]


def test_without_credentials_a_plan_ends_with_3_and_names_each_variable(desk: Desk) -> None:
    ended = desk.run("plan", "specs/prod.yaml")

    assert (ended.code, ended.out) == (3, "")
    for name in ("BTP_CIS_CENTRAL_KEY", "CF_USER", "CF_PASSWORD"):
        assert f"the environment variable {name} is not set" in ended.err
        assert (
            f"set {name}, or rehearse without any account: add --sandbox  [input/unset-variable]" in ended.err
        )


def test_credentials_that_nobody_declared_are_missed_by_name(desk: Desk) -> None:
    desk.write("bare.yaml", spec(CONFIG))

    ended = desk.run("plan", "bare.yaml")

    assert (ended.code, ended.out) == (3, "")
    assert "no credentials for Cloud Foundry of subaccount prod" in ended.err
    assert "CF_USER" in ended.err
    assert "--sandbox" in ended.err


def test_what_is_in_sync_ends_with_0(in_sync: Desk) -> None:
    planned = in_sync.run("plan", "--sandbox", "--detailed-exitcode")
    drifted = in_sync.run("drift", "--sandbox")
    applied = in_sync.run("apply", "--sandbox", "--yes")

    assert planned == Ended(0, "No changes: 9 in sync.\n", "")
    assert drifted == Ended(0, "In sync: 9 checked, no drift.\n", "")
    assert applied == Ended(0, "No changes: 9 in sync.\n", "")


def test_changes_end_a_plan_with_0_and_a_detailed_one_with_2(desk: Desk) -> None:
    assert desk.run("plan", "--sandbox").code == 0
    assert desk.run("plan", "--sandbox", "--detailed-exitcode").code == 2
    assert desk.run("drift", "--sandbox").code == 2


def test_what_runs_at_the_platform_ends_a_detailed_plan_with_5(desk: Desk) -> None:
    desk.sandbox().seed(world(instances=[strange(labels=ours(), last_operation=RUNNING)]))
    desk.write("x.yaml", spec(CONFIG + "      new: {service: sandbox-config, plan: standard}\n"))

    assert desk.run("plan", "x.yaml", "--sandbox").code == 0
    assert desk.run("plan", "x.yaml", "--sandbox", "--detailed-exitcode").code == 5


def test_what_waits_for_a_person_ends_a_detailed_plan_with_6_before_5(desk: Desk) -> None:
    not_entitled = {"global_account": {"entitlements": {"sandbox-config": {"standard": {"amount": 1}}}}}
    running = [strange(labels=ours(), last_operation=RUNNING)]
    desk.sandbox().seed({**not_entitled, **world(instances=running)})
    desk.write("x.yaml", spec(CONFIG + "      two: {api: afc}\n"))

    planned = desk.run("plan", "x.yaml", "--sandbox", "--detailed-exitcode")
    applied = desk.run("apply", "x.yaml", "--sandbox", "--yes", "--timeout", "0s")

    assert planned.code == 6
    assert "waits for a person: " in planned.out
    assert applied.code == 6


def test_a_platform_that_fails_ends_with_1_before_6(desk: Desk) -> None:
    not_entitled = {"global_account": {"entitlements": {"sandbox-config": {"standard": {"amount": 1}}}}}
    sandbox = desk.sandbox()
    sandbox.seed({**not_entitled, **world()})
    sandbox.faults.add({"match": {"path": "^/v3/spaces"}, "do": "cf-500"})
    desk.write("x.yaml", spec("      two: {api: afc}\n"))

    ended = desk.run("plan", "x.yaml", "--sandbox", "--detailed-exitcode")

    assert ended.code == 1
    assert "Cloud Foundry could not be asked about prod" in ended.out
    assert "Traceback" not in ended.err


def test_a_conflict_ends_with_4_before_all_else_and_nothing_is_done(desk: Desk) -> None:
    desk.sandbox().seed(
        world(instances=[strange(), strange("run", labels=ours("run"), last_operation=RUNNING)])
    )
    run = "      run: {service: sandbox-config, plan: standard}\n"
    desk.write("x.yaml", spec(CONFIG + run + "      new: {api: afc}\n"))
    before = desk.sandbox().snapshot()

    planned = desk.run("plan", "x.yaml", "--sandbox")
    detailed = desk.run("plan", "x.yaml", "--sandbox", "--detailed-exitcode")
    applied = desk.run("apply", "x.yaml", "--sandbox", "--yes")
    as_json = desk.run("apply", "x.yaml", "--sandbox", "--yes", "--format", "json")

    assert (planned.code, detailed.code, applied.code, as_json.code) == (4, 4, 4, 4)
    assert "instance:prod/one" in planned.out
    assert "adopt" in planned.out
    assert applied.out == planned.out
    assert applied.err == "refused: nothing was done\n"
    assert json.loads(as_json.out)["reports"] == []
    assert [one["address"] for one in json.loads(as_json.out)["plan"]["objections"]] == ["instance:prod/one"]
    assert desk.sandbox().snapshot() == before


def test_a_wrong_spec_ends_with_3_whatever_the_platform_has(desk: Desk) -> None:
    desk.sandbox().seed(world(instances=[strange()]))
    desk.write("x.yaml", spec(CONFIG).replace("version: 1", "version: 7"))

    assert [desk.run(one, "x.yaml").code for one in ("validate", "show")] == [3, 3]
    assert [desk.run(one, "x.yaml", "--sandbox").code for one in ("plan", "drift")] == [3, 3]
    assert desk.run("apply", "x.yaml", "--sandbox", "--yes").code == 3


def test_wrong_usage_comes_before_a_wrong_spec(desk: Desk) -> None:
    desk.write("x.yaml", "version: 7\n")

    assert desk.run("plan", "x.yaml", "--sandbox", "--target", "nonsense").code == 64
    assert desk.run("apply", "x.yaml", "--sandbox").code == 64


def test_out_of_time_is_pending_and_the_next_run_finishes(desk: Desk) -> None:
    first = desk.run("apply", "--sandbox", "--yes", "--timeout", "0s")
    second = desk.run("apply", "--sandbox", "--yes")

    assert first.code == 5
    assert first.out.endswith("What is pending goes on at the platform; run again to finish it.\n")
    assert second.code == 0
    assert desk.run("plan", "--sandbox").out == "No changes: 9 in sync.\n"


def test_a_step_that_fails_ends_with_1_and_names_what_it_blocks(desk: Desk) -> None:
    sandbox = desk.sandbox()
    failing = {
        "verb": "provision",
        "offering": "sandbox-config",
        "status": 400,
        "description": "no more room",
    }
    with sandbox.hold() as inside:
        inside.settings["broker_failures"] = [{**failing, "times": None}]
    desk.write("x.yaml", spec("      one: {service: sandbox-config, plan: standard, keys: {k: {}}}\n"))

    ended = desk.run("apply", "x.yaml", "--sandbox", "--yes")

    assert ended.code == 1
    assert "failed: create instance:prod/one" in ended.out
    assert "no more room" in ended.out
    assert "blocked: create key:prod/one/k\n      needs instance:prod/one" in ended.out


# --- help -----------------------------------------------------------------------------------------------

RUN = {
    *("--sandbox", "--state", "--sandbox-deliver", "--allow-host", "--allow-commands"),
    *("--parallel", "--log-format", "--format"),
}
CHOICE = RUN | {"--target", "--prune", "--allow", "--reapply", "--at-most"}
OPTIONS: dict[str, set[str]] = {
    "": {"--version"},
    "init": set(),
    "validate": {"--format"},
    "plan": CHOICE | {"--shard", "--max-size", "--out", "--detailed-exitcode"},
    "apply": CHOICE | {"--shard", "--approved", "--max-size", "--yes", "--verify", "--timeout"},
    "drift": RUN
    | {"--target", "--max-size", "--shard", "--metrics", "--baseline", "--write-baseline"}
    | {"--every", "--listen", "--jitter", "--notify", "--notify-format", "--notify-state"},
    "verify": RUN | {"--target", "--shard"},
    "rotate": RUN | {"--shard", "--due", "--at-most", "--yes", "--timeout"},
    "keys": RUN | {"--target"},
    "show": {"--format", "--max-size", "--detailed-exitcode"},
    "graph": {"--format"},
    "completion": set(),
    "export": RUN - {"--format"},
    "report": set(),
    "report merge": {"--format", "--out"},
    "kinds": {"--format"},
    "catalogue": {"--format"},
    "schema": set(),
    "sandbox": set(),
    "sandbox start": {"--port", "--tls", "--state", "--seed"},
    "sandbox reset": {"--state"},
    "sandbox advance": {"--state"},
    "sandbox faults": set(),
    "sandbox faults list": {"--state", "--format"},
    "sandbox faults clear": {"--state"},
    "sandbox faults add": {
        *("--state", "--method", "--host", "--path", "--body", "--name", "--offering", "--plan", "--verb"),
        *("--at", "--every", "--times", "--status", "--header", "--answer", "--after", "--seconds"),
        *("--requests", "--window", "--description", "--code", "--to", "--user", "--type", "--size"),
        *("--how", "--member", "--seed", "--phase"),
    },
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_shows_every_option_and_nothing_else(desk: Desk, command: str) -> None:
    ended = desk.run(*command.split(), "--help")
    short = desk.run(*command.split(), "-h")

    assert ended.code == 0
    assert ended == short
    assert ended.err == ""
    assert set(re.findall(r"^ +(?:-h, )?(--[a-z-]+)", ended.out, re.MULTILINE)) == OPTIONS[command] | {
        "--help"
    }


def test_help_lists_every_command(desk: Desk) -> None:
    for group in ("", "sandbox", "report"):
        shown = desk.run(*group.split(), "--help").out.partition("Commands:\n")[2].partition("\n\n")[0]
        below = {one.removeprefix(group).strip() for one in OPTIONS if one.startswith(group)} - {""}

        assert set(re.findall(r"^  (\S+)", shown, re.MULTILINE)) == {one.split()[0] for one in below}


def test_the_version_is_that_of_the_package(desk: Desk) -> None:
    assert desk.run("--version") == Ended(0, f"reconcile {__version__}\n", "")


HEAVY = {"requests", "jsonschema", "yaml", "rich", "structlog", "cryptography", "tenacity", "cheroot"}


def test_help_imports_nothing_heavy(desk: Desk) -> None:
    script = (
        "import sys\nfrom btp_reconcile import cli\n"
        f"for line in {list(OPTIONS)!r}:\n    assert cli.run([*line.split(), '--help']) == 0\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    ended = subprocess.run([PROGRAM[0], "-c", script], capture_output=True, text=True, check=True)

    assert ended.stderr == "[]\n"


def test_help_takes_hardly_longer_than_importing_click(desk: Desk) -> None:
    """Whole processes, in turns; the quickest of each, because other work on the machine only ever adds."""

    def seconds(*arguments: str) -> float:
        begun = time.perf_counter()
        subprocess.run([PROGRAM[0], *arguments], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begun

    floor, ours_ = [], []
    for _ in range(5):
        for _ in range(15):
            floor.append(seconds("-c", "import click"))
            ours_.append(seconds("-m", "btp_reconcile", "--help"))
        if min(ours_) <= 1.5 * min(floor):
            break

    assert min(ours_) <= 1.5 * min(floor)


# --- prompts --------------------------------------------------------------------------------------------


def asked(shell: Terminal) -> None:
    shell.until("Apply this? [y/N] ")


@pytest.mark.parametrize("answer", ["y", "Y", "yes", "YES "])
def test_a_person_who_says_yes_gets_it_applied(desk: Desk, answer: str) -> None:
    with terminal(desk.folder, "apply", "--sandbox") as shell:
        asked(shell)
        shell.type(f"{answer}\n")

        assert shell.end() == 0
    assert desk.run("plan", "--sandbox").out == "No changes: 9 in sync.\n"


@pytest.mark.parametrize("answer", ["\n", "n\n", "no\n", "yess\n", "\x04", "\x03"])
def test_anything_else_is_no_and_nothing_is_done(desk: Desk, answer: str) -> None:
    """Enter, words, Ctrl-D, Ctrl-C. 5 and not 0: what was asked for is not done."""
    assert desk.run("plan", "--sandbox").code == 0
    before = desk.sandbox().snapshot()
    with terminal(desk.folder, "apply", "--sandbox") as shell:
        asked(shell)
        if answer == "\x03":
            shell.running.send_signal(signal.SIGINT)  # what a shell makes of the key
        else:
            shell.type(answer)

        assert shell.end() == 5
        assert shell.shown.endswith("nothing was done\r\n")
    assert desk.sandbox().snapshot() == before


def test_nobody_is_asked_when_nothing_is_to_be_done(in_sync: Desk) -> None:
    with terminal(in_sync.folder, "apply", "--sandbox", env={"NO_COLOR": "1"}) as shell:
        assert shell.end() == 0
        assert shell.shown == "No changes: 9 in sync.\r\n"


def test_a_person_sees_the_plan_that_is_asked_about_even_beside_json(desk: Desk) -> None:
    with terminal(desk.folder, "apply", "--sandbox", "--format", "json", stdout=subprocess.PIPE) as shell:
        asked(shell)
        shell.type("y\n")
        shell.until("\n")
        assert shell.running.stdout is not None
        out = shell.running.stdout.read().decode()
        code = shell.end()

    assert code == 0
    assert "Plan: 9 to add, 0 to change, 0 to destroy." in shell.shown
    assert [one["summary"]["done"] for one in json.loads(out)["reports"]] == [10]


def test_without_a_terminal_nobody_is_asked(desk: Desk) -> None:
    ended = desk.process("apply", "--sandbox")

    assert ended == Ended(
        64, "", "Error: nobody can be asked here: say --yes, give a plan file, or set CI=true\n"
    )
    assert desk.process("apply", "--sandbox", env={"CI": "1"}).code == 64
    assert desk.process("apply", "--sandbox", env={"CI": "true"}).code == 0


def test_without_standard_streams_it_still_does_what_it_shall(desk: Desk) -> None:
    assert desk.shell("reconcile apply --sandbox --yes <&- >&- 2>&-").code == 0
    assert desk.shell("reconcile plan --sandbox --detailed-exitcode >&-").code == 0


# --- streams --------------------------------------------------------------------------------------------


def test_results_go_to_stdout_and_logs_to_stderr(desk: Desk) -> None:
    ended = desk.process("apply", "--sandbox", "--yes")

    assert ended.out.endswith("Plan: 9 to add, 0 to change, 0 to destroy.\nApply: 10 steps done.\n")
    assert {line.split("address=")[1].split()[0] for line in ended.err.splitlines()} == set(NINE)
    assert not ANSI.search(ended.out + ended.err)


def test_json_logs_are_one_object_a_line_and_tell_each_step(desk: Desk) -> None:
    sandbox = desk.sandbox()
    sandbox.faults.add({"match": {"path": "/v3/service_instances"}, "do": "cf-429", "times": 1})

    ended = desk.process("apply", "--sandbox", "--yes", "--log-format", "json")

    events = [json.loads(line) for line in ended.err.splitlines()]
    steps = [one for one in events if one["event"] == "step"]
    assert ended.code == 0
    assert {one["event"] for one in events} == {"step", "retry"}
    assert [one["status"] for one in events if one["event"] == "retry"] == [429]
    for status in ("started", "done"):
        told = sorted(one["address"] for one in steps if one["status"] == status and one["verb"] == "create")
        proven = [one["address"] for one in steps if one["status"] == status and one["verb"] != "create"]
        assert (told, proven) == (sorted(NINE), ["key:prod/apim/transport"])


@pytest.mark.parametrize(
    "line",
    [
        "validate --format json",
        "plan --format json --sandbox",
        "drift --format json --sandbox",
        "apply --format json --sandbox --yes",
        "show --format json",
        "kinds --format json",
        "kinds key --format json",
        "catalogue --format json",
        "catalogue afc --format json",
        "schema",
    ],
)
def test_json_parses_and_has_no_colour_even_on_a_terminal(desk: Desk, line: str) -> None:
    with terminal(desk.folder, *line.split(), stderr=subprocess.DEVNULL) as shell:
        shell.end()

    assert json.loads(shell.shown)
    assert not ANSI.search(shell.shown)


def test_a_spec_that_is_wrong_is_told_in_json_too(desk: Desk) -> None:
    desk.write("x.yaml", "version: 1\nowner: x\ncolour: red\n")

    ended = desk.run("validate", "x.yaml", "--format", "json")

    told = json.loads(ended.out)
    assert ended.code == 3
    assert told["valid"] is False
    assert [(one["code"], one["source"]) for one in told["problems"]] == [
        ("spec/unknown-field", "x.yaml:3:1")
    ]


def test_a_terminal_has_colour_unless_it_does_not_want_it(desk: Desk) -> None:
    def shown(**env: str) -> bool:
        with terminal(desk.folder, "plan", "--sandbox", env=env) as shell:
            assert shell.end() == 0
        return COLOUR.search(shell.shown) is not None

    assert [shown(), shown(NO_COLOR="1"), shown(TERM="dumb"), shown(NO_COLOR="")] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("columns", [60, 100])
def test_progress_on_a_terminal_stays_on_one_line_and_leaves_nothing(desk: Desk, columns: int) -> None:
    sandbox = desk.sandbox()
    sandbox.faults.add({"match": {"path": "/v3/service_instances"}, "do": "cf-429", "times": 1, "at": 3})

    with terminal(
        desk.folder, "apply", "--sandbox", "--yes", columns=columns, env={"NO_COLOR": "1"}
    ) as shell:
        assert shell.end() == 0

    before, _, rest = shell.shown.partition("0 to destroy.\r\n")
    progress, _, after = rest.rpartition("\x1b[2K")
    frames = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", one) for one in re.split(r"[\r\n]+", progress)]
    assert not ANSI.search(before)
    assert not COLOUR.search(shell.shown)
    assert max(len(frame) for frame in frames) <= columns
    assert progress.rindex("\x1b[?25h") > progress.rindex("\x1b[?25l")  # the cursor is back
    assert after == "Apply: 10 steps done.\r\n"


def test_a_narrow_terminal_breaks_a_plan_between_words_and_a_pipe_never(desk: Desk) -> None:
    with terminal(desk.folder, "plan", "--sandbox", columns=60, env={"NO_COLOR": "1"}) as shell:
        assert shell.end() == 0
    piped = desk.process("plan", "--sandbox").out

    assert max(len(line) for line in piped.splitlines()) > 60
    assert shell.shown.split() == piped.split()
    assert max(len(line) for line in shell.shown.splitlines() if " " in line.strip()[2:]) <= 60
    assert (
        "      note: waits until afc-api-service/standard is in the\r\n        marketplace\r\n" in shell.shown
    )


def test_what_a_platform_says_cannot_steer_the_terminal(desk: Desk) -> None:
    sandbox = desk.sandbox()
    evil = "\x1b[2Jgone\x9b31m\u202e\x07"
    failing = {"verb": "provision", "offering": "sandbox-config", "status": 400, "description": evil}
    with sandbox.hold() as inside:
        inside.settings["broker_failures"] = [{**failing, "times": None}]
    desk.write("x.yaml", spec(CONFIG))

    ended = desk.process("apply", "x.yaml", "--sandbox", "--yes")

    assert ended.code == 1
    assert "gone" in ended.out
    assert not re.search("[\x1b\x9b\x07\u202e]", ended.out + ended.err)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("plan --sandbox --detailed-exitcode", 2),
        ("plan --sandbox", 0),
        ("drift --sandbox --format json", 2),
        ("apply --sandbox --yes", 0),
        ("show --format json", 0),
        ("schema", 0),
        ("--help", 0),
        ("plan --nonsense 2>&1", 64),
    ],
)
def test_a_reader_that_has_had_enough_changes_nothing(desk: Desk, line: str, code: int) -> None:
    ended = desk.shell(f"reconcile {line} | exec 0<&-; echo ${{PIPESTATUS[0]}}")

    assert ended.out == f"{code}\n"
    assert "Traceback" not in ended.err
    assert "Exception" not in ended.err
    if line.startswith("apply"):
        assert desk.run("plan", "--sandbox").out == "No changes: 9 in sync.\n"


def test_logs_that_nobody_reads_do_not_stop_it(desk: Desk) -> None:
    ended = desk.shell("(reconcile apply --sandbox --yes 3>&2 2>&1 >&3; echo $? >code) | exec 0<&-; cat code")

    assert ended.out == "0\n"
    assert desk.run("plan", "--sandbox").out == "No changes: 9 in sync.\n"


def test_a_full_disk_is_said_in_words(desk: Desk) -> None:
    ended = desk.shell("reconcile plan --sandbox > /dev/full")

    assert ended == Ended(1, "", "this machine: No space left on device\n")


def test_letters_that_a_terminal_lacks_are_replaced(desk: Desk) -> None:
    desk.sandbox().seed(world(instances=[strange(labels=ours(), last_operation=RUNNING)]))
    desk.write("x.yaml", spec(CONFIG))

    ended = desk.process("plan", "x.yaml", "--sandbox", env={"PYTHONIOENCODING": "latin-1"})

    assert ended.code == 0
    assert "? instance:prod/one" in ended.out


# --- plan files -----------------------------------------------------------------------------------------


def saved(desk: Desk, *options: str) -> dict[str, Any]:
    assert desk.run("plan", "--sandbox", "--out", "plan.json", *options).code == 0
    found: dict[str, Any] = json.loads((desk.folder / "plan.json").read_text(encoding="utf-8"))
    return found


def test_a_saved_plan_is_shown_as_it_was_and_applied(desk: Desk) -> None:
    planned = desk.run("plan", "--sandbox", "--out", "plan.json", "--detailed-exitcode")
    shown = desk.run("show", "plan.json", "--detailed-exitcode")
    applied = desk.process("apply", "plan.json")

    assert planned.code == 2
    assert (shown.code, shown.out) == (2, planned.out)
    assert applied.code == 0
    assert applied.out == planned.out + "Apply: 10 steps done.\n"


def test_a_plan_file_is_readable_by_its_owner_only_and_leaves_nothing_beside_it(desk: Desk) -> None:
    (desk.folder / "plan.json").write_text("older", encoding="utf-8")
    (desk.folder / "plan.json").chmod(0o644)
    saved(desk)

    assert (desk.folder / "plan.json").stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in desk.folder.iterdir()) == [
        "plan.json",
        "specs",
        "world.json",
        "world.json.lock",
    ]


def test_a_plan_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("older", encoding="utf-8")

    with pytest.raises(UnicodeEncodeError):
        written.write(path, "{" * 100_000 + "\ud800")

    assert [one.name for one in tmp_path.iterdir()] == ["plan.json"]
    assert path.read_text(encoding="utf-8") == "older"


def test_a_device_is_written_to_and_never_replaced(desk: Desk) -> None:
    (desk.folder / "full.json").symlink_to("/dev/full")

    ended = desk.run("plan", "--sandbox", "--out", "full.json")

    assert ended.code == 1
    assert ended.err == "full.json: the plan could not be written: No space left on device\n"
    assert Path("/dev/full").is_char_device()
    assert (desk.folder / "full.json").is_symlink()


def test_a_plan_can_be_written_to_a_pipe(desk: Desk) -> None:
    ended = desk.shell(
        "reconcile plan --sandbox --out >(cat > copy.json) >/dev/null; sleep 0; wait $!; cat copy.json"
    )

    assert ended.code == 0
    assert json.loads(ended.out)["format"] == "btp-reconcile/plan"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("nowhere/plan.json", "Error: --out: there is no folder nowhere; make it first\n"),
        ("folder.json", "Error: --out: folder.json is a folder; name a file in it\n"),
        ("specs/prod.yaml", "is not\n"),
        ("plan", "is not\n"),
    ],
)
def test_where_a_plan_cannot_be_kept_is_said_before_anything_is_asked(
    desk: Desk, out: str, said: str
) -> None:
    (desk.folder / "folder.json").mkdir()
    before = (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8")

    ended = desk.run("plan", "--sandbox", "--out", out)

    assert (ended.code, ended.out) == (64, "")
    assert ended.err.endswith(said)
    assert not desk.state.exists()
    assert (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8") == before


def test_a_plan_of_a_spec_that_changed_since_is_refused_and_says_what_differs(desk: Desk) -> None:
    saved(desk)
    text = (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8")
    desk.write("specs/prod.yaml", text.replace("identity-provisioning: {}", "provisioning: {}"))

    ended = desk.run("apply", "plan.json")

    assert (ended.code, ended.out) == (4, "")
    assert ended.err == (
        "plan.json is not what would be done now; different: "
        "key:prod/afc-api/provisioning (not there, now create), "
        "key:prod/afc-api/identity-provisioning (create, now not there)\n"
        "plan again, and have the new plan approved  [plan/stale]\n"
    )


def test_a_plan_of_a_role_that_changed_since_says_so(desk: Desk) -> None:
    """Without the destination, whose recipe allows one role only."""
    text = (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8").partition("    destinations:\n")[0]
    desk.write("specs/prod.yaml", text)
    saved(desk)
    desk.write("specs/prod.yaml", text.replace("role: APIPortal.Administrator", "role: APIPortal.Guest"))

    ended = desk.run("apply", "plan.json")

    assert ended.code == 4
    assert "different: instance:prod/apim (create, but not the same)\n" in ended.err


def test_a_plan_of_a_world_that_changed_since_is_refused_and_says_what_differs(desk: Desk) -> None:
    saved(desk)
    assert desk.run("apply", "--sandbox", "--yes", "--target", "instance:prod/afc-api").code == 0
    before = desk.sandbox().snapshot()

    ended = desk.run("apply", "plan.json")

    assert ended.code == 4
    assert "instance:prod/afc-api (create, now keep)" in ended.err
    assert "apim" not in ended.err.partition("[plan/stale]")[0].replace("apimanagement", "")
    assert desk.sandbox().snapshot() == before


def test_a_plan_file_cannot_be_used_for_more_than_one_thing(desk: Desk) -> None:
    saved(desk)

    said = [
        desk.run(*line.split())
        for line in (
            "apply plan.json --prune",
            "apply plan.json --target instance:prod/apim",
            "apply plan.json specs/prod.yaml",
            "plan plan.json --sandbox",
            "drift plan.json --sandbox",
            "validate plan.json",
            "show plan.json specs/prod.yaml",
        )
    ]

    assert [(one.code, one.out) for one in said] == [(64, "")] * 7
    assert all("a saved plan" in one.err for one in said)


def test_a_plan_for_the_platform_is_not_rehearsed_by_mistake_nor_the_other_way_round(desk: Desk) -> None:
    plan = saved(desk)
    rewrite(desk, {**plan, "promise": {**plan["promise"], "sandbox": False}})

    ended = desk.run("apply", "plan.json", "--sandbox")

    assert (ended.code, ended.out) == (64, "")
    assert "was not made with --sandbox" in ended.err


def delivering(desk: Desk) -> None:
    keys = "        keys: {k: {deliver: {c: {command: {run: [./got.sh]}}}}}\n"
    desk.write(
        "specs/prod.yaml",
        spec("      one:\n        service: sandbox-config\n        plan: standard\n" + keys),
    )
    desk.write("specs/got.sh", f"#!/bin/sh\ncat > {desk.folder}/got.json\n")
    desk.write("got.sh", f"#!/bin/sh\ncat > {desk.folder}/stolen.json\n")
    for name in ("specs/got.sh", "got.sh"):
        (desk.folder / name).chmod(0o700)


def test_a_plan_that_really_delivers_does_so_when_it_is_applied(desk: Desk) -> None:
    """And to the program beside the spec, whatever there is in the current folder."""
    delivering(desk)
    plan = saved(desk, "--sandbox-deliver", "command")
    assert plan["promise"]["sandbox_deliver"] == ["command"]

    other = desk.run("apply", "plan.json", "--sandbox-deliver", "file", "--allow-commands")
    done = desk.run("apply", "plan.json", "--sandbox", "--sandbox-deliver", "command", "--allow-commands")

    assert (other.code, other.out, other.err) == (
        64,
        "",
        (
            "Error: plan.json was made with --sandbox-deliver command, and is applied like that: leave the option out, or "
            "plan again\n"
        ),
    )
    assert done.code == 0
    assert (desk.folder / "got.json").exists()
    assert not (desk.folder / "stolen.json").exists()
    again = desk.run("plan", "--sandbox", "--sandbox-deliver", "command", "--detailed-exitcode")
    assert again.code == 0


def test_a_plan_that_is_rehearsed_delivers_nothing_when_it_is_applied(desk: Desk) -> None:
    delivering(desk)
    plan = saved(desk)

    other = desk.run("apply", "plan.json", "--sandbox-deliver", "command", "--allow-commands")
    assert other.code == 64
    assert "was made without --sandbox-deliver" in other.err
    del plan["promise"]["sandbox_deliver"]  # as an earlier version wrote it
    rewrite(desk, plan)
    assert desk.run("apply", "plan.json", "--allow-commands").code == 0
    assert not (desk.folder / "got.json").exists()


@pytest.mark.parametrize("said", ["command", [1], {"command": 1}, None])
def test_forged_sinks_are_none(desk: Desk, said: Any) -> None:
    plan = saved(desk)
    rewrite(desk, {**plan, "promise": {**plan["promise"], "sandbox_deliver": said}})

    assert desk.run("apply", "plan.json").code == 64


@pytest.mark.parametrize(
    "line",
    [
        "apply zero.json",
        "show zero.json",
        "graph zero.json",
        "plan zero.json --sandbox",
        "report merge zero.json zero.json",
        "drift --sandbox --baseline /dev/zero",
        "drift --sandbox --baseline pipe",
        "drift --sandbox --notify http://127.0.0.1:1/x --notify-state /dev/zero",
        "drift --sandbox --notify http://127.0.0.1:1/x --notify-state /dev/full",
        "apply part.json --approved /dev/zero",
        "plan --sandbox --state /dev/zero",
    ],
)
def test_what_has_no_end_is_not_read(desk: Desk, line: str) -> None:
    (desk.folder / "zero.json").symlink_to("/dev/zero")
    os.mkfifo(desk.folder / "pipe")
    if "part.json" in line:
        assert desk.run("plan", "--sandbox", "--shard", "1/1", "--out", "part.json").code == 0

    ended = desk.run(*line.split())

    assert (ended.code, ended.out) == (3 if line.startswith("plan zero") else 64, "")
    assert "is no regular file" in ended.err


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    """A file with a hole in it takes no room."""
    with (tmp_path / "large").open("wb") as large:
        large.truncate(files.LARGEST + 1)

    with pytest.raises(OSError, match="it is larger than 268 MB"):
        files.whole(tmp_path / "large")
    with pytest.raises(OSError, match="it is larger than 0 MB"):
        files.whole(tmp_path / "large", 10)
    (tmp_path / "small").write_bytes(b"0123456789")
    assert files.whole(tmp_path / "small", 10) == b"0123456789"


def rewrite(desk: Desk, plan: dict[str, Any]) -> None:
    """Forge a plan file, its checksum included."""
    plan.pop("checksum", None)
    text = json.dumps({**plan, "checksum": planfile._checksum(plan)})
    (desk.folder / "plan.json").write_text(text, encoding="utf-8")


def test_a_plan_that_was_edited_is_no_plan(desk: Desk) -> None:
    plan = saved(desk)
    edited = {**plan, "promise": {**plan["promise"], "prune": True}}
    (desk.folder / "plan.json").write_text(json.dumps(edited), encoding="utf-8")

    for command in ("apply", "show"):
        ended = desk.run(command, "plan.json")

        assert (ended.code, ended.out) == (64, "")
        assert ended.err == "Error: plan.json was changed after it was written: plan again\n"


def test_a_forged_plan_that_shows_less_than_it_does_is_refused(desk: Desk) -> None:
    """Whoever approves reads the changes; the digest alone would let others through."""
    plan = saved(desk)
    rewrite(desk, {**plan, "changes": plan["changes"][:3]})

    ended = desk.run("apply", "plan.json")

    assert ended.code == 4
    assert "key:prod/apim/transport (not there, now create)" in ended.err


@pytest.mark.parametrize(
    "change",
    [
        {"promise": None},
        {"promise": {"specs": "specs"}},
        {"digest": 5},
        {"changes": {}},
        {"changes": [{"address": "instance:prod/apim", "fields": [1]}]},
        {"summary": []},
        {"subaccounts": []},
        {"version": 99},
        {"format": "other"},
    ],
)
def test_a_forged_plan_of_another_shape_is_no_plan(desk: Desk, change: dict[str, Any]) -> None:
    rewrite(desk, {**saved(desk), **change})

    ended = desk.run("apply", "plan.json")

    assert ended.code in {4, 64}
    assert "defect" not in ended.err
    assert "defect" not in desk.run("show", "plan.json", "--detailed-exitcode").err


@pytest.mark.parametrize("now", [float("nan"), float("inf"), 10**400, True, "1", None])
def test_a_forged_moment_is_no_moment(desk: Desk, now: Any) -> None:
    plan = saved(desk)
    rewrite(desk, {**plan, "promise": {**plan["promise"], "now": now}})

    assert desk.run("apply", "plan.json").code == 64


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"a": 1}', "\x00", "[" * 100_000, "version: 1"]
)
def test_other_json_and_no_json_are_no_plan(desk: Desk, text: str) -> None:
    desk.write("other.json", text)

    for command in ("apply", "show"):
        ended = desk.run(command, "other.json")

        assert (ended.code, ended.out) == (64, "")
        assert (
            ended.err == "Error: other.json is no plan file: `reconcile plan --out other.json` writes one\n"
        )


def test_a_plan_that_was_cut_off_is_no_plan(desk: Desk) -> None:
    saved(desk)
    text = (desk.folder / "plan.json").read_text(encoding="utf-8")
    for length in range(0, len(text) - 2, 97):
        desk.write("cut.json", text[:length])

        assert desk.run("apply", "cut.json").code == 64


# --- show, validate -------------------------------------------------------------------------------------


def test_show_prints_what_a_spec_comes_to(desk: Desk) -> None:
    as_text = desk.run("show")
    as_json = desk.run("show", "--format", "json")

    merged = json.loads(as_json.out)["specs/prod.yaml"]
    assert (as_text.code, as_json.code) == (0, 0)
    assert as_text.out.startswith("specs/prod.yaml:\n")
    assert as_text.out.endswith("\n")
    assert not as_text.out.endswith("\n\n")
    assert merged["subaccounts"]["prod"]["instances"]["afc-api"]["service"] == "afc-api-service"
    assert merged["access"]["cloud_foundry"]["password"] == "${env:CF_PASSWORD}"


def test_validate_counts_what_it_found(desk: Desk) -> None:
    assert desk.run("validate") == Ended(
        0, "specs/prod.yaml: valid, 1 subaccount, 2 instances, 4 keys, 1 destination\n", ""
    )


def test_inputs_that_are_no_specs_are_told_apart(desk: Desk) -> None:
    (desk.folder / "empty").mkdir()
    (desk.folder / "binary.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe")
    (desk.folder / "folder.yaml").mkdir()
    os.mkfifo(desk.folder / "pipe.yaml")

    ends = {
        name: desk.run("plan", name, "--sandbox")
        for name in (
            "empty",
            "binary.yaml",
            "folder.yaml",
            "pipe.yaml",
            "missing.yaml",
            "/dev/zero",
        )
    }

    codes = {name: re.findall(r"\[(.*)\]", one.err) for name, one in ends.items()}
    assert {one.code for one in ends.values()} == {3}
    assert codes == {
        "empty": ["spec/no-specs"],
        "binary.yaml": ["spec/encoding"],
        "folder.yaml": ["spec/no-specs"],
        "pipe.yaml": ["spec/file-unreadable"],
        "missing.yaml": ["spec/file-missing"],
        "/dev/zero": ["spec/file-unreadable"],
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_said(desk: Desk) -> None:
    (desk.folder / "specs/prod.yaml").chmod(0)

    ended = desk.run("plan", "--sandbox")

    assert ended.code == 3
    assert "Permission denied" in ended.err


def test_a_folder_without_specs_says_how_to_begin(desk: Desk) -> None:
    (desk.folder / "specs/prod.yaml").unlink()

    ended = desk.run("plan", "--sandbox")

    assert ended.code == 3
    assert "`reconcile init` writes a first one" in ended.err


# --- init, kinds, catalogue, schema ---------------------------------------------------------------------


def test_init_writes_a_spec_that_validates_and_plans_beside_others(desk: Desk) -> None:
    first = desk.run("init")
    checked = desk.run("validate", "specs/first.yaml")
    planned = desk.run("plan", "specs/first.yaml", "--sandbox", "--detailed-exitcode")

    assert first == Ended(
        0, "specs/first.yaml: written\nnext: reconcile plan specs/first.yaml --sandbox\n", ""
    )
    assert checked == Ended(0, "specs/first.yaml: valid, 1 subaccount, 1 instance, 1 key\n", "")
    assert planned.code == 2
    assert planned.out.endswith("Plan: 3 to add, 0 to change, 0 to destroy.\n")


def test_init_never_overwrites(desk: Desk) -> None:
    before = (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8")

    ended = desk.run("init", "specs/prod.yaml")

    assert (ended.code, ended.out) == (64, "")
    assert ended.err == "Error: specs/prod.yaml exists already; name another file: reconcile init FILE\n"
    assert (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8") == before


def test_two_specs_may_call_two_subaccounts_by_one_name_in_a_rehearsal(desk: Desk) -> None:
    desk.run("init", "first.yaml")

    assert desk.run("apply", "specs/prod.yaml", "--sandbox", "--yes").code == 0
    assert desk.run("apply", "first.yaml", "--sandbox", "--yes").code == 0
    assert desk.run("plan", "specs/prod.yaml", "--sandbox").out == "No changes: 9 in sync.\n"
    assert desk.run("plan", "first.yaml", "--sandbox").out == "No changes: 3 in sync.\n"


def test_a_place_that_a_rehearsal_cannot_make_hides_only_the_delivery_there(desk: Desk) -> None:
    desk.run("init", "first.yaml")
    spec = desk.folder / "first.yaml"
    deliver = "{rotate_after: 60d, deliver: {main: {file: {path: out/key.json, make_folder: true}}}}"
    written = spec.read_text(encoding="utf-8").replace("{rotate_after: 60d}", deliver)
    spec.write_text(written, encoding="utf-8")
    assert desk.run("apply", "first.yaml", "--sandbox", "--yes").code == 0
    below = desk.folder / "world.json.files"
    made = next(one for one in below.rglob("out") if one.is_dir())
    made.rename(made.with_name("away"))
    made.write_text("in the way", encoding="utf-8")

    ended = desk.run("plan", "first.yaml", "--sandbox")

    assert (ended.code, ended.err) == (1, "")
    assert f"file: {made}: File exists" in " ".join(ended.out.split())
    assert ended.out.endswith("Nothing to change in what could be seen: 3 in sync.\n")


def test_every_kind_and_every_api_can_be_looked_up(desk: Desk) -> None:
    for command, key in (("kinds", "kind"), ("catalogue", "api")):
        listed_json = json.loads(desk.run(command, "--format", "json").out)
        names = [one[key] if key in one else one["recipe"] for one in listed_json]
        listed = desk.run(command)
        about = [desk.run(command, name) for name in names]

        assert [line.split()[0] for line in listed.out.splitlines()] == names
        assert [one.code for one in about] == [0] * len(names)
        assert all(one.out and not one.err for one in about)


def test_the_schema_is_the_published_one(desk: Desk) -> None:
    published = (Path(__file__).parents[1] / "schemas/spec.schema.json").read_text(encoding="utf-8")

    assert desk.run("schema") == Ended(0, published, "")


# --- the end from outside -------------------------------------------------------------------------------


@pytest.fixture
def real(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk in front of the platform itself, which is a sandbox on a port, by credentials in the environment."""
    sandbox = Sandbox(time="seconds", settings={"delays": {"default": 0}})
    sandbox.seed(world())
    with serve(sandbox) as served:
        access = served.access()
        foundry = access["cloud_foundry"]["eu10"]
        monkeypatch.setenv("BTP_CIS_CENTRAL_KEY", json.dumps(access["central"]))
        monkeypatch.setenv("CF_USER", foundry["username"])
        monkeypatch.setenv("CF_PASSWORD", foundry["password"])
        text = spec(CONFIG).replace("space: apis}", f"space: apis, api: {json.dumps(foundry['api'])}}}")
        desk.write("real.yaml", text)
        monkeypatch.setenv("SERVED", served.url)
        yield desk


def fault(rule: dict[str, Any]) -> None:
    requests.post(f"{os.environ['SERVED']}/__sandbox__/faults", json=rule, timeout=5).raise_for_status()


def no_faults() -> None:
    requests.delete(f"{os.environ['SERVED']}/__sandbox__/faults", timeout=5).raise_for_status()


def ended_by(running: subprocess.Popen[str], number: int) -> tuple[Ended, float]:
    """How it ends after a signal, and after how many seconds."""
    begun = time.monotonic()
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    return Ended(running.returncode, out, err), time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_for_the_platform_can_be_ended(real: Desk, number: int) -> None:
    fault(
        {
            "match": {"method": "GET", "path": "^/v3/service_instances"},
            "do": "cf-503",
            "headers": {"Retry-After": "50"},
        }
    )
    with real.start("apply", "real.yaml", "--yes", "--log-format", "json") as running:
        assert running.stderr is not None
        assert json.loads(running.stderr.readline())["event"] == "retry"
        ended, took = ended_by(running, number)

    assert (ended.code, took < 5) == (5, True)
    assert "run again to finish it" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_answer_that_does_not_come_is_not_waited_for_and_the_next_run_finishes(
    real: Desk, number: int
) -> None:
    fault({"match": {"method": "POST", "path": "^/v3/service_instances"}, "do": "slow", "seconds": 12})
    with real.start("apply", "real.yaml", "--yes", "--log-format", "json") as running:
        assert running.stderr is not None
        while json.loads(running.stderr.readline())["address"] != "instance:prod/one":
            pass
        ended, took = ended_by(running, number)
    no_faults()

    assert (ended.code, took < 5) == (5, True)
    assert "run again to finish it" in ended.out + ended.err
    assert "Traceback" not in ended.err
    assert real.run("apply", "real.yaml", "--yes").code == 0
    assert real.run("plan", "real.yaml").out == "No changes: 2 in sync.\n"


def test_a_clock_that_differs_from_the_platforms_is_told(real: Desk) -> None:
    agreed = real.run("plan", "real.yaml")
    fault({"do": "clock-skew", "seconds": 259200})
    told = real.run("plan", "real.yaml")

    assert (agreed.code, told.code, told.out) == (0, 0, agreed.out)
    assert "clock" not in agreed.err
    assert "the clock of this machine is 3 days behind the platform's" in told.err


# --- the sandbox ----------------------------------------------------------------------------------------


def test_a_state_that_is_no_world_is_left_alone(desk: Desk) -> None:
    (desk.folder / "folder").mkdir()
    texts = ["", "{", "[]", '{"a": 1}', "5", '{"format": 1, "time": "looks"}', "version: 1"]
    for text in texts:
        desk.write("state.json", text)

        for line in ("plan --sandbox --state state.json", "sandbox reset --state state.json"):
            ended = desk.run(*line.split())

            assert (ended.code, ended.out) == (64, "")
            assert "holds something else than a sandbox's world" in ended.err
            assert (desk.folder / "state.json").read_text(encoding="utf-8") == text
    for state in ("folder", "/proc/nowhere/world.json", "/dev/null/world.json"):
        ended = desk.run("plan", "--sandbox", "--state", state)

        assert (ended.code, ended.out) == (64, "")
        assert f"{state}" in ended.err


def test_reset_forgets_a_world_and_nothing_else(in_sync: Desk) -> None:
    kept = in_sync.run("sandbox", "reset", "--state", "specs/prod.yaml")
    first = in_sync.run("sandbox", "reset")
    second = in_sync.run("sandbox", "reset")

    assert kept.code == 64
    assert (in_sync.folder / "specs/prod.yaml").exists()
    assert first == Ended(0, f"{in_sync.state}: forgotten\n", "")
    assert second == Ended(0, f"{in_sync.state}: there was nothing to forget\n", "")
    assert in_sync.run("plan", "--sandbox", "--detailed-exitcode").code == 2


def test_the_world_is_kept_where_state_says_or_the_variable_or_at_home(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, nobodys_machine: Path
) -> None:
    desk.run("plan", "--sandbox", "--state", "a.json")
    desk.run("plan", "--sandbox")
    monkeypatch.delenv("RECONCILE_SANDBOX")
    desk.run("plan", "--sandbox")
    at_home = nobodys_machine / ".local/state/btp-reconcile/sandbox.json"

    for path in (desk.folder / "a.json", desk.state, at_home):
        assert path.stat().st_mode & 0o777 == 0o600
    assert at_home.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_home_it_asks_for_a_place(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONCILE_SANDBOX")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))

    ended = desk.run("plan", "--sandbox")

    assert ended.code == 64
    assert "say --state FILE or set RECONCILE_SANDBOX" in ended.err
    assert desk.run("plan", "--sandbox", "--state", "a.json").code == 0


def test_two_rehearsals_at_once_in_one_world_make_nothing_twice(desk: Desk) -> None:
    both = [desk.start("apply", "--sandbox", "--yes") for _ in range(2)]
    ends = [(one.communicate(timeout=60), one.wait())[1] for one in both]

    assert set(ends) <= {0, 1, 5}
    assert 0 in ends
    assert desk.run("apply", "--sandbox", "--yes").code == 0
    assert desk.run("plan", "--sandbox").out == "No changes: 9 in sync.\n"
    with desk.sandbox().hold() as inside:
        names = [row["name"] for row in inside.table("cf.service_instances").values()]
    assert sorted(names) == ["afc-api", "apim"]


class Serving:
    """`reconcile sandbox start`, and what it printed."""

    def __init__(self, desk: Desk, *options: str) -> None:
        self.running = desk.start("sandbox", "start", *options, "--port", "0")
        self.said = ""
        assert self.running.stdout is not None
        while "BTP_DESTINATION_KEY=" not in self.said:
            line = self.running.stdout.readline()
            assert line, self.running.stderr and self.running.stderr.read()
            self.said += line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        if self.running.poll() is None:
            self.running.kill()
        self.running.communicate()

    @property
    def exports(self) -> dict[str, str]:
        """What a shell makes of the printed `export` lines."""
        lines = "\n".join(one for one in self.said.splitlines() if one.startswith("  export "))
        names = re.findall(r"(?:export| )\b([A-Z_]+)=", lines)
        printed = subprocess.run(
            [
                "bash",
                "-c",
                f"{lines}\nfor name in {' '.join(names)}; do printf '%s=%s\\0' $name \"${{!name}}\"; done",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(one.split("=", 1) for one in printed.stdout.split("\0") if one)

    def end(self) -> int:
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(10)


def sign_in_like_cf(line: str, trusted: str | None) -> requests.Session:
    """The requests that `cf login -a … -u … -p …` makes."""
    words = line.split()
    api, user, password = (words[words.index(flag) + 1] for flag in ("-a", "-u", "-p"))
    session = requests.Session()
    session.trust_env = False
    session.verify = trusted or True
    links = session.get(api, timeout=5).json()["links"]
    form = {"grant_type": "password", "username": user, "password": password}
    login = links["login"]["href"]
    assert session.get(f"{login}/login", headers={"Accept": "application/json"}, timeout=5).ok
    answer = session.post(f"{login}/oauth/token", data=form, auth=("cf", ""), timeout=5)
    session.headers["Authorization"] = f"bearer {answer.json()['access_token']}"
    return session


@pytest.mark.parametrize("tls", [False, True])
def test_a_served_sandbox_prints_what_lets_others_in(desk: Desk, tls: bool) -> None:
    with Serving(desk, "specs/prod.yaml", *["--tls"] * tls) as serving:
        login = next(one.strip() for one in serving.said.splitlines() if one.startswith("  cf login "))
        api = login.split()[3]
        session = sign_in_like_cf(login, serving.exports.get("REQUESTS_CA_BUNDLE"))
        with session:
            spaces = session.get(f"{api}/v3/spaces", params={"names": "apis"}, timeout=5).json()["resources"]
        text = (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8")
        desk.write("served.yaml", text.replace("space: apis}", f"space: apis, api: {json.dumps(api)}}}"))
        planned = desk.process("plan", "served.yaml", "--detailed-exitcode", env=serving.exports)
        code = serving.end()

    assert api.startswith("https://127.0.0.1:" if tls else "http://127.0.0.1:")
    assert "  cf target -o finance-prod -s apis\n" in serving.said
    assert f"cloud_foundry: {{api: {json.dumps(api)}, org: …, space: …}}" in serving.said
    assert [one["name"] for one in spaces] == ["apis"]
    assert (planned.code, planned.err) == (2, "")
    assert planned.out.endswith("Plan: 9 to add, 0 to change, 0 to destroy.\n")
    assert code == 0


def test_rehearsal_and_served_sandbox_share_a_world(in_sync: Desk) -> None:
    """A world of rehearsals goes on in seconds when it is served, and is still good for rehearsals afterwards.

    It began on the first of January 2026 and is now as late as here, so a certificate of 30 days has ended.
    """
    with Serving(in_sync, "specs/prod.yaml") as serving:
        text = (in_sync.folder / "specs/prod.yaml").read_text(encoding="utf-8")
        api = json.dumps(serving.said.split("cf login -a ")[1].split()[0])
        in_sync.write("served.yaml", text.replace("space: apis}", f"space: apis, api: {api}}}"))
        real = in_sync.process("plan", "served.yaml", env=serving.exports)
        rehearsed = in_sync.run("plan", "--sandbox")
        assert serving.end() == 0

    assert (real.code, real.err) == (0, "")
    assert re.findall(r"^  (\S) (\S+)", real.out, re.MULTILINE) == [("⟳", "key:prod/apim/pipeline")]
    assert rehearsed == real
    assert in_sync.run("plan", "--sandbox") == real


def test_a_port_that_is_taken_is_said(desk: Desk) -> None:
    with serve(Sandbox()) as served:
        ended = desk.process("sandbox", "start", "--port", str(served.port))

    assert ended.code == 64
    assert f"port {served.port} cannot be used" in ended.err
    assert "--port 0 takes a free one" in ended.err


def test_sandbox_start_without_a_spec_says_what_is_missing(desk: Desk) -> None:
    with desk.start("sandbox", "start", "--port", "0") as running:
        assert running.stdout is not None
        said = ""
        while "no subaccounts yet" not in said:
            said += running.stdout.readline()
        running.send_signal(signal.SIGINT)

        assert running.wait(10) == 0


# --- what must never be seen ----------------------------------------------------------------------------


def test_an_unexpected_error_is_told_without_a_traceback_or_its_words(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from btp_reconcile import pipeline

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret {}".format("words"))

    monkeypatch.setattr(pipeline, "check", broken)
    plain = desk.run("validate")
    monkeypatch.setenv("RECONCILE_DEBUG", "1")
    debugged = desk.run("validate")

    assert (plain.code, plain.out) == (1, "")
    assert plain.err.startswith("this is a defect of reconcile: ZeroDivisionError at test_cli.py:")
    assert "secret words" not in plain.err
    assert "Traceback" not in plain.err
    assert "ZeroDivisionError" in debugged.err
    assert ", in broken" in debugged.err
    assert "secret words" not in debugged.err


SPECIAL = '"\\/+=&é% $|'
"""Signs that look different when they are quoted, encoded or escaped."""


def planted(number: int) -> str:
    return f"s3cr3t-{number:02}-{'xyzw'[number % 4] * (9 + number % 3)}{SPECIAL}-end{number:02}"


SECRETS = [planted(number) for number in range(20)]


def disguises(secret: str) -> set[str]:
    """A secret as it might look in some output: plain, or in one of the usual coats."""
    found = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    }
    found |= {quote(secret), quote(secret, safe=""), quote(secret).replace("%20", "+")}
    raw = secret.encode()
    for shift in range(3):  # as part of a longer text, base64 looks in one of three ways
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * shift + raw)[4:-4].decode())
    return found | {raw.hex(), secret[:24], secret[-16:]}


def leaks(*texts: str) -> list[str]:
    everything = "\n".join(texts)
    return [secret for secret in SECRETS if any(one in everything for one in disguises(secret))]


def test_the_search_for_secrets_finds_them() -> None:
    for coat in disguises(SECRETS[3]):
        assert leaks(f"… {coat} …") == [SECRETS[3]]


@pytest.fixture
def secretive(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A spec full of secrets: access, parameters of instances and keys, from variables and from files."""
    for number in range(12):
        monkeypatch.setenv(f"SECRET_{number}", SECRETS[number])
    for number in range(12, 20):
        desk.write(f"secrets/{number}", SECRETS[number])
    central = {"service_key": "${env:SECRET_0}"}
    foundry = {"username": "u", "password": "${env:SECRET_1}"}
    manager = {"service_key": "${file:secrets/12}"}
    instance = {
        "service": "sandbox-config",
        "plan": "standard",
        "parameters": {
            "plain": "${env:SECRET_2}",
            "in": {"a": {"tree": ["${env:SECRET_3}", {"x": "${file:secrets/13}"}]}},
            "beside": "user:${env:SECRET_4}@host ${file:secrets/14}",
            "size": 1,
        },
        "keys": {"k": {"parameters": {"password": "${env:SECRET_5}", "file": "${file:secrets/15}"}}},
    }
    other = {
        "service": "sandbox-config",
        "plan": "large",
        "runtime": "other",
        "parameters": {"a": "${env:SECRET_6}", "b": "${env:SECRET_7}", "c": "${file:secrets/16}"},
        "keys": {"k": {"parameters": {"a": "${env:SECRET_8}", "b": "${file:secrets/17}"}}},
    }
    document = {
        "version": 1,
        "owner": "team",
        "access": {
            "central": central,
            "cloud_foundry": foundry,
            "service_manager": manager,
            "fingerprint_key": "${env:SECRET_9}",
        },
        "defaults": {"runtime": "cloudfoundry"},
        "subaccounts": {
            "prod": {
                "id": GUID,
                "region": "eu10",
                "cloud_foundry": {"org": "finance-prod", "space": "apis"},
                "instances": {"one": instance, "two": other},
            }
        },
    }
    desk.write("secret.yaml", json.dumps(document))
    return desk


def test_no_secret_is_in_any_output_or_plan_file(secretive: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = secretive.run
    said = [
        run("validate", "secret.yaml"),
        run("show", "secret.yaml"),
        run("show", "secret.yaml", "--format", "json"),
    ]
    for options in ((), ("--format", "json"), ("--log-format", "json")):
        said += [run("plan", "secret.yaml", "--sandbox", "--out", "plan.json", *options)]
        said += [run("drift", "secret.yaml", "--sandbox", *options)]
    said += [run("show", "plan.json"), run("show", "plan.json", "--format", "json")]
    applied = run("apply", "plan.json", "--log-format", "json")
    monkeypatch.setenv("SECRET_2", SECRETS[10])
    monkeypatch.setenv("SECRET_5", SECRETS[11])
    secretive.write("secrets/16", SECRETS[18])
    secretive.write("secrets/17", SECRETS[19])
    changed = run("plan", "secret.yaml", "--sandbox", "--out", "second.json", "--detailed-exitcode")
    kept = ("--metrics", "secret.prom", "--write-baseline", "known.json")
    for format_ in ("junit", "sarif", "markdown", "html"):
        said += [run("drift", "secret.yaml", "--sandbox", "--format", format_, *kept)]
    again = run("apply", "secret.yaml", "--sandbox", "--yes", "--format", "json")
    written_down = ("plan.json", "second.json", "secret.prom", "known.json")
    files = [(secretive.folder / name).read_text(encoding="utf-8") for name in written_down]

    everything = [*said, applied, changed, again]
    assert [one.code for one in (applied, changed, again)] == [0, 2, 0]
    assert "<secret env:SECRET_2>" in changed.out
    assert leaks(*files, *(one.out + one.err for one in everything)) == []


def test_a_platform_that_echoes_what_was_sent_gives_no_secret_away(secretive: Desk) -> None:
    sandbox = secretive.sandbox()
    echo = f"the value {SECRETS[2]} of plain is refused; {json.dumps(SECRETS[3])}"
    failing = {"verb": "provision", "offering": "sandbox-config", "status": 400, "description": echo}
    with sandbox.hold() as inside:
        inside.settings["broker_failures"] = [{**failing, "times": None}]

    ended = secretive.run("apply", "secret.yaml", "--sandbox", "--yes")
    again = secretive.run("plan", "secret.yaml", "--sandbox", "--format", "json", "--out", "plan.json")
    text = (secretive.folder / "plan.json").read_text(encoding="utf-8")

    assert ended.code == 1
    assert leaks(ended.out, ended.err, again.out, again.err, text) == []


def test_credentials_that_are_refused_or_no_credentials_are_not_shown(
    real: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    central = json.loads(os.environ["BTP_CIS_CENTRAL_KEY"])
    central["uaa"]["clientsecret"] = SECRETS[0]
    monkeypatch.setenv("BTP_CIS_CENTRAL_KEY", json.dumps(central))
    monkeypatch.setenv("CF_PASSWORD", SECRETS[1])
    refused = [real.run(*line) for line in (("plan", "real.yaml"), ("apply", "real.yaml", "--yes"))]
    monkeypatch.setenv("BTP_CIS_CENTRAL_KEY", SECRETS[2])
    no_json = real.run("plan", "real.yaml")
    central["endpoints"]["entitlements_service_url"] = f"https://u:{quote(SECRETS[3], safe='')}@evil.example"
    monkeypatch.setenv("BTP_CIS_CENTRAL_KEY", json.dumps(central))
    elsewhere = real.run("plan", "real.yaml")

    ends = [*refused, no_json, elsewhere]
    assert [one.code for one in ends] == [1, 1, 3, 1]
    assert leaks(*(one.out + one.err for one in ends)) == []


# --- what newcomers tried -------------------------------------------------------------------------------


def test_who_asks_apply_for_a_dry_run_is_sent_to_plan(desk: Desk) -> None:
    ended = desk.run("apply", "--dry-run", "--sandbox")

    assert ended.code == 64
    assert "`reconcile plan` is the dry run" in ended.err


@pytest.mark.parametrize("command", [("plan",), ("drift",), ("apply", "--yes")])
def test_problems_come_as_json_to_who_asked_for_json(desk: Desk, command: tuple[str, ...]) -> None:
    ended = desk.run(*command, "--format", "json")
    said = json.loads(ended.out)

    assert ended.code == 3
    assert (said["format"], {one["code"] for one in said["problems"]}) == (
        "btp-reconcile/problems",
        {"input/unset-variable"},
    )
    assert "BTP_CIS_CENTRAL_KEY" in ended.err


def test_a_target_may_be_a_whole_subaccount(desk: Desk) -> None:
    ended = desk.run("plan", "--sandbox", "--target", "subaccount:prod")

    assert ended.code == 0
    assert "Plan: 9 to add" in ended.out
    misspelt = desk.run("plan", "--sandbox", "--target", "subaccount:prd")
    assert misspelt.code == 64
    assert "subaccount:prod" in misspelt.err


@pytest.mark.parametrize("kind", ["entitlement", "instance", "key"])
def test_every_field_of_a_kind_is_told_in_a_line(desk: Desk, kind: str) -> None:
    ended = desk.run("kinds", kind)
    schema = json.loads(desk.run("kinds", kind, "--format", "json").out)["schema"]
    shapes = [schema, *schema.get("anyOf", ())]
    fields = {field for shape in shapes for field in shape.get("properties", {})}
    told = {
        line.split()[0]: line.split(maxsplit=1)[1:]
        for line in ended.out.splitlines()
        if line.startswith("  ")
    }

    assert fields
    assert {field for field in fields if told.get(field)} == fields
