"""deploy/github: what its files promise, and its scripts run as a runner runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.deploy.files import (
    BIN,
    DEPLOY,
    documents,
    linted,
    passes,
    program,
    ran,
    shells,
    shown,
    tool,
)
from tests.deploy.github_api import GitHub, served

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

GITHUB = DEPLOY / "github"
ACTION = GITHUB / "action/action.yml"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [a-z0-9-]+/[a-z0-9-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+\Z")
RIGHTS = {
    "btp-plan": {
        "check": {"contents": "read"},
        "plan": {"contents": "read", "id-token": "write"},
        "comment": {"pull-requests": "write"},
    },
    "btp-apply": {
        "plan": {"contents": "read", "id-token": "write"},
        "apply": {"contents": "read", "id-token": "write"},
    },
    "btp-drift": {"drift": {"contents": "read", "id-token": "write"}, "issue": {"issues": "write"}},
    "btp-rotate": {"rotate": {"contents": "read", "id-token": "write"}},
}
ENVIRONMENTS = {
    "btp-plan": {"plan": "btp-plan"},
    "btp-apply": {"plan": "btp-plan", "apply": "btp-apply"},
    "btp-drift": {"drift": "btp-plan"},
    "btp-rotate": {"rotate": "btp-rotate"},
}


def workflow(name: str) -> Any:
    return documents(GITHUB / f"workflows/{name}.yml")[0]


def step(file: Path, name: str) -> str:
    """The script of the step of that name."""
    document = documents(file)[0]
    steps = (
        document["runs"]["steps"]
        if "runs" in document
        else [one for job in document["jobs"].values() for one in job["steps"]]
    )
    found = next(one for one in steps if one.get("name") == name)
    assert isinstance(found["run"], str)
    return found["run"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The files where they are copied to."""
    shutil.copytree(GITHUB / "action", tmp_path / ".github/actions/reconcile")
    shutil.copytree(GITHUB / "workflows", tmp_path / ".github/workflows")
    (tmp_path / ".git").mkdir()
    return tmp_path


# --- the tools that read them ---------------------------------------------------------------------------


def test_the_schemas_of_github_accept_them() -> None:
    passes(tool("check-jsonschema"), "--builtin-schema", "vendor.github-actions", str(ACTION))
    passes(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))


def test_zizmor_finds_nothing(repository: Path) -> None:
    # `uses: $/…` is not known to GitHub Enterprise Server; what is checked out is the workflow's own commit.
    (repository / "zizmor.yml").write_text("rules: {self-repository: {disable: true}}\n", encoding="utf-8")
    passes(tool("zizmor"), "--offline", "--quiet", "--config", "zizmor.yml", ".", cwd=repository)


@pytest.mark.actionlint
def test_actionlint_finds_nothing(repository: Path) -> None:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    # `concurrency.queue` is younger than actionlint 1.7.12.
    passes(
        program("actionlint"),
        "-ignore",
        'unexpected key "queue"',
        cwd=repository,
        env={**os.environ, "PATH": path},
    )


@pytest.mark.parametrize("file", [ACTION, *WORKFLOWS], ids=shown)
def test_shellcheck_finds_nothing(file: Path) -> None:
    for script in shells(file):
        linted(script)


# --- least rights ---------------------------------------------------------------------------------------


def test_every_foreign_action_is_pinned_by_its_commit_and_says_its_version() -> None:
    for file in [ACTION, *WORKFLOWS]:
        for line in file.read_text(encoding="utf-8").splitlines():
            if "uses: " in line and "uses: ./" not in line:
                assert PINNED.search(line), f"{shown(file)}: {line}"


def test_every_job_has_the_rights_it_needs_and_no_other() -> None:
    assert {one.stem: workflow(one.stem)["permissions"] for one in WORKFLOWS} == {name: {} for name in RIGHTS}
    assert {
        one.stem: {name: job["permissions"] for name, job in workflow(one.stem)["jobs"].items()}
        for one in WORKFLOWS
    } == RIGHTS


