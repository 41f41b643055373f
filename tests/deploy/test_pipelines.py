"""deploy/gitlab, deploy/azure-devops and deploy/jenkins: what their files promise."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import tree_sitter
import tree_sitter_groovy
import yaml

from tests.deploy.files import DEPLOY, documents, linted, passes, ran, shells, shown, tool

if TYPE_CHECKING:
    from pathlib import Path

GITLAB = DEPLOY / "gitlab/btp.gitlab-ci.yml"
AZURE = sorted((DEPLOY / "azure-devops").glob("*.yml"))
JENKINS = sorted((DEPLOY / "jenkins").glob("Jenkinsfile*"))
WRITES = re.compile(r"reconcile (apply|rotate)\b")


# --- GitLab ---------------------------------------------------------------------------------------------


def jobs() -> dict[str, dict[str, Any]]:
    """The jobs of the GitLab pipeline, with what they extend merged in as GitLab does it."""
    document = documents(GITLAB)[0]

    def whole(name: str) -> dict[str, Any]:
        own = document[name]
        base = whole(own["extends"]) if "extends" in own else {}
        return {**base, **own, "variables": {**base.get("variables", {}), **own.get("variables", {})}}

    return {name: whole(name) for name in document if name != "stages" and not name.startswith(".")}


def test_the_schema_of_gitlab_accepts_it() -> None:
    passes(tool("check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", str(GITLAB))


def test_gitlab_jobs_that_write_wait_for_each_other_and_have_an_environment_of_their_own() -> None:
    found = {name: job for name, job in jobs().items() if WRITES.search("\n".join(job["script"]))}
    assert {name: (job["resource_group"], job["environment"]["name"]) for name, job in found.items()} == {
        "btp apply": ("btp-write", "btp-apply"),
        "btp rotate": ("btp-write", "btp-rotate"),
    }


def test_gitlab_applies_only_on_the_default_branch_and_only_when_a_person_says_so() -> None:
    assert jobs()["btp apply"]["rules"] == [
        {
            "if": '$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH',
            "changes": ["specs/**/*"],
            "when": "manual",
        }
    ]
    assert jobs()["btp apply"]["needs"] == ["btp plan"]
    assert "plan.json" in jobs()["btp plan"]["artifacts"]["paths"]


def test_gitlab_signs_in_without_a_password_except_where_nobody_signs_in() -> None:
    tokens = {name: job.get("id_tokens") for name, job in jobs().items()}
    asked = {"CF_ASSERTION_TOKEN": {"aud": "$CF_AUDIENCE"}}
    assert tokens == {
        "btp check": None,
        "btp plan": asked,
        "btp apply": asked,
        "btp drift": asked,
        "btp rotate": asked,
    }


def test_gitlab_plans_with_credentials_only_what_stands_in_this_project() -> None:
    for rule in jobs()["btp plan"]["rules"]:
        fork = "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_MERGE_REQUEST_PROJECT_ID"
        assert fork in rule["if"] or "merge_request_event" not in rule["if"]


# --- Azure DevOps ---------------------------------------------------------------------------------------


def test_the_schema_of_azure_pipelines_accepts_them(tmp_path: Path) -> None:
    # Azure Pipelines reads every scalar as text, and so does its schema.
    for one in AZURE:
        text = json.dumps(yaml.load(one.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))
        (tmp_path / f"{one.stem}.json").write_text(text, encoding="utf-8")
    written = [str(one) for one in tmp_path.glob("*.json")]
    assert len(written) == 3
    passes(
        tool("check-jsonschema"),
        "--regex-variant=nonunicode",
        "--builtin-schema=vendor.azure-pipelines",
        *written,
    )


@pytest.mark.parametrize("file", [GITLAB, *AZURE, *JENKINS], ids=shown)
def test_shellcheck_finds_nothing(file: Path) -> None:
    for script in shells(file):
        # A line of a Jenkins step stands alone, and the runner knows the shell.
        linted(re.sub(r"\$\([A-Za-z.]+\)", "value", script))


@pytest.mark.parametrize("file", AZURE, ids=shown)
def test_azure_writes_only_in_a_deployment_to_an_environment_that_lets_one_in_at_a_time(file: Path) -> None:
    document = documents(file)[0]
    every = [job for stage in document.get("stages", [document]) for job in stage["jobs"]]
    for job in every:
        writes = any(WRITES.search(text) for text in shells_of(job))
        groups = json.dumps(
            [document.get("variables"), *(one.get("variables") for one in stages_of(document, job))]
        )
        assert ("environment" in job, "deployment" in job) == (writes, writes), job
        assert ("btp-lock" in groups) == writes, job
        if writes:
            assert document["lockBehavior"] == "sequential"


def stages_of(document: Any, job: Any) -> list[Any]:
    return [stage for stage in document.get("stages", ()) if job in stage["jobs"]]


def shells_of(job: Any) -> list[str]:
    return re.findall(r'"bash": "((?:[^"\\]|\\.)*)"', json.dumps(job))


def test_azure_applies_on_main_alone_and_gives_forks_no_plan() -> None:
    stages = {
        one["stage"]: one for one in documents(DEPLOY / "azure-devops/azure-pipelines.yml")[0]["stages"]
    }
    assert "ne(variables['System.PullRequest.IsFork'], 'True')" in stages["plan"]["condition"]
    assert "eq(variables['Build.SourceBranch'], 'refs/heads/main')" in stages["apply"]["condition"]
    assert "ne(variables['Build.Reason'], 'PullRequest')" in stages["apply"]["condition"]
    assert [stages[name].get("variables") for name in ("check", "plan", "apply")] == [
        None,
        [{"group": "btp-plan"}],
        [{"group": "btp-apply"}, {"group": "btp-lock"}],
    ]


def test_azure_passes_a_plan_with_changes_on_and_fails_with_a_plan_that_failed(tmp_path: Path) -> None:
    stages = {
        one["stage"]: one for one in documents(DEPLOY / "azure-devops/azure-pipelines.yml")[0]["stages"]
    }
    script = next(one["bash"] for one in stages["plan"]["jobs"][0]["steps"] if one.get("name") == "reconcile")
    (tmp_path / "reconcile").write_text('#!/bin/sh\nexit "$CODE"\n', encoding="utf-8")
    (tmp_path / "reconcile").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ended = {
        code: ran("bash", "-c", script, env={"PATH": path, "OUT": str(tmp_path / "out"), "CODE": str(code)})
        for code in (0, 1, 2, 3, 4, 5, 6, 64)
    }
    assert {code: one.returncode for code, one in ended.items()} == {
        0: 0,
        1: 1,
        2: 0,
        3: 3,
        4: 4,
        5: 0,
        6: 0,
        64: 64,
    }
    assert ended[6].stdout.splitlines()[-1] == "##vso[task.setvariable variable=code;isOutput=true]6"


# --- Jenkins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", JENKINS, ids=shown)
def test_it_is_groovy(file: Path) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_groovy.language()))
    assert not parser.parse(file.read_bytes()).root_node.has_error
    assert parser.parse(file.read_bytes().rstrip()[:-1]).root_node.has_error


@pytest.mark.parametrize("file", JENKINS, ids=shown)
def test_jenkins_writes_only_with_the_lock_and_cleans_up_after_each_agent(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert ("lock(resource: 'btp-write')" in text) == bool(WRITES.search("\n".join(shells(file))))
    assert text.count("cleanup { deleteDir() }") == text.count("agent { docker")
    assert "disableConcurrentBuilds()" in text
    assert "timeout(time:" in text


def test_jenkins_never_puts_a_secret_into_a_text_of_groovy() -> None:
    """In double quotes Groovy would write it into the command line, and into the log."""
    for file in JENKINS:
        for line in file.read_text(encoding="utf-8").splitlines():
            assert not re.search(r'\b(sh|script:)\s*"', line), line


def test_jenkins_asks_before_it_applies_and_gives_forks_no_credentials() -> None:
    text = (DEPLOY / "jenkins/Jenkinsfile").read_text(encoding="utf-8")
    stages = dict(re.findall(r"\n        stage\('(\w+)'\) \{(.*?)\n        \}", text, re.DOTALL))
    assert list(stages) == ["Check", "Plan", "Approve", "Apply"]
    assert "withCredentials" not in stages["Check"]
    assert "expression { env.CHANGE_FORK == null }" in stages["Plan"]
    assert "input {" in stages["Approve"]
    assert all("branch 'main'" in stages[one] for one in ("Approve", "Apply"))
    assert ["btp-write" in stages[one] for one in stages] == [False, False, False, True]


def test_rotation_knows_no_credentials_for_entitlements_anywhere() -> None:
    assert "BTP_CIS_CENTRAL_KEY" not in (DEPLOY / "azure-devops/rotate.yml").read_text(encoding="utf-8")
    assert "BTP_CIS_CENTRAL_KEY" not in (DEPLOY / "jenkins/Jenkinsfile.rotate").read_text(encoding="utf-8")
