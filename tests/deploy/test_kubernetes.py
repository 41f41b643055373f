"""deploy/kubernetes: manifests that the API server takes, in pods that may do nothing but this."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.files import DEPLOY, documents
from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Desk

FILES = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
KUSTOMIZATION = DEPLOY / "kubernetes/kustomization.yaml"
MANIFESTS = [one for one in FILES if one != KUSTOMIZATION]
OLDEST, NEWEST = "1.29", "1.36"
"""`backoffLimitPerIndex` is on since Kubernetes 1.29."""
PODS = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Job": ("spec", "template"),
    "Deployment": ("spec", "template"),
}


def objects() -> list[dict[str, Any]]:
    return [one for file in MANIFESTS for one in documents(file)]


def pods() -> dict[str, dict[str, Any]]:
    """Every pod by its object's name."""
    found = {}
    for one in objects():
        if one["kind"] in PODS:
            template: Any = one
            for step in PODS[one["kind"]]:
                template = template[step]
            name = one["metadata"].get("name") or one["metadata"]["generateName"]
            found[f"{one['kind']} {name}"] = template["spec"]
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_schemas_of_kubernetes_accept_them(version: str) -> None:
    for one in objects():
        kubernetes_validate.validate(one, version, strict=True)


def test_every_manifest_is_in_the_kustomization_and_in_its_namespace() -> None:
    kustomization = documents(KUSTOMIZATION)[0]
    beside = [one.name for one in MANIFESTS if one.parent == KUSTOMIZATION.parent]
    assert sorted(kustomization["resources"]) == beside
    namespaced = [one for one in objects() if one["kind"] != "Namespace"]
    assert {one["metadata"]["namespace"] for one in namespaced} == {kustomization["namespace"]}


def test_the_namespace_refuses_pods_that_are_not_restricted() -> None:
    labels = [one["metadata"]["labels"] for one in objects() if one["kind"] == "Namespace"]
    assert labels == [
        {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": "latest",
        }
    ]


def test_every_pod_is_restricted_and_has_no_token() -> None:
    """The profile restricted of "Pod Security Standards", and a root file system that cannot be written."""
    found = pods()
    assert len(found) >= 6
    for name, pod in found.items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["serviceAccountName"] == "reconcile", name
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 10001, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            assert not container["image"].endswith(":latest"), name
            assert ":" in container["image"], name
        for volume in pod.get("volumes", ()):
            assert volume.keys() <= {"name", "projected", "emptyDir", "persistentVolumeClaim"}, name


def test_the_service_account_has_no_token_and_no_rights() -> None:
    found = objects()
    assert [one["automountServiceAccountToken"] for one in found if one["kind"] == "ServiceAccount"] == [
        False
    ]
    assert not [one for one in found if "Role" in one["kind"]]


def test_nothing_comes_in_uninvited_and_only_names_and_https_go_out() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects() if one["kind"] == "NetworkPolicy"}
    everything = policies["reconcile"]
    assert everything["podSelector"] == {}
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    assert [
        [(port["protocol"], port["port"]) for port in rule["ports"]] for rule in everything["egress"]
    ] == [
        [("UDP", 53), ("TCP", 53)],
        [("TCP", 443)],
    ]
    assert "169.254.0.0/16" in everything["egress"][1]["to"][0]["ipBlock"]["except"]
    assert all("egress" not in spec for name, spec in policies.items() if name != "reconcile")


def test_schedules_never_run_twice_at_once_and_end() -> None:
    for one in objects():
        if one["kind"] == "CronJob":
            assert one["spec"]["concurrencyPolicy"] == "Forbid"
            job = one["spec"]["jobTemplate"]["spec"]
            assert job["backoffLimit"] == 0
            assert job["activeDeadlineSeconds"] <= 3600