def test_secrets_reach_only_jobs_of_an_environment_and_only_the_step_that_signs_in() -> None:
    for one in WORKFLOWS:
        jobs = workflow(one.stem)["jobs"]
        assert {
            name: job["environment"] for name, job in jobs.items() if "environment" in job
        } == ENVIRONMENTS[one.stem]
        for name, job in jobs.items():
            outside = {key: value for key, value in job.items() if key != "steps"}
            assert "secrets." not in json.dumps(outside), f"{one.stem}: {name}"
            for each in job["steps"]:
                if "secrets." in json.dumps(each):
                    assert name in ENVIRONMENTS[one.stem]
                    assert each["uses"] == "./.github/actions/reconcile"
                    assert "secrets." not in json.dumps(each["with"])


def test_a_job_that_writes_to_github_checks_nothing_out_and_knows_no_credentials() -> None:
    for name, jobs in RIGHTS.items():
        for job, rights in jobs.items():
            if {"pull-requests", "issues"} & rights.keys():
                said = json.dumps(workflow(name)["jobs"][job])
                assert "checkout" not in said
                assert "secrets." not in said
                assert "./" not in said


def test_pull_requests_of_forks_get_no_credentials() -> None:
    for one in WORKFLOWS:
        assert "pull_request_target" not in one.read_text(encoding="utf-8").replace("# ", "")
        assert "workflow_run" not in workflow(one.stem)[True]
    said = workflow("btp-plan")["jobs"]["plan"]["if"]
    assert said.startswith("github.event.pull_request.head.repo.full_name == github.repository")


def test_a_checkout_leaves_no_token_behind() -> None:
    found = [
        each
        for one in WORKFLOWS
        for job in workflow(one.stem)["jobs"].values()
        for each in job["steps"]
        if "actions/checkout@" in each.get("uses", "")
    ]
    assert found
    assert all(one["with"]["persist-credentials"] is False for one in found)


def test_no_expression_stands_in_a_script() -> None:
    """Names of branches and titles could hold shell; they come in by the environment."""
    assert [shown(one) for one in [ACTION, *WORKFLOWS] for script in shells(one) if "${{" in script] == []


def test_two_that_write_never_meet_and_none_is_passed_over() -> None:
    writers = {"group": "btp-write", "cancel-in-progress": False, "queue": "max"}
    assert [workflow(name)["concurrency"] for name in ("btp-apply", "btp-rotate")] == [writers, writers]
    assert {one.stem for one in WORKFLOWS if workflow(one.stem)["concurrency"]["group"] == "btp-write"} == {
        "btp-apply",
        "btp-rotate",
    }


def test_every_job_ends_by_itself() -> None:
    assert all("timeout-minutes" in job for one in WORKFLOWS for job in workflow(one.stem)["jobs"].values())


def test_rotation_knows_no_credentials_for_entitlements() -> None:
    assert "BTP_CIS_CENTRAL_KEY" not in (GITHUB / "workflows/btp-rotate.yml").read_text(encoding="utf-8")


def test_the_action_installs_this_version_unless_told_otherwise() -> None:
    from btp_reconcile import __version__

    assert documents(ACTION)[0]["inputs"]["version"]["default"] == __version__


# --- the action's script --------------------------------------------------------------------------------


SPEC = """\
version: 1
owner: finance-platform
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
      apim: {api: api-management, parameters: {role: APIPortal.Administrator}, keys: {transport: {}}}
"""


