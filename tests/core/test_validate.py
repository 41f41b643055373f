"""Documents → specs: what the layers come to, and what is normal form. Messages are in tests/cases."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from btp_reconcile.core import catalogue, problems, references, suspicion, validate
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Problem, Source
from btp_reconcile.edges import load
from btp_reconcile.kinds import KINDS

if TYPE_CHECKING:
    from btp_reconcile.core.validate import Checked, Spec

CATALOGUE = catalogue.build(load.catalogue())

HEAD = "version: 1\nowner: finance\n"
SUBACCOUNT = """\
subaccounts:
  prod:
    id: 5A7D1F0E-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(**files: str) -> Checked:
    """Check files; `_base` becomes `_base.yaml`."""
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")
    return validate.check(load.documents(["."]), KINDS, CATALOGUE)


def spec(text: str, **files: str) -> Spec:
    return checked(spec=text, **files).specs[0]


def subaccount(text: str, **files: str) -> Any:
    return spec(text, **files).data["subaccounts"]["prod"]


def codes(**files: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        checked(**files)
    return [problem.code for problem in caught.value.problems]


def warnings(text: str) -> list[str]:
    return [problem.code for problem in checked(spec=text).warnings]


# --- normal form ----------------------------------------------------------------------------------------


def test_the_least_instance_in_full() -> None:
    text = HEAD + SUBACCOUNT + "    instances: {hub: {api: afc, runtime: other, keys: {k: {}}}}\n"

    assert spec(text).data == {
        "access": {},
        "subaccounts": {
            "prod": {
                "access": {},
                "id": "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10",
                "region": "eu10",
                "entitlements": {},
                "instances": {
                    "hub": {
                        "api": "afc",
                        "service": "afc-api-service",
                        "plan": "standard",
                        "runtime": "other",
                        "name": "hub",
                        "parameters": {},
                        "tags": [],
                        "entitlement": "managed",
                        "protect": True,
                        "ensure": "present",
                        "adopt": None,
                        "manage": "full",
                        "ignore": [],
                        "keep_old_for": 7 * 86400,
                        "keys": {
                            "k": {
                                "name": "k",
                                "parameters": {},
                                "ensure": "present",
                                "adopt": None,
                                "manage": "full",
                                "ignore": [],
                                "keep_old_for": 7 * 86400,
                            }
                        },
                    }
                },
            }
        },
    }


def test_owner_and_name_come_from_the_spec_or_the_file() -> None:
    named = spec("version: 1\nowner: a\nname: b\nowner_was: c\n" + SUBACCOUNT)
    other = spec("version: 1\nowner: a\n" + SUBACCOUNT)

    assert (named.owner, named.name, named.owner_was) == ("a", "b", "c")
    assert (other.owner, other.name, other.owner_was, other.file) == ("a", "spec", None, "spec.yaml")


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("true", {"amount": True, "ensure": "present"}),
        ("4", {"amount": 4, "ensure": "present"}),
        ("{}", {"amount": True, "ensure": "present"}),
        ("{amount: 4, unique_id: x}", {"amount": 4, "ensure": "present", "unique_id": "x"}),
        ("{ensure: absent}", {"amount": True, "ensure": "absent"}),
    ],
)
def test_entitlements_in_one_form(said: str, wanted: dict[str, Any]) -> None:
    text = HEAD + SUBACCOUNT + f"    entitlements: {{S 1: {{P/x: {said}}}}}\n"

    assert subaccount(text)["entitlements"] == {"S 1": {"P/x": wanted}}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("true", {}), ("false", None), ("{}", {}), ("{name: x}", {"name": "x"}), ("{id: y}", {"id": "y"})],
)
def test_adoption_in_one_form(said: str, wanted: dict[str, str] | None) -> None:
    text = HEAD + SUBACCOUNT + f"    instances: {{i: {{api: afc, runtime: other, adopt: {said}}}}}\n"

    assert subaccount(text)["instances"]["i"]["adopt"] == wanted


