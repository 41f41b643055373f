"""What a plan costs: pages, not resources. The formula is asserted scenario by scenario.

Per Cloud Foundry endpoint: root, token, spaces, instances by at most 200 orgs, keys; each in pages of 5,000. Entitlements:
token, accounts, assignments; plus one per directory that manages entitlements. Service Manager: token and pages.

Where an instance, or an earlier generation, is not in the runtime that the spec says, the other one is looked at, too,
if credentials for it are there: as above, without what stands in instances that are not there.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.worlds import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from btp_reconcile.pipeline import Planned
    from btp_reconcile.sandbox import Request

LONGEST = 8000
"""Bytes of a request line."""

CENTRAL = ["sign in", "accounts", "assignments"]
FOUNDRY = ["root", "sign in", "spaces", "instances", "keys"]
MANAGER = ["sign in", "instances", "bindings"]
ELSEWHERE = {"cloudfoundry": ["sign in", "instances"], "other": ["root", "sign in", "spaces", "instances"]}
"""What the other runtime is asked for an instance that is not in this one, and nothing of it is there either."""

ENDS = {
    "/oauth/token": "sign in",
    "/": "root",
    "/v3/spaces": "spaces",
    "/v3/service_instances": "instances",
    "/v3/service_credential_bindings": "keys",
    "/v3/service_plans": "plans",
    "/accounts/v1/subaccounts": "accounts",
    "/accounts/v1/globalAccount": "directories",
    "/entitlements/v1/assignments": "assignments",
    "/v1/service_instances": "instances",
    "/v1/service_bindings": "bindings",
    "/v1/service_offerings": "offerings",
    "/v1/service_plans": "plans",
}
"""What each request is called here."""


@dataclass(frozen=True)
class Place:
    """One subaccount: how many instances of ours are there, with how many keys each, and how many more are wanted."""

    instances: int = 1
    keys: int = 1
    runtime: str = "cloudfoundry"
    landscape: str = "eu10"
    directory: str | None = None
    missing: int = 0


@dataclass
class Landscape:
    """Subaccounts that exist, and the spec that wants exactly what is there."""

    folder: Path
    places: dict[str, Place]
    directories: dict[str, Any] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)
    """Length of every request line."""

    def __post_init__(self) -> None:
        self.bench = Bench(self.folder)
        self.bench.sandbox.seed({"directories": self.directories, "subaccounts": self._world()})
        with self.bench.sandbox.hold() as world:
            for row in world.table("sm.instances").values():
                # As our own creation writes it: with this the names of service and plan need no look-up.
                row["labels"]["btp-reconcile/plan"] = [f"{row['offering']}/{row['plan']}/{row['plan_id']}"]
        self.bench.sandbox.on_request = self._measure
        self.spec = self.bench.write(json.dumps(self._spec()))

    def _measure(self, _: int, request: Request) -> None:
        self.lines.append(len(f"{request.method} {request.raw_target} HTTP/1.1".encode()))

    def _world(self) -> dict[str, Any]:
        return {
            name: {
                "id": guid(number),
                "region": "eu10",
                "directory": place.directory,
                "cloud_foundry": {"landscape": place.landscape, "org": f"org-{name}", "spaces": ["apis"]},
                "instances": [seeded(place, index) for index in range(place.instances)],
            }
            for number, (name, place) in enumerate(self.places.items())
        }

    def _spec(self) -> dict[str, Any]:
        return {
            "version": 1,
            "owner": "finance",
            "name": "spec",
            "access": {"central": {"service_key": "${env:A}"}},
            "subaccounts": {
                name: {
                    "id": guid(number),
                    "region": "eu10",
                    "cloud_foundry": {
                        "landscape": place.landscape,
                        "org": f"org-{name}",
                        "space": "apis",
                    },
                    "instances": {
                        f"i{index}": {
                            "service": "sandbox-config",
                            "plan": "standard",
                            "runtime": place.runtime,
                            "keys": {f"i{index}k{key}": {} for key in range(place.keys)},
                        }
                        for index in range(place.instances + place.missing)
                    },
                }
                for number, (name, place) in enumerate(self.places.items())
            },
        }

    def plan(self) -> tuple[Planned, list[str]]:
        """A plan, and what it asked for: only reads, nothing secret, no line too long."""
        self.bench.sandbox.requests.clear()
        self.lines.clear()

        planned = self.bench.plan(self.spec)

        asked = self.bench.sandbox.requests
        signing_in = {(method, path) for method, _, path, _ in asked if method != "GET"}
        assert signing_in == {("POST", "/oauth/token")}
        assert not [
            path for _, _, path, _ in asked if path.endswith(("/details", "/credentials", "/parameters"))
        ]
        assert max(self.lines) <= LONGEST
        return planned, [ENDS[path] for _, _, path, _ in asked]


def guid(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def seeded(place: Place, index: int) -> dict[str, Any]:
    about: dict[str, Any] = {"space": "apis"} if place.runtime == "cloudfoundry" else {}
    return {
        "runtime": place.runtime,
        "name": f"i{index}",
        "service": "sandbox-config",
        "plan": "standard",
        "labels": marked(place, f"i{index}"),
        "keys": [
            {"name": f"i{index}k{key}", "labels": marked(place, f"i{index}k{key}")}
            for key in range(place.keys)
        ],
        **about,
    }


def marked(place: Place, name: str) -> dict[str, Any]:
    mark = {"owner": "finance", "spec": "spec", "name": name, "generation": "1"}
    if place.runtime == "cloudfoundry":
        return {f"btp.reconcile/{key}": value for key, value in mark.items()}
    return {f"btp-reconcile/{key}": [value] for key, value in mark.items()}


SCENARIOS: dict[str, tuple[dict[str, Place], dict[str, Any], list[str]]] = {
    "one instance": ({"a": Place()}, {}, CENTRAL + FOUNDRY),
    "one space, 1,000 instances, 2,000 keys": ({"a": Place(1000, 2)}, {}, CENTRAL + FOUNDRY),
    "three subaccounts on one endpoint": (
        {"a": Place(3, 2), "b": Place(2, 1), "c": Place(4, 0)},
        {},
        CENTRAL + FOUNDRY,
    ),
    "two endpoints": (
        {"a": Place(2, 2), "b": Place(2, 2, landscape="eu10-004")},
        {},
        CENTRAL + FOUNDRY + FOUNDRY,
    ),
    "450 subaccounts on one endpoint": (
        {f"s{number}": Place() for number in range(450)},
        {},
        [*CENTRAL, "root", "sign in", "spaces", *(["instances"] * 3), "keys"],
    ),
    "5,400 keys": ({"a": Place(6, 900)}, {}, [*CENTRAL, *FOUNDRY, "keys"]),
    "5,100 instances": ({"a": Place(5100, 0)}, {}, [*CENTRAL, *FOUNDRY, "instances"]),
    "Service Manager": ({"a": Place(2, 2, "other")}, {}, CENTRAL + MANAGER),
    "Service Manager, 450 instances, 900 keys": (
        {"a": Place(450, 2, "other")},
        {},
        [*CENTRAL, "sign in", *(["instances"] * 3), *(["bindings"] * 5)],
    ),
    "two subaccounts in Service Manager": (
        {"a": Place(2, 2, "other"), "b": Place(2, 2, "other")},
        {},
        CENTRAL + MANAGER + MANAGER,
    ),
    "both runtimes": ({"a": Place(2, 2, "other"), "b": Place(2, 2)}, {}, CENTRAL + MANAGER + FOUNDRY),
    "a directory that manages entitlements": (
        {"a": Place(directory="finance")},
        {"finance": {"features": ["DEFAULT", "ENTITLEMENTS"]}},
        CENTRAL + FOUNDRY,
    ),
    "one directory of two manages entitlements": (
        {"a": Place(directory="finance"), "b": Place(directory="sales"), "c": Place()},
        {"finance": {"features": ["DEFAULT", "ENTITLEMENTS"]}, "sales": {"features": ["DEFAULT"]}},
        [*CENTRAL, "directories", "assignments", *FOUNDRY],
    ),
    "nested directories": (
        {"a": Place(directory="closing"), "b": Place(directory="closing"), "c": Place()},
        {
            "finance": {"features": ["DEFAULT", "ENTITLEMENTS"]},
            "closing": {"features": ["DEFAULT"], "parent": "finance"},
        },
        [*CENTRAL, "directories", "assignments", *FOUNDRY],
    ),
    "something to create": (
        {"a": Place(20, 2, missing=30)},
        {},
        [*CENTRAL, *FOUNDRY, "plans", *ELSEWHERE["cloudfoundry"]],
    ),
    "something to create in three subaccounts": (
        {name: Place(2, 2, missing=3) for name in "abc"},
        {},
        [*CENTRAL, *FOUNDRY, *["plans"] * 3, *ELSEWHERE["cloudfoundry"] * 3],
    ),
    "something to create in Service Manager": (
        {"a": Place(2, 2, "other", missing=30)},
        {},
        # What is missing is looked for by name, once.
        [*CENTRAL, *MANAGER, "instances", "offerings", "plans", *ELSEWHERE["other"]],
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_plan_costs_what_the_formula_says(name: str, tmp_path: Path) -> None:
    places, directories, expected = SCENARIOS[name]
    landscape = Landscape(tmp_path, places, directories)

    planned, asked = landscape.plan()

    assert (Counter(asked), planned.plan.objections) == (Counter(expected), ())
    if not any(place.missing for place in places.values()):
        assert planned.plan.empty


def test_the_requests_of_one_space_come_in_this_order(tmp_path: Path) -> None:
    """Eight, whatever is in it; each service is asked in an order of its own."""
    landscape = Landscape(tmp_path, {"a": Place(10, 2)})

    _, asked = landscape.plan()

    assert asked == [*CENTRAL, *FOUNDRY]


@pytest.mark.parametrize("instances", [1, 40, 400])
def test_more_things_of_the_same_kind_cost_no_more_requests(instances: int, tmp_path: Path) -> None:
    _, asked = Landscape(tmp_path, {"a": Place(instances, 2, missing=instances)}).plan()

    assert len(asked) == 9 + len(ELSEWHERE["cloudfoundry"])


@pytest.mark.parametrize("orgs", [1, 190, 200, 201, 401])
def test_instances_are_asked_for_by_as_many_orgs_as_fit_into_a_line(orgs: int, tmp_path: Path) -> None:
    landscape = Landscape(tmp_path, {f"s{number}": Place(1, 0) for number in range(orgs)})

    _, asked = landscape.plan()

    needed = asked.count("instances")
    assert math.ceil(orgs / 200) <= needed <= math.ceil(orgs / 185)


def test_names_as_long_as_they_may_be_are_asked_for_in_lines_that_fit(tmp_path: Path) -> None:
    """Spaces of 200 long names, and plans that are looked for by name."""
    bench = Bench(tmp_path)
    lines: list[int] = []
    bench.sandbox.on_request = lambda _, request: lines.append(len(request.raw_target) + 16)
    spaces = [f"{number:03d}-{'ü' * 50}" for number in range(200)]
    instances = {
        f"i{number}": {"service": "sandbox-config", "plan": "standard", "space": space}
        for number, space in enumerate(spaces)
    }
    spec = {
        "version": 1,
        "owner": "finance",
        "access": {"central": {"service_key": "${env:A}"}},
        "defaults": {"runtime": "cloudfoundry"},
        "subaccounts": {
            "a": {
                "id": guid(1),
                "region": "eu10",
                "cloud_foundry": {"org": "o", "space": spaces[0]},
                "instances": instances,
            }
        },
    }

    planned = bench.plan(bench.write(json.dumps(spec)))

    assert planned.plan.objections == ()
    assert max(lines) <= LONGEST


def test_a_drift_check_of_what_was_changed_by_hand_costs_the_same(tmp_path: Path) -> None:
    landscape = Landscape(tmp_path, {"a": Place(10, 2)})
    with landscape.bench.sandbox.hold() as world:
        for row in world.table("cf.service_instances").values():
            row["tags"] = ["by-hand"]

    planned, asked = landscape.plan()

    assert len([change for change in planned.plan.changes if change.drifted]) == 10
    assert asked == [*CENTRAL, *FOUNDRY]


def test_without_central_access_nothing_is_asked_of_the_entitlements(tmp_path: Path) -> None:
    class Poor(Bench):
        def access(self, wanted: Any) -> Any:
            full = super().access(wanted)
            return {
                name: {key: value for key, value in one.items() if key != "central"}
                for name, one in full.items()
            }

    landscape = Landscape(tmp_path, {"a": Place(10, 2)})
    landscape.bench = Poor(tmp_path, sandbox=landscape.bench.sandbox)

    _, asked = landscape.plan()

    assert asked == FOUNDRY


@pytest.mark.parametrize(("runtime", "expected"), [("cloudfoundry", FOUNDRY), ("other", MANAGER)])
def test_what_is_noted_on_keys_is_known_without_asking_for_it(
    runtime: str, expected: list[str], tmp_path: Path
) -> None:
    """100 keys that are rotated and delivered: ends, proofs, receipts and days come with the keys themselves."""
    bench = Bench(tmp_path)
    keys = {
        f"k{number}": {
            "rotate_after": "20d",
            "keep_old_for": "5d",
            "deliver": {"main": {"file": {"path": f"{tmp_path}/k{number}.json"}}},
        }
        for number in range(100)
    }
    instance = {"service": "sandbox-config", "plan": "standard", "runtime": runtime, "keys": keys}
    place = {"id": guid(1), "region": "eu10", "cloud_foundry": {"org": "o", "space": "apis"}}
    spec = {
        "version": 1,
        "owner": "finance",
        "access": {"central": {"service_key": "${env:A}"}},
        "subaccounts": {"a": {**place, "instances": {"i": instance}}},
    }
    path = bench.write(json.dumps(spec))
    bench.apply(path)
    bench.advance(20 * 86400)
    bench.apply(path, at_most=30)
    bench.requests()

    planned = bench.plan(path)

    facts = planned.facts.of("key")
    receipts = [one for one in facts if any(name.startswith("to-") for name in one.record)]
    dated = [one for one in facts if "retire-after" in one.record]
    assert (len(facts), len(receipts), len(dated)) == (130, 130, 30)
    assert Counter(ENDS[asked] for _, _, asked in bench.requests()) == Counter(CENTRAL + expected)