class Runner:
    """A runner's folder, in which the action's step runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "temp/reconcile/bin").mkdir(parents=True)
        (folder / "temp/reconcile/bin/reconcile").symlink_to(BIN / "reconcile")
        (folder / "specs").mkdir()
        (folder / "specs/prod.yaml").write_text(SPEC, encoding="utf-8")
        self.output, self.summary = folder / "output", folder / "summary"

    def run(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        self.output.write_text("", encoding="utf-8")
        self.summary.write_text("", encoding="utf-8")
        given = {"COMMAND": "", "ARGUMENTS": "", "OUTPUT": "", "PASS": "0", "AUDIENCE": "", **inputs}
        around = {
            "RUNNER_TEMP": str(self.folder / "temp"),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }
        state = {"RECONCILE_SANDBOX": str(self.folder / "world.json"), "CI": "true"}
        # As the runner starts `shell: bash`.
        return ran(
            "bash",
            "--noprofile",
            "--norc",
            "-eo",
            "pipefail",
            "-c",
            step(ACTION, "Run reconcile"),
            cwd=self.folder,
            env={**os.environ, **around, **state, **given},
        )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_the_action_tells_how_the_command_ended_and_passes_with_what_it_was_told(runner: Runner) -> None:
    ended = runner.run(
        COMMAND="plan",
        ARGUMENTS="specs --sandbox\n  --detailed-exitcode --format markdown",
        OUTPUT="plan.md",
        PASS="0 2",
    )
    assert (ended.returncode, runner.output.read_text()) == (0, "exit-code=2\n"), ended.stderr
    plan = (runner.folder / "plan.md").read_text(encoding="utf-8")
    assert plan.startswith("<!-- btp-reconcile:plan")
    assert runner.summary.read_text(encoding="utf-8") == plan


def test_the_action_fails_with_the_code_of_a_command_that_may_not_end_so(runner: Runner) -> None:
    ended = runner.run(COMMAND="validate", ARGUMENTS="nowhere", PASS="0 33 2")
    assert (ended.returncode, runner.output.read_text(), runner.summary.read_text()) == (
        3,
        "exit-code=3\n",
        "",
    )
    assert ended.stdout.endswith("::error::reconcile validate ended with 3\n")


def test_nothing_that_the_platform_says_is_read_as_a_command_to_the_runner(runner: Runner) -> None:
    said = [runner.run(COMMAND="kinds").stdout.splitlines() for _ in range(2)]
    words = [re.fullmatch(r"::stop-commands::([0-9a-f]{32})", one[0]) for one in said]
    assert all(words)
    assert [one[-1] for one in said] == [f"::{word[1]}::" for word in words if word]
    assert said[0][0] != said[1][0]


def test_the_plan_of_one_job_is_applied_in_the_next_and_drift_then_finds_nothing(runner: Runner) -> None:
    assert (
        runner.run(
            COMMAND="plan", ARGUMENTS="specs --sandbox --out plan.json --detailed-exitcode", PASS="0 2 5 6"
        ).returncode
        == 0
    )
    applied = runner.run(COMMAND="apply", ARGUMENTS="plan.json --timeout 50m")
    assert applied.returncode == 0, applied.stderr
    assert runner.run(COMMAND="drift", ARGUMENTS="specs --sandbox", PASS="0 2").returncode == 0
    assert runner.output.read_text() == "exit-code=0\n"
    assert runner.run(COMMAND="apply", ARGUMENTS="plan.json --timeout 50m").returncode == 4


# --- comments and issues, by the real gh ----------------------------------------------------------------


def gh(name: str, script: str, folder: Path, github: GitHub, **around: str) -> None:
    """Run a step that asks GitHub."""
    text = step(GITHUB / f"workflows/{name}.yml", script)
    with served(github, folder) as signed_in:
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        ended = ran(
            "bash",
            "--noprofile",
            "--norc",
            "-eo",
            "pipefail",
            "-c",
            text,
            cwd=folder,
            env={**os.environ, "PATH": path, **signed_in, **around},
        )
    shutil.rmtree(folder / "gh")
    (folder / "gh.sock").unlink()
    assert ended.returncode == 0, ended.stdout + ended.stderr


def comment(folder: Path, github: GitHub, body: str) -> None:
    (folder / "plan.md").write_text(body, encoding="utf-8")
    gh(
        "btp-plan",
        "Write the comment, or replace it",
        folder,
        github,
        COMMENTS="repos/acme/btp/issues/1/comments",
        COMMENT="repos/acme/btp/issues/comments",
    )


MARKER = '<!-- btp-reconcile:plan finance-platform/prod "quoted" -->'


def test_the_first_push_writes_a_comment_and_the_next_replaces_it(tmp_path: Path) -> None:
    github = GitHub()
    comment(tmp_path, github, f"{MARKER}\n\n@nobody first\n")
    comment(tmp_path, github, f"{MARKER}\n\nsecond\n")
    assert [(one["id"], one["body"]) for one in github.comments] == [(1000, f"{MARKER}\n\nsecond\n")]


def test_only_its_own_comment_is_replaced_however_many_there_are(tmp_path: Path) -> None:
    github = GitHub()
    github.comment(f"{MARKER}\n\ncopied by a person", by="mallory")
    github.comment("<!-- btp-reconcile:plan other/specs -->\n\nanother plan")
    for number in range(200):
        github.comment(f"talk {number}", by="ann")
    github.comment(f"{MARKER}\n\nold")
    before = [dict(one) for one in github.comments]
    comment(tmp_path, github, f"{MARKER}\n\nnew\n")
    assert github.comments == [*before[:-1], {**before[-1], "body": f"{MARKER}\n\nnew\n"}]


def issue(folder: Path, github: GitHub, code: int, body: str = "drift") -> None:
    (folder / "drift.md").write_text(body, encoding="utf-8")
    gh(
        "btp-drift",
        "Open, update or close the issue",
        folder,
        github,
        REPOSITORY="repos/acme/btp",
        RUN="https://github.com/acme/btp/actions/runs/7",
        CODE=str(code),
        LABEL="btp-drift",
    )


def test_drift_opens_one_issue_updates_it_and_closes_it_when_in_sync_again(tmp_path: Path) -> None:
    github = GitHub()
    issue(tmp_path, github, 0)
    assert github.written == []
    issue(tmp_path, github, 2, "one thing differs")
    issue(tmp_path, github, 2, "two things differ")
    assert [(one["title"], one["body"], one["state"], one["labels"]) for one in github.issues] == [
        ("SAP BTP differs from the specs", "two things differ", "open", [{"name": "btp-drift"}])
    ]
    issue(tmp_path, github, 0, "in sync")
    assert [(one["body"], one["state"], one["state_reason"]) for one in github.issues] == [
        ("two things differ", "closed", "completed")
    ]
    assert [(one["issue"], one["body"]) for one in github.comments] == [
        (1, "In sync again: https://github.com/acme/btp/actions/runs/7")
    ]
    issue(tmp_path, github, 6, "waits")
    assert [(one["number"], one["state"]) for one in github.issues] == [(1, "closed"), (2, "open")]
    assert github.labels == ["btp-drift"]


def test_issues_of_people_and_pull_requests_are_left_alone(tmp_path: Path) -> None:
    github = GitHub()
    github.issue("a person's", by="ann", labels=("btp-drift",))
    github.issue("a pull request", labels=("btp-drift",), pull=True)
    github.issue("another label", labels=("other",))
    before = [dict(one) for one in github.issues]
    issue(tmp_path, github, 0)
    assert (github.issues, github.written) == (before, [])
    issue(tmp_path, github, 2)
    assert github.issues[:3] == before
    assert [one["number"] for one in github.issues[3:]] == [4]


# --- signing in without a password ----------------------------------------------------------------------


class Tokens(BaseHTTPRequestHandler):
    """The runner's endpoint for tokens, as "OpenID Connect reference" describes it."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:  # the name that http.server calls
        self.asked.append((self.path, self.headers["Authorization"]))
        text = b'{"count": 1, "value": "header.claims.signature"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        return


