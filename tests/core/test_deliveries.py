"""What specs say of deliveries, all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Secret
from btp_reconcile.edges import load
from btp_reconcile.sinks import SINKS
from btp_reconcile.sinks._kubeconfig import names_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from btp_reconcile.core.model import Wanted

SPEC = """\
version: 1
owner: team
defaults: {runtime: cloudfoundry}
access: ACCESS
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
      one:
        service: sandbox-config
        plan: standard
        keys: {k: {deliver: {c: DELIVERY}}}
"""
VAULT = "{vault: {path: secret/a}}"
KUBERNETES = "{kubernetes: {namespace: a, name: b}}"


def prepared(
    folder: Path, access: str, delivery: str, environment: Mapping[str, str] | None = None
) -> Wanted:
    (folder / "specs").mkdir()
    (folder / "specs/prod.yaml").write_text(SPEC.replace("ACCESS", access).replace("DELIVERY", delivery))
    world = pipeline.World(
        environment or {},
        load.outside,
        None,  # type: ignore[arg-type]  # nobody is asked
        None,  # type: ignore[arg-type]  # no time passes
        lambda *_: None,
        rehearsal=True,
        really=frozenset(sink.name for sink in SINKS),
    )
    return pipeline.prepare(["specs/prod.yaml"], world).wanted


def told(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: told(item) for key, item in value.items()}
    return value.reveal() if isinstance(value, Secret) else value


@pytest.mark.parametrize(
    ("delivery", "codes"),
    [
        ("{command: {run: [./push.sh]}}", []),
        ("{file: {path: same.json}}", ["conflict/claimed-twice"]),
    ],
)
def test_one_program_may_serve_many_keys_and_one_place_may_not(
    tmp_path: Path, delivery: str, codes: list[str]
) -> None:
    two = SPEC.replace("keys: {", "keys: {l: {deliver: {c: DELIVERY}}, ").replace("ACCESS", "{}")
    file = tmp_path / "prod.yaml"
    file.write_text(two.replace("DELIVERY", delivery))
    found = []
    try:
        pipeline.check([str(file)])
    except SpecError as error:
        found = [one.code for one in error.problems]

    assert found == codes


@pytest.mark.parametrize(
    ("delivery", "access", "environment", "said"),
    [
        (VAULT, "{vault: {ca_file: ca.pem}}", {}, {"ca_file": "specs/ca.pem"}),
        (VAULT, "{vault: {ca_file: /etc/ca.pem}}", {}, {"ca_file": "/etc/ca.pem"}),
        (
            VAULT,
            "{vault: {kubernetes: {role: ci, token_file: ../token}}}",
            {},
            {"kubernetes": {"role": "ci", "token_file": "specs/../token"}},
        ),
        (
            VAULT,
            "{vault: {namespace: '${env:N}'}}",
            {"N": "a/b"},
            {"namespace": "a/b"},
        ),
        (KUBERNETES, "{kubernetes: {kubeconfig: config}}", {}, {"kubeconfig": "specs/config"}),
        (KUBERNETES, "{kubernetes: {kubeconfig: 'a:/b'}}", {}, {"kubeconfig": "specs/a:/b"}),
        (
            KUBERNETES,
            "{kubernetes: {kubeconfig: '${env:K}'}}",
            {"K": "config"},
            {"kubeconfig": "specs/config"},
        ),
        (KUBERNETES, "{kubernetes: {kubeconfig: '${env:K}'}}", {"K": "a: 1\n"}, {"kubeconfig": "a: 1\n"}),
        (
            KUBERNETES,
            "{kubernetes: {kubeconfig: '${env:K}'}}",
            {"K": "tokenFile: a\n"},
            {"kubeconfig": "tokenFile: a\n", "folder": "specs"},
        ),
        (KUBERNETES, "{kubernetes: {in_cluster: true}}", {}, {"in_cluster": True}),
        (
            "{gitlab: {project: a/b, variable: C}}",
            "{gitlab: {token: '${env:T}'}}",
            {"T": "t"},
            {"token": "t"},
        ),
    ],
)
def test_every_path_in_the_access_of_a_sink_starts_at_its_specs_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    delivery: str,
    access: str,
    environment: dict[str, str],
    said: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = prepared(tmp_path, access, delivery, environment)
    (sink,) = wanted.access["prod"]

    assert told(wanted.access["prod"][sink]) == said


def test_what_came_from_a_variable_is_as_hidden_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = prepared(tmp_path, "{kubernetes: {kubeconfig: '${env:K}'}}", KUBERNETES, {"K": "config"})

    assert str(wanted.access["prod"]["kubernetes"]["kubeconfig"]) == "<secret env:K>"


@pytest.mark.parametrize("sink", SINKS, ids=lambda one: one.name)
def test_no_path_is_forgotten(sink: Any) -> None:
    """What the schema of an access calls a path is moved to the spec's folder."""

    def paths(schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found = {
            name: "x" if below.get("$ref") == "#/$defs/path" else paths(below)
            for name, below in (schema.get("properties") or {}).items()
        }
        return {name: below for name, below in found.items() if below}

    def moved(value: Any) -> Any:
        return {name: moved(below) for name, below in value.items()} if isinstance(value, dict) else "specs/x"

    access = paths(sink.access or {})

    assert sink.located(access, "specs") == moved(access)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"clusters": [{"cluster": {"certificate-authority-data": "x"}}]}', False),
        ('{"clusters": [{"cluster": {"certificate-authority": "ca.pem"}}]}', True),
        ("users:\n- user:\n    client-key-data: x\n", False),
        ("users:\n- user:\n    exec: {command: ./get, args: []}\n", True),
        ("users:\n- user:\n    tokenFile : token\n", True),
    ],
)
def test_a_kubeconfig_that_names_files_is_known(text: str, names: bool) -> None:
    assert names_files(text) is names
