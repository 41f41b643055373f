"""Random stories for the laws: a spec that was applied once, what happened since, and the spec of today.

The worlds are small and the names few, so that things meet: the same name in both runtimes, a stranger where a spec
wants something, a failed creation with the parameters of today.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SUBACCOUNTS = {
    "one": {"id": "11111111-1111-4111-8111-111111111111", "org": "org-one"},
    "two": {"id": "22222222-2222-4222-8222-222222222222", "org": "org-two"},
}
SPACES = ["a", "b"]
ROLES = ["APIPortal.Administrator", "APIPortal.Guest", "APIManagement.SelfService.Administrator"]
SECRET_TEXT = "planted$ecret=with+odd|signs&64"


@st.composite
def _what(draw: st.DrawFn) -> dict[str, Any]:
    """Service, plan and parameters of one instance."""
    kind = draw(st.sampled_from(["afc", "apim", "config", "config", "config", "slow"]))
    if kind == "afc":
        return {"api": "afc", "protect": draw(st.booleans())}
    if kind == "apim":
        return {"api": "api-management", "parameters": {"role": draw(st.sampled_from(ROLES))}}
    if kind == "slow":
        return {"service": "sandbox-slow", "plan": "standard"}
    parameters: dict[str, Any] = draw(
        st.sampled_from(
            [{}, {"size": 1}, {"size": 2}, {"size": 1, "color": "red"}, {"password": "${env:PLANTED}"}]
        )
    )
    plan = draw(st.sampled_from(["standard", "standard", "large"]))
    return {"service": "sandbox-config", "plan": plan, "parameters": parameters}


@st.composite
def _keys(draw: st.DrawFn, service: str | None) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(["k", "l"]))):
        key: dict[str, Any] = {}
        if service == "sandbox-config" and draw(st.booleans()):
            key["parameters"] = {"use": draw(st.sampled_from(["read", "write"]))}
        if draw(st.integers(0, 9)) == 0:
            key["ensure"] = "absent"
        if draw(st.integers(0, 5)) == 0:
            key["keep_old_for"] = "0m"
        if draw(st.integers(0, 3)) == 0:
            key["adopt"] = True
        keys[name] = key
    if len(keys) == 1 and draw(st.integers(0, 3)) == 0:
        (name,) = keys
        keys[name]["renamed_from"] = "l" if name == "k" else "k"
    return keys


@st.composite
def _instance(draw: st.DrawFn) -> dict[str, Any]:
    one = draw(_what())
    one["runtime"] = draw(st.sampled_from(["cloudfoundry", "cloudfoundry", "other"]))
    if one["runtime"] == "cloudfoundry":
        one["space"] = draw(st.sampled_from([*SPACES, "a", "a"]))
        if draw(st.booleans()):
            one["tags"] = sorted(draw(st.sets(st.sampled_from(["red", "green"]))))
    rare = draw(st.integers(0, 11))
    if rare == 0:
        one["ensure"] = "absent"
    elif rare == 1:
        one["manage"] = "observe"
    elif rare in {2, 3, 4, 5, 6}:
        one["adopt"] = True
    elif rare == 7:
        one["ignore"] = ["parameters"]
    one["keys"] = draw(_keys(one.get("service")))
    return one


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec as data; JSON is YAML."""
    subaccounts: dict[str, Any] = {}
    for name in draw(st.sampled_from([["one"], ["one"], ["one", "two"]])):
        about = SUBACCOUNTS[name]
        instances = {
            instance: draw(_instance())
            for instance in sorted(draw(st.sets(st.sampled_from(["x", "y"]), min_size=0)))
        }
        if len(instances) == 1 and draw(st.integers(0, 2)) == 0:
            (only,) = instances
            instances[only]["renamed_from"] = "y" if only == "x" else "x"
        subaccount: dict[str, Any] = {
            "id": about["id"],
            "region": "eu10",
            "cloud_foundry": {"org": about["org"], "space": "a"},
            "instances": instances,
        }
        if draw(st.booleans()):
            subaccount["entitlements"] = {
                "APPLICATION_RUNTIME": {
                    "MEMORY": draw(st.sampled_from([1, 2, 4, {"ensure": "absent", "amount": 1}]))
                }
            }
        subaccounts[name] = subaccount
    return {
        "version": 1,
        "owner": "laws",
        "name": "story",
        "access": {
            "central": {"service_key": "${env:A}"},
            "service_manager": {"service_key": "${env:B}"},
            "cloud_foundry": {"username": "u", "password": "${env:C}"},
        },
        "subaccounts": subaccounts,
    }