def test_the_action_signs_in_with_a_token_that_nothing_else_sees(runner: Runner) -> None:
    # What stands in place of the program tells what it was given.
    program = runner.folder / "temp/reconcile/bin/reconcile"
    program.unlink()
    program.write_text('#!/bin/sh\nprintf "%s" "$CF_ASSERTION_TOKEN" > given\necho "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    with HTTPServer(("127.0.0.1", 0), Tokens) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            ended = runner.run(
                COMMAND="plan",
                ARGUMENTS="specs",
                AUDIENCE="btp & more",
                ACTIONS_ID_TOKEN_REQUEST_URL=f"http://127.0.0.1:{server.server_port}/token?api-version=2",
                ACTIONS_ID_TOKEN_REQUEST_TOKEN="token-of-the-runner",
            )
        finally:
            server.shutdown()
            thread.join()
    assert ended.returncode == 0, ended.stderr
    assert Tokens.asked == [("/token?api-version=2&audience=btp%20%26%20more", "Bearer token-of-the-runner")]
    assert (runner.folder / "given").read_text(encoding="utf-8") == "header.claims.signature"
    first, _, command, _ = ended.stdout.splitlines()
    assert (first, command) == ("::add-mask::header.claims.signature", "plan specs")
    left = ended.stderr + runner.output.read_text() + runner.summary.read_text()
    assert "header.claims" not in left
    assert "token-of-the-runner" not in left + ended.stdout