@pytest.mark.parametrize(("said", "wanted"), [("30m", 1800), ("12h", 43200), ("5d", 432000), ("2w", 1209600)])
def test_durations_are_seconds(said: str, wanted: int) -> None:
    text = HEAD + SUBACCOUNT + f"    instances: {{i: {{api: afc, runtime: other, keep_old_for: {said}}}}}\n"

    assert subaccount(text)["instances"]["i"]["keep_old_for"] == wanted


def test_a_key_takes_after_its_instance_unless_it_says_otherwise() -> None:
    text = (
        HEAD
        + SUBACCOUNT
        + """\
    instances:
      i:
        api: afc
        runtime: other
        manage: observe
        ensure: absent
        keep_old_for: 1d
        keys: {a: {}, b: {manage: full, ensure: absent, keep_old_for: 2d, owner_was: x}}
"""
    )
    keys = subaccount(text)["instances"]["i"]["keys"]

    assert [(key["manage"], key["ensure"], key["keep_old_for"]) for key in keys.values()] == [
        ("observe", "absent", 86400),
        ("full", "absent", 2 * 86400),
    ]
    assert keys["b"]["owner_was"] == "x"


def test_the_landscape_is_the_regions_unless_it_is_named() -> None:
    plain = subaccount(HEAD + SUBACCOUNT + "    cloud_foundry: {org: o}\n")
    named = subaccount(HEAD + SUBACCOUNT + "    cloud_foundry: {org: o, landscape: eu10-004}\n")
    url = subaccount(HEAD + SUBACCOUNT + "    cloud_foundry: {org: o, api: 'https://api.example.com'}\n")

    assert plain["cloud_foundry"] == {"org": "o", "landscape": "eu10"}
    assert named["cloud_foundry"] == {"org": "o", "landscape": "eu10-004"}
    assert url["cloud_foundry"] == {"org": "o", "api": "https://api.example.com"}


def test_the_nearest_space_holds() -> None:
    text = (
        HEAD
        + "defaults: {runtime: cloudfoundry}\n"
        + SUBACCOUNT
        + "    cloud_foundry: {org: o, space: s}\n    instances: {a: {api: afc}, b: {api: afc, space: t}}\n"
    )

    assert [one["space"] for one in subaccount(text)["instances"].values()] == ["s", "t"]


def test_any_other_service_works_by_service_and_plan() -> None:
    text = HEAD + SUBACCOUNT + "    instances: {i: {service: xsuaa, plan: application, runtime: other}}\n"
    found = subaccount(text)["instances"]["i"]

    assert (found["service"], found["plan"], found["protect"], "api" in found) == (
        "xsuaa",
        "application",
        False,
        False,
    )


def test_a_known_service_is_known_without_its_api_name() -> None:
    text = (
        HEAD + SUBACCOUNT + "    instances: {i: {service: afc-api-service, plan: standard, runtime: other}}\n"
    )

    assert subaccount(text)["instances"]["i"]["protect"] is True


def test_references_stay_as_they_are() -> None:
    text = """\
version: 1
owner: a
access:
  central: {service_key: "${file:keys/cis.json}"}
subaccounts:
  prod:
    id: "${env:PROD_ID}"
    region: eu10
    access: {service_manager: {service_key: "${env:SM}"}}
    cloud_foundry: {org: "${env:ORG}", landscape: "${env:LANDSCAPE}"}
    instances:
      i: {service: s, plan: p, runtime: other, name: "a$${b", parameters: {x: ["${env:X}", "$${y}"]}}
"""
    whole = spec(text)
    prod = whole.data["subaccounts"]["prod"]

    assert whole.data["access"] == {"central": {"service_key": "${file:keys/cis.json}"}}
    assert prod["access"] == {"service_manager": {"service_key": "${env:SM}"}}
    assert (prod["id"], prod["cloud_foundry"]["org"]) == ("${env:PROD_ID}", "${env:ORG}")
    assert prod["instances"]["i"]["name"] == "a${b", (
        "where no reference may stand there is nothing to resolve later"
    )
    assert prod["instances"]["i"]["parameters"] == {"x": ["${env:X}", "$${y}"]}