@st.composite
def strangers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What others made, and what our own runs left half-done, as a world for the sandbox."""
    found = []
    for name in sorted(draw(st.sets(st.sampled_from(["x", "y"]), max_size=2))):
        marks = draw(st.sampled_from(["none", "none", "none", "ours", "ours", "other"]))
        runtime = draw(st.sampled_from(["cloudfoundry", "other"]))
        prefix = "btp.reconcile/" if runtime == "cloudfoundry" else "btp-reconcile/"
        label = {
            "owner": "laws" if marks == "ours" else "others",
            "spec": "story",
            "name": name,
            "generation": "1",
        }
        labels = {} if marks == "none" else {prefix + key: value for key, value in label.items()}
        operation = draw(
            st.sampled_from(
                [
                    {"type": "create", "state": "succeeded"},
                    {"type": "create", "state": "succeeded"},
                    {"type": "create", "state": "failed", "description": "the broker was not well"},
                    {"type": "create", "state": "in progress"},
                    {"type": "create", "state": "in progress"},
                    {"type": "update", "state": "succeeded"},
                ]
            )
        )
        one: dict[str, Any] = {
            "runtime": runtime,
            "name": name,
            "service": "sandbox-config",
            "plan": "standard",
            "parameters": {"size": 1},
            "labels": labels
            if runtime == "cloudfoundry"
            else {key: [value] for key, value in labels.items()},
            "last_operation": operation,
        }
        if runtime == "cloudfoundry":
            one["space"] = "a"
        if operation["state"] == "succeeded" and draw(st.booleans()):
            one["keys"] = [{"name": "k"}]
        found.append(one)
    return found


@dataclass(frozen=True)
class Story:
    """Specs that were applied one after the other, what others did, and what is wanted today."""

    before: list[dict[str, Any]]
    strangers: list[dict[str, Any]]
    days: int
    by_hand: str
    today: dict[str, Any]
    prune: bool

    def __repr__(self) -> str:
        return "Story " + json.dumps(self.__dict__, indent=1)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Most stories are a spec and its edits; some are a spec that comes into a world of others."""
    before: list[dict[str, Any]] = [draw(specs())] if draw(st.integers(0, 3)) else []
    edited: bool = draw(st.booleans())
    if before and edited:
        before.append(_edited(draw, before[-1]))
    later = ["same", "same", "edited"] if len(before) == 2 else ["same", "edited", "edited", "new"]
    today = draw(st.sampled_from(later)) if before else "new"
    if today == "new":
        spec = draw(specs())
    else:
        spec = before[-1] if today == "same" else _edited(draw, before[-1])
    met: bool = not before or draw(st.integers(0, 5)) == 0
    others: list[dict[str, Any]] = draw(strangers()) if met else []
    adopts: bool = draw(st.booleans())
    if adopts:
        _adopting(spec, others)
    days = draw(st.sampled_from([0, 3, 8, 8]))
    by_hand = draw(st.sampled_from(["", "", "delete a key", "retag", "change parameters"]))
    return Story(before, others, days, by_hand, spec, draw(st.booleans()))


def _adopting(spec: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """Let the spec take over what is there."""
    for other in others:
        one = {
            "service": other["service"],
            "plan": other["plan"],
            "runtime": other["runtime"],
            "adopt": True,
            "keys": {},
        }
        if other.get("keys"):
            one["keys"] = {"k": {"adopt": True}}
        if other["runtime"] == "cloudfoundry":
            one["space"] = "a"
        spec["subaccounts"]["one"]["instances"][other["name"]] = one


def _edited(draw: st.DrawFn, spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of before with one instance edited: where most of life happens."""
    today: dict[str, Any] = json.loads(json.dumps(spec))
    for subaccount in today["subaccounts"].values():
        for one in subaccount["instances"].values():
            what = draw(
                st.sampled_from(["", "parameters", "parameters", "runtime", "plan", "keys", "keys", "absent"])
            )
            if what == "parameters" and one.get("api") == "api-management":
                one["parameters"] = {"role": draw(st.sampled_from(ROLES))}
            elif what == "parameters" and one.get("service") == "sandbox-config":
                one["parameters"] = {"size": draw(st.integers(3, 9))}
            elif what == "plan" and one.get("service") == "sandbox-config":
                one["plan"] = draw(st.sampled_from(["standard", "large"]))
            elif what == "runtime":
                _moved(one)
            elif what == "keys":
                for key in one["keys"].values():
                    if one.get("service") == "sandbox-config":
                        key["parameters"] = {"use": draw(st.sampled_from(["read", "write", "both"]))}
            elif what == "absent":
                one["ensure"] = "absent"
            if "protect" in one:
                one["protect"] = False
    return today


def _moved(one: dict[str, Any]) -> None:
    """To the other runtime."""
    if one["runtime"] == "cloudfoundry":
        one["runtime"] = "other"
        one.pop("space", None)
        one.pop("tags", None)
    else:
        one["runtime"] = "cloudfoundry"
        one["space"] = "a"
