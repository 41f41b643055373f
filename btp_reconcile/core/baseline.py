"""Drift that is known and accepted, so that only new drift fails a job.

A baseline is a file beside the specs. It names, per address, what differed when it was written, as a digest: when
something else differs there later, that is new drift. Conflicts, and what could not be seen, are never accepted.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORMAT = "btp-reconcile/baseline"
VERSION = 1
_DIGITS = 32


def baseline_json(drift: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, or waits for a person, in the JSON of a drift check: the accepted things, by address."""
    found = [
        {
            "address": one["address"],
            "digest": digest(one),
            "sync": one["sync"],
            "about": one["gate"] if one.get("gate") else one["reason"],
        }
        for one in drift["changes"]
        if _acceptable(one)
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "accepted": sorted(found, key=lambda one: str(one["address"])),
    }


def _acceptable(change: Mapping[str, Any]) -> bool:
    return bool((change["drifted"] or change.get("gate")) and change.get("sync") != "conflicting")


def digest(change: Mapping[str, Any]) -> str:
    """What a change differs in: its action, and the fields that differ, with their values. No wording, no times."""
    body = [
        change["address"],
        change["action"],
        bool(change.get("gate")),
        [[one["path"], one["before"], one["after"]] for one in change.get("fields", ()) if one["changes"]],
        [one["name"] for one in change.get("retired", ())],
    ]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def problem(data: Any) -> str:
    """Why this is no baseline, in words; empty: it is one."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return "is no baseline: `reconcile drift --write-baseline FILE` writes one"
    if data.get("version") != VERSION:
        return "was written by another version of reconcile: write it again"
    accepted = data.get("accepted")
    if not isinstance(accepted, list) or not all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("address", "digest", "about"))
        for one in accepted
    ):
        return "was changed after it was written: write it again"
    try:
        for one in accepted:
            Address.parse(one["address"])
    except ValueError as error:
        return f"names what is no address: {error}"
    return ""


def applied(
    drift: Mapping[str, Any], baseline: Mapping[str, Any], targets: Sequence[Address] = ()
) -> dict[str, Any]:
    """The JSON of a drift check in which accepted changes say so, and what is in the baseline for nothing."""
    known = {one["address"]: one for one in baseline["accepted"]}
    met: set[str] = set()
    changes = []
    for one in drift["changes"]:
        entry = known.get(one["address"])
        same = entry is not None and _acceptable(one) and entry["digest"] == digest(one)
        if same:
            met.add(one["address"])
        changes.append({**one, "accepted": True} if same else one)
    gone = [
        {"address": one["address"], "about": one["about"]}
        for one in baseline["accepted"]
        if one["address"] not in met and _looked_at(one["address"], drift, targets)
    ]
    return {**drift, "changes": changes, "baseline": {"accepted": len(met), "gone": gone}}


def _looked_at(text: str, drift: Mapping[str, Any], targets: Sequence[Address]) -> bool:
    """Can it be said that this is not so any more? Not of what nobody looked at."""
    address = Address.parse(text)
    if targets and not any(address.within(one) for one in targets):
        return False
    if drift.get("partial") and address.subaccount not in drift["subaccounts"]:
        return False
    if any(one["address"] == text for one in drift["changes"]):
        return True
    hidden = {
        where["subaccount"]
        for one in drift["unseen"]
        if one["code"] == "platform/unseen"
        for where in one.get("where", ())
    }
    return address.subaccount not in hidden and text not in _addresses(drift["unplanned"])


def _addresses(things: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(one["address"]) for one in things}


def accepted(drift: Mapping[str, Any]) -> frozenset[str]:
    """The addresses whose drift is known."""
    return frozenset(one["address"] for one in drift["changes"] if one.get("accepted"))