def test_checks_that_need_a_value_from_outside_wait_for_it() -> None:
    text = (
        HEAD
        + SUBACCOUNT
        + "    instances: {i: {api: api-management, runtime: other, parameters: {role: '${env:R}'}}}\n"
    )

    assert subaccount(text)["instances"]["i"]["parameters"] == {"role": "${env:R}"}


# --- layers ---------------------------------------------------------------------------------------------


def test_defaults_stand_below_templates_and_these_below_own_words() -> None:
    text = """\
version: 1
owner: a
defaults: {runtime: other, keep_old_for: 1d, manage: observe}
templates:
  one: {instances: {i: {api: api-management, keep_old_for: 2d, parameters: {role: APIPortal.Guest}, keys: {k: {}}}}}
  two: {instances: {i: {keep_old_for: 3d, protect: true}}, entitlements: {S: {P: 1, Q: 1}}}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    use: [one, two]
    entitlements: {S: {P: 2}}
    instances: {i: {parameters: {role: APIPortal.Administrator}, keys: {l: {}}}}
"""
    prod = subaccount(text)
    found = prod["instances"]["i"]

    assert (found["runtime"], found["keep_old_for"], found["manage"], found["protect"]) == (
        "other",
        3 * 86400,
        "observe",
        True,
    )
    assert found["parameters"] == {"role": "APIPortal.Administrator"}
    assert list(found["keys"]) == ["k", "l"]
    assert {plan: wish["amount"] for plan, wish in prod["entitlements"]["S"].items()} == {"P": 2, "Q": 1}


def test_null_takes_away_what_a_template_gives() -> None:
    text = """\
version: 1
owner: a
defaults: {runtime: other}
templates: {base: {instances: {a: {api: afc}, b: {api: afc, keep_old_for: 1d}}}}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    use: [base]
    instances: {a: null, b: {keep_old_for: null}}
"""
    found = subaccount(text)["instances"]

    assert (list(found), found["b"]["keep_old_for"]) == (["b"], 7 * 86400)


def test_null_takes_away_a_default_too() -> None:
    text = (
        HEAD + "defaults: {runtime: other}\n" + SUBACCOUNT + "    instances: {a: {api: afc, runtime: null}}\n"
    )

    assert codes(spec=text) == ["spec/missing"]


def test_a_template_may_give_the_space() -> None:
    text = (
        HEAD
        + "defaults: {runtime: cloudfoundry}\ntemplates: {base: {cloud_foundry: {space: s}, instances: {a: {api: afc}}}}\n"
        + SUBACCOUNT
        + "    cloud_foundry: {org: o}\n    use: [base]\n"
    )

    assert subaccount(text)["instances"]["a"]["space"] == "s"


def test_what_a_file_extends_stands_below_it() -> None:
    base = """\
version: 1
owner: base
name: base-name
access: {central: {service_key: "${env:BASE}"}}
defaults: {runtime: other, keep_old_for: 1d}
templates: {one: {instances: {a: {api: afc}}}}
"""
    more = "owner: more\ndefaults: {keep_old_for: 2d}\n"
    whole = spec(
        "extends: [_base.yaml, _more.yaml]\n" + SUBACCOUNT + "    use: [one]\n", _base=base, _more=more
    )

    assert (whole.owner, whole.name) == ("more", "spec"), "a name tells specs apart, so it is never inherited"
    assert whole.data["access"] == {"central": {"service_key": "${env:BASE}"}}
    assert whole.data["subaccounts"]["prod"]["instances"]["a"]["keep_old_for"] == 2 * 86400


