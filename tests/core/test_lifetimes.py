"""What a spec says about a key's life, in normal form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core import lifetimes
from btp_reconcile.core.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """\
version: 1
owner: finance
defaults: {runtime: cloudfoundry, keep_old_for: 2d}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
      one:
"""
PORTAL = "api: api-management"
OTHER = "service: some-service\n        plan: standard"
FILE = {"sink": "file", "block": {"path": "a.json"}, "shape": "native", "adopt": False}


def key(folder: Path, said: str, instance: str = PORTAL) -> dict[str, Any]:
    """A key as the rest of the program sees it."""
    spec = folder / "spec.yaml"
    spec.write_text(f"{HEAD}        {instance}\n        keys: {{k: {said}}}\n", encoding="utf-8")
    (checked,) = pipeline.check([str(spec)]).specs
    found: dict[str, Any] = checked.data["subaccounts"]["prod"]["instances"]["one"]["keys"]["k"]
    return found


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("12h", 43200), ("7d", 604800), ("4w", 2419200), (None, 604800)]
)
def test_durations_are_seconds_and_none_is_a_week(text: str | None, seconds: int) -> None:
    assert lifetimes.seconds(text) == seconds


@pytest.mark.parametrize(
    ("instance", "said", "parameters"),
    [
        (PORTAL, "{}", {}),
        (PORTAL, "{credential: {type: secret}}", {"xsuaa": {"credential-type": "binding-secret"}}),
        (
            PORTAL,
            "{credential: {type: x509}}",
            {"xsuaa": {"credential-type": "x509", "x509": {"key-length": 2048}}},
        ),
        (
            PORTAL,
            "{credential: {type: x509, validity: 2w, key_length: 4096}}",
            {
                "xsuaa": {
                    "credential-type": "x509",
                    "x509": {"key-length": 4096, "validity": 14, "validity-type": "DAYS"},
                }
            },
        ),
        (OTHER, "{credential: {type: secret}}", {"credential-type": "binding-secret"}),
        (
            OTHER,
            "{credential: {type: x509, validity: 48h}, parameters: {size: 1}}",
            {
                "size": 1,
                "credential-type": "x509",
                "x509": {"key-length": 2048, "validity": 2, "validity-type": "DAYS"},
            },
        ),
    ],
)
def test_a_credential_stands_for_the_parameters_that_the_broker_takes(
    tmp_path: Path, instance: str, said: str, parameters: dict[str, Any]
) -> None:
    assert key(tmp_path, said, instance)["parameters"] == parameters


@pytest.mark.parametrize(
    ("said", "life"),
    [
        ("{}", {}),
        ("{rotate_after: ~, credential: ~, deliver: {}, verify: ~}", {}),
        ("{rotate_after: 20d}", {"rotate_after": 1728000}),
        (
            "{rotate_after: 1h, verify: false, reissue_stale: true}",
            {"rotate_after": 3600, "verify": False, "reissue_stale": True},
        ),
        (
            "{credential: {type: x509, validity: 30d}, rotate_after: 27d}",
            {"credential": {"type": "x509", "validity": 2592000}, "rotate_after": 2332800},
        ),
        ("{deliver: {main: {file: {path: a.json}}, gone: ~}}", {"deliver": {"main": FILE}}),
        (
            "{deliver: {main: {file: {path: a.json}, shape: uaa, adopt: true}}}",
            {"deliver": {"main": {**FILE, "shape": "uaa", "adopt": True}}},
        ),
    ],
)
def test_what_is_not_said_is_left_out(tmp_path: Path, said: str, life: dict[str, Any]) -> None:
    found = key(tmp_path, said)
    words = ("credential", "rotate_after", "reissue_stale", "verify", "deliver")

    assert {name: found[name] for name in words if name in found} == life


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("{credential: {type: x509, validity: 30d}, rotate_after: 28d}", "spec/rotation"),
        ("{credential: {type: x509, validity: 30d}, rotate_after: 27d, keep_old_for: 3d}", "spec/rotation"),
        ("{rotate_after: 59m}", "spec/rotation"),
        ("{credential: {type: x509, validity: 25h}}", "spec/credential"),
        ("{deliver: {main: {file: {path: a}, vault: {path: b/c}}}}", "spec/delivery"),
        (
            "{credential: {type: x509}, deliver: {main: {file: {path: a}, shape: piper}}}",
            "spec/delivery",
        ),
    ],
)
def test_what_cannot_be_is_one_problem_at_its_line(tmp_path: Path, said: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        key(tmp_path, said)

    assert [(one.code, one.source.line, str(one.address)) for one in caught.value.problems if one.source] == [
        (code, 12, "key:prod/one/k")
    ]
