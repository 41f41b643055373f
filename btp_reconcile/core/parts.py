"""The plans of all shards → one plan, with what only the whole can decide. JSON in, JSON out."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import quota, shards
from btp_reconcile.core.model import Problem
from btp_reconcile.core.report import FORMAT, VERSION, problem_json, subaccount_of
from btp_reconcile.core.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Named = tuple[str, "Mapping[str, Any]"]
"""(file, a saved plan)."""

_OPTIONS = ("specs", "prune", "target", "allow", "reapply", "sandbox", "at_most", "only_due")
"""What plans of one whole were all made with; only the shard and the moment differ."""


def wrong(plans: Sequence[Named]) -> list[Problem]:
    """Why these are not the parts of one whole, in words; empty: they are. Raises KeyError, TypeError or ValueError
    for a plan that was changed by hand.
    """
    found: list[Problem] = []
    by_shard: dict[Shard, str] = {}
    first_file, first = plans[0]
    for file, data in plans:
        shard = shard_of(data)
        if shard.of != shard_of(first).of:
            said = f"{file} is shard {shard}, and {first_file} is shard {shard_of(first)}"
            found.append(_problem(said, "plan all parts with the same number of shards"))
            continue
        if shard in by_shard:
            found.append(_problem(f"{by_shard[shard]} and {file} are both shard {shard}", "give each once"))
        by_shard.setdefault(shard, file)
        found.extend(_differs(first_file, first, file, data))
    of = shard_of(first).of
    missing = [f"{number}/{of}" for number in range(1, of + 1) if Shard(number, of) not in by_shard]
    if missing:
        said = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        found.append(_problem(f"the plan of shard {said} is missing", "plan that shard, and give all files"))
    return found


def shard_of(data: Mapping[str, Any]) -> Shard:
    """Which part a saved plan is of."""
    return Shard.parse(str(data["partial"]["shard"]))


def _differs(
    first_file: str, first: Mapping[str, Any], file: str, data: Mapping[str, Any]
) -> Iterator[Problem]:
    mine, other = data["partial"], first["partial"]
    if mine["specs"] != other["specs"]:
        yield _problem(f"{file} and {first_file} are of different specs", "plan all shards of the same specs")
    if mine["program"] != other["program"]:
        said = f"{file} was made by version {mine['program']}, {first_file} by {other['program']}"
        yield _problem(said, "plan all shards with the same version")
    options = [one for one in _OPTIONS if data["promise"].get(one) != first["promise"].get(one)]
    if options and mine["specs"] == other["specs"]:
        said = f"{file} and {first_file} were made with different options: {', '.join(options)}"
        yield _problem(said, "plan all shards with the same options")


def _problem(message: str, hint: str) -> Problem:
    return Problem("plan/shards", message, hint=hint)


def merged(plans: Sequence[Named]) -> dict[str, Any]:
    """One plan. It says what each shard does, and whether the whole may be applied."""
    parts = [data for _, data in sorted(plans, key=lambda one: shard_of(one[1]))]
    figures = [one["partial"] for one in parts]
    managed, given_up = (sum(int(one[name]) for one in figures) for name in ("managed", "given_up"))
    asked = [shards.ask_of(ask) for one in figures for ask in one["quota"]]
    allow = [str(one) for one in parts[0]["promise"]["allow"]]
    decided = [*shards.too_many(managed, given_up, allow), *quota.short(asked)]
    digests = {str(shard_of(one)): str(one["digest"]) for one in parts}
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": "plan",
        "digest": hashlib.sha256("\n".join(digests.values()).encode()).hexdigest(),
        "specs": parts[0]["specs"],
        "summary": _summed(one["summary"] for one in parts),
        "subaccounts": dict(sorted(pair for one in parts for pair in one["subaccounts"].items())),
        "changes": sorted((one for part in parts for one in part["changes"]), key=subaccount_of),
        "objections": [
            *_each_once(parts, "objections"),
            *(problem_json(one) for one in decided),
        ],
        "unmanaged": sorted(
            (one for part in parts for one in part["unmanaged"]), key=lambda one: str(one["subaccount"])
        ),
        **{name: [one for part in parts for one in part[name]] for name in _lists(parts)},
        "unseen": _each_once(parts, "unseen"),
        "forecast": _forecast(parts),
        "warnings": _each_once(parts, "warnings"),
        "merged": {
            "of": len(parts),
            "program": figures[0]["program"],
            "specs": figures[0]["specs"],
            "managed": managed,
            "given_up": given_up,
            "quota": [ask for one in figures for ask in one["quota"]],
            "shards": digests,
        },
    }


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in counts:
        found.update(one)
    return dict(found)


_KNOWN = frozenset({"changes", "objections", "unmanaged", "unseen", "warnings", "specs"})


def _lists(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What else a plan lists."""
    return [name for name, value in parts[0].items() if isinstance(value, list) and name not in _KNOWN]


def _each_once(parts: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        found.extend(one for one in part[name] if one not in found)
    return found


def _forecast(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shards run side by side, and no limit that is known is shared by subaccounts of two: the slowest one counts."""
    said = [one["forecast"] for one in parts if one["forecast"]]
    if not said:
        return {}
    slowest = max(said, key=lambda one: float(one["seconds"]))
    return {
        "writes": _summed(one["writes"] for one in said),
        "seconds": slowest["seconds"],
        "because": slowest["because"],
    }