def test_a_base_with_a_template_too_many_is_no_worry() -> None:
    base = "defaults: {runtime: other}\ntemplates: {one: {instances: {a: {api: afc}}}, two: {}}\n"
    found = checked(spec=HEAD + "extends: _base.yaml\n" + SUBACCOUNT + "    use: [one]\n", _base=base)

    assert found.warnings == ()


def test_two_files_may_extend_one_and_share_subaccounts() -> None:
    base = "version: 1\nowner: a\ndefaults: {runtime: other}\n"
    found = checked(
        _base=base,
        a="extends: _base.yaml\n" + SUBACCOUNT + "    instances: {a: {api: afc}}\n",
        b="extends: _base.yaml\n" + SUBACCOUNT + "    instances: {b: {api: afc}}\n",
    )

    assert [one.name for one in found.specs] == ["a", "b"]


def test_places_lead_to_what_was_written() -> None:
    text = (
        HEAD
        + "defaults: {runtime: other}\ntemplates: {t: {instances: {a: {api: afc}}}}\n"
        + SUBACCOUNT
        + "    use: [t]\n    instances:\n      b:\n        api: afc\n        keys: {k: {}}\n"
    )
    whole = spec(text)
    path = ("subaccounts", "prod", "instances")

    assert whole.source(*path, "a", "api") == Source("spec.yaml", 4, 38)
    assert whole.source(*path, "b", "keys", "k") == Source("spec.yaml", 13, 16)
    assert whole.source(*path, "b", "runtime") == Source("spec.yaml", 3, 21)
    assert whole.source(*path, "b", "tags", 7) == Source("spec.yaml", 11, 7), "the nearest thing around it"
    assert whole.source("nowhere") == Source("spec.yaml")


# --- judgement ------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = "owner: A\nsubaccounts: {prod: {region: x, use: [y], instances: {i: {api: z, keep_old_for: 1}}}}\n"

    assert sorted(codes(spec=text, other="version: 3\n")) == [
        "spec/duration",
        "spec/missing",
        "spec/missing",
        "spec/missing",
        "spec/missing",
        "spec/name",
        "spec/region",
        "spec/unknown-api",
        "spec/unknown-template",
        "spec/version",
    ]


def test_a_mistake_is_not_followed_by_others_it_causes() -> None:
    instance = "    instances: {i: {apy: afc, runtine: other}}\n"

    assert codes(spec=HEAD + SUBACCOUNT + instance) == ["spec/unknown-field", "spec/unknown-field"]


def test_an_absent_instance_needs_no_entitlement() -> None:
    text = (
        HEAD
        + SUBACCOUNT
        + "    entitlements: {afc-api-service: {standard: {ensure: absent}}}\n"
        + "    instances: {i: {api: afc, runtime: other, ensure: absent}}\n"
    )

    assert checked(spec=text).warnings == ()


def test_the_same_name_in_both_runtimes_is_no_clash() -> None:
    text = (
        HEAD
        + SUBACCOUNT
        + "    cloud_foundry: {org: o, space: s}\n    instances:\n"
        + "      a: {api: afc, runtime: other, name: x}\n      b: {api: afc, runtime: cloudfoundry, name: x}\n"
    )

    assert checked(spec=text).warnings == ()


@pytest.mark.parametrize("name", ["apim-1", "apim-02", "apim-2x", "other-2"])
def test_only_names_of_later_generations_look_like_one(name: str) -> None:
    text = (
        HEAD
        + SUBACCOUNT
        + f"    instances: {{apim: {{api: afc, runtime: other}}, {name}: {{api: afc, runtime: other}}}}\n"
    )

    assert checked(spec=text).warnings == ()


def test_regions_are_compared_without_their_extension() -> None:
    text = HEAD + SUBACCOUNT.replace("eu10", "eu10-004") + "    instances: {i: {api: afc, runtime: other}}\n"

    assert warnings(text) == []


