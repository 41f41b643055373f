"""What views of a drift check have in common: one row per thing that it speaks of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.report import printable, value_text
from btp_reconcile.views.addressed import Addressed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DIGITS = 32


@dataclass(frozen=True)
class Row(Addressed):
    """One address: a change, a wanted thing that could not be planned, or an unmanaged one."""

    sync: str
    health: str
    action: str
    """Empty for what has no change."""
    reason: str
    source: str
    """`file:line:column`; empty when no spec names it."""
    drifted: bool
    accepted: bool
    gate: str
    fields: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    id: str
    """Tells apart what has the same address: the platform's id of an unmanaged thing."""
    change: Mapping[str, Any] | None = None
    """What it was read from, if that was a change."""

    @property
    def differing(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(one for one in self.fields if one["changes"])


def rows(data: Mapping[str, Any]) -> Iterator[Row]:
    """Every address of a drift check, the changes first, in the order of its JSON."""
    for one in data["changes"]:
        yield Row(
            one["address"],
            one["sync"],
            one["health"],
            one["action"],
            one["reason"],
            one.get("source", ""),
            one["drifted"],
            bool(one.get("accepted")),
            one.get("gate", ""),
            tuple(one.get("fields", ())),
            tuple(one.get("notes", ())),
            "",
            one,
        )
    for one in data["unplanned"]:
        yield _bare(one, one["reason"], one.get("source", ""), "")
    for one in data["unmanaged"]:
        mark = one.get("mark") or {}
        made = f"made by spec {mark['spec']} as {mark['name']}, " if mark else ""
        reason = f"{one['name']}: {made}no spec names it any more"
        yield _bare(one, reason, "", one["id"])


def _bare(one: Mapping[str, Any], reason: str, source: str, id_: str) -> Row:
    return Row(
        one["address"],
        one["sync"],
        one["health"],
        "",
        reason,
        source,
        drifted=False,
        accepted=False,
        gate="",
        fields=(),
        notes=(),
        id=id_,
    )


def field_line(one: Mapping[str, Any]) -> str:
    """A field in one line: what there is, what the spec says, and how far that is known."""
    known = "" if one["seen"] == "observed" else f" ({one['seen']})"
    return printable(f"{one['path']}: {value_text(one['before'])} → {value_text(one['after'])}{known}")


def digest(*parts: str) -> str:
    """Stands for these texts, the same in every run."""
    text = "\0".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def unseen(data: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(subaccount, service, problem) of what should have been looked at, and could not be."""
    for problem in data["unseen"]:
        if problem["code"] != "platform/unseen":
            continue
        for where in problem.get("where", ()):
            yield where["subaccount"], where["service"], problem


def objections_by_address(data: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Address → what stands against it."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in data["objections"]:
        found.setdefault(one.get("address", ""), []).append(one)
    return found