def test_prometheus_alone_may_ask_the_service_at_the_port_where_it_listens() -> None:
    (deployment,) = (one["spec"] for one in objects() if one["kind"] == "Deployment")
    (policy,) = (
        one["spec"]
        for one in objects()
        if one["metadata"].get("name") == "drift-service" and one["kind"] == "NetworkPolicy"
    )
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["args"][container["args"].index("--listen") + 1] == "0.0.0.0:9464"
    assert [one["containerPort"] for one in container["ports"]] == [9464]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert (
        policy["podSelector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    )
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert policy["ingress"] == [
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"protocol": "TCP", "port": 9464}],
        }
    ]


def test_the_parts_of_a_landscape_are_as_many_as_are_put_together() -> None:
    jobs = {one["metadata"]["generateName"]: one["spec"] for one in objects() if one["kind"] == "Job"}
    said = {name: job["template"]["spec"]["containers"][0]["args"] for name, job in jobs.items()}
    parts = jobs["plan-"]["completions"]
    assert [(jobs[name]["completions"], jobs[name]["completionMode"]) for name in ("plan-", "apply-")] == [
        (parts, "Indexed"),
        (parts, "Indexed"),
    ]
    assert f"auto/{parts}" in said["plan-"]
    assert [one for one in said["merge-"] if one.startswith("/plans/plan-")] == [
        f"/plans/plan-{number}.json" for number in range(parts)
    ]
    assert (
        said["plan-"][said["plan-"].index("--out") + 1]
        == said["apply-"][1]
        == "/plans/plan-$(JOB_COMPLETION_INDEX).json"
    )
    assert said["merge-"][-1] == said["apply-"][said["apply-"].index("--approved") + 1]


def test_only_what_writes_gets_the_credentials_that_write() -> None:
    for name, pod in pods().items():
        secrets = set(re.findall(r"'secret': \{'name': '([a-z-]+)'", str(pod)))
        command = pod["containers"][0]["args"][0]
        needed = {"rotate": {"btp-write"}, "apply": {"btp-write"}, "report": set()}
        assert secrets == needed.get(command, {"btp-read"}), name


def test_no_secret_comes_in_by_the_environment_or_stands_in_a_manifest() -> None:
    assert not [one for one in objects() if one["kind"] in {"Secret", "ConfigMap"}]
    for name, pod in pods().items():
        assert "secretRef" not in str(pod), name
        assert "secretKeyRef" not in str(pod), name


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """/specs as a kubelet lays out a projected volume: links to a folder that it exchanges as a whole."""
    read = next(pod for name, pod in pods().items() if name == "CronJob drift")
    sources = next(one["projected"]["sources"] for one in read["volumes"] if one["name"] == "specs")
    now = tmp_path / "mounted/specs/..2026_01_01_00_00_00.123"
    (now / "secrets").mkdir(parents=True)
    prod = yaml.safe_load((ROOT / "specs/prod.yaml").read_text(encoding="utf-8"))
    prod["access"] = access()
    del prod["subaccounts"]["prod"]["destinations"]
    (now / "prod.yaml").write_text(yaml.safe_dump(prod), encoding="utf-8")
    for item in sources[1]["secret"]["items"]:
        (now / item["path"]).write_text(
            "{}" if item["key"] == "cis-central" else "planted-secret", encoding="utf-8"
        )
    (tmp_path / "mounted/specs/..data").symlink_to(now.name)
    for name in ("prod.yaml", "secrets"):
        (tmp_path / "mounted/specs" / name).symlink_to(f"..data/{name}")
    return tmp_path / "mounted/specs"


def access() -> Any:
    """The access that deploy/README.md tells to write for this."""
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(access:.*?)```", text, re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])["access"]


def test_specs_and_secrets_are_read_from_the_volume_as_it_is_mounted(mounted: Path, desk: Desk) -> None:
    ended = desk.run("validate", str(mounted))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{mounted}/prod.yaml: valid, 1 subaccount, 2 instances, 4 keys\n"
    planned = desk.run("plan", str(mounted), "--sandbox", "--format", "json")
    assert planned.code == 0, planned.err
    assert "planted-secret" not in planned.out + planned.err
    assert base64.b64encode(b"planted-secret").decode() not in planned.out