@pytest.mark.parametrize("where", ["instance", "key"])
def test_no_value_of_a_secret_is_shown(where: str) -> None:
    secret = "Zk3vR8sQ1pXy7LmN4cTb9WdF2hJg6KaE"
    below = (
        f"{{api: {secret}, runtime: {secret}, keep_old_for: {secret}, ensure: {secret}, parameters: {{role: {secret}}}}}"
        if where == "instance"
        else f"{{api: api-management, runtime: other, keys: {{k: {{ensure: {secret}, {secret}: 1, "
        f"parameters: {{xsuaa: {{credential-type: {secret}}}}}}}}}}}"
    )
    text = (
        f"version: 1\nowner: x\nname: {secret}\naccess: {{cloud_foundry: {{password: {secret}}}}}\n"
        + SUBACCOUNT.replace("eu10", secret)
        + f"    use: [{secret}]\n    cloud_foundry: {{api: {secret}}}\n    instances: {{i: {below}}}\n"
    )
    with pytest.raises(SpecError) as caught:
        checked(spec=text)

    assert secret not in problems.text(caught.value.problems)


def test_a_thousand_instances_take_well_under_a_second() -> None:
    lines = [HEAD, "defaults: {runtime: other}\nsubaccounts:\n"]
    for outer in range(50):
        lines.append(
            f"  s{outer}x:\n    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f{outer:04x}\n    region: eu10\n    instances:\n"
        )
        lines += [
            f"      i{inner}x: {{api: api-management, parameters: {{role: APIPortal.Guest}}, keys: {{a: {{}}, b: {{}}}}}}\n"
            for inner in range(20)
        ]
    Path("spec.yaml").write_text("".join(lines), encoding="utf-8")
    documents = load.documents(["spec.yaml"])
    validate.check(documents[:0], KINDS, CATALOGUE)
    started = time.process_time()
    validate.check(documents, KINDS, CATALOGUE)

    assert time.process_time() - started < 1


# --- references, suspicion, problems as text ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found", "bad"),
    [
        ("plain", False, None),
        ("${env:A}", True, None),
        ("a-${env:A}-${file:b/c}", True, None),
        ("$${env:A}", False, None),
        ("$$${env:A}", False, None),
        ("${A}", False, "${A}"),
        ("${env:A-B}", False, "${env:A-B}"),
        ("${env:}", False, "${env:}"),
        ("${env:A", False, "${env:A"),
        ("$${ok} ${", False, "${"),
    ],
)
def test_references(text: str, found: bool, bad: str | None) -> None:
    assert (references.found(text), references.malformed(text)) == (found, bad)


@given(st.text())
def test_no_text_upsets_the_reading_of_references(text: str) -> None:
    references.found(text)
    references.malformed(text)
    assert len(references.unescaped(text)) <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10",
        "sb-11111111-2222!b333|afc-api!b44",
        "https://acme.authentication.eu10.hana.ondemand.com/oauth/token",
        "apimanagement-apiportal-apiportal-apiaccess",
        "a perfectly ordinary description with 3 Words",
    ],
)
def test_ordinary_texts_are_not_suspected(text: str) -> None:
    assert not suspicion.by_text(text)


def test_problems_as_text() -> None:
    one = Problem("a/b", "first\nline", Source("x.yaml", 2, 3), hint="do this")
    two = Problem("a/c", "second", Source("x.yaml", 1, 9), also=(Source("y.yaml"),) * 5)
    three = Problem("a/d", "no place", hint="look\nagain")

    assert problems.text([one, two, three]) == (
        "no place\nlook\nagain  [a/d]\n"
        "\n"
        "x.yaml:1:9\n  second\n  also y.yaml:1:1\n  also y.yaml:1:1\n  also y.yaml:1:1\n  and 2 more places\n  [a/c]\n"
        "\n"
        "x.yaml:2:3\n  first\n  line\n  do this  [a/b]\n"
    )
