"""Plan files: a promise, not a program. What is applied is planned anew, and must come out the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile.cli import written
from btp_reconcile.core import report
from btp_reconcile.core.errors import Refused, UsageError
from btp_reconcile.core.model import Address, Problem
from btp_reconcile.core.shards import Shard
from btp_reconcile.core.view import AT_MOST, Policy
from btp_reconcile.edges import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.pipeline import Planned

INDEX = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes in every pod of an Indexed Job, counted from 0 (Kubernetes documentation, "Indexed Job")."""

FAR = 1e11
"""No moment that a plan was made at is further from 1970; neither is infinity, nor what is no number."""


@dataclass(frozen=True)
class Promise:
    """What a plan file holds besides the plan: enough to make the same plan again."""

    specs: tuple[str, ...]
    now: float
    prune: bool
    target: tuple[str, ...]
    allow: tuple[str, ...]
    reapply: tuple[str, ...]
    sandbox: bool
    at_most: int = AT_MOST
    only_due: bool = False
    shard: str = ""
    """Which part of the specs, like `3/16`; empty: all."""
    sandbox_deliver: tuple[str, ...] = ()
    """Sinks that are delivered to even in a rehearsal."""

    @property
    def part(self) -> Shard | None:
        return Shard.parse(self.shard) if self.shard else None

    def policy(self) -> Policy:
        return Policy(
            self.now,
            self.prune,
            addresses(self.target, "--target"),
            frozenset(self.allow),
            frozenset(addresses(self.reapply, "rotate" if self.only_due else "--reapply")),
            self.at_most,
            self.only_due,
        )


def addresses(texts: Sequence[str], option: str) -> tuple[Address, ...]:
    """What an option names. Raises UsageError for what is no address."""
    try:
        return tuple(Address.parse(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def read(specs: Sequence[str]) -> dict[str, Any] | None:
    """The plan file, if that is what was given. Several files, or YAML, are specs."""
    if len(specs) != 1 or not specs[0].endswith(".json"):
        return None
    saved = _read(specs[0])
    if "promise" not in saved:
        if "merged" in saved:
            raise UsageError(
                f"{specs[0]} is the sum of all shards, and not applied itself: "
                f"`reconcile apply SHARD.json --approved {specs[0]}` applies each"
            )
        raise UsageError(f"{specs[0]} is a plan, but not one that was saved to be applied: use plan --out")
    return saved


def merged(specs: Sequence[str]) -> dict[str, Any] | None:
    """The sum of all shards, if that is what was given: it can be shown."""
    if len(specs) != 1 or not is_one(specs[0]):
        return None
    saved = _read(specs[0])
    return saved if "merged" in saved else None


def _read(file: str) -> dict[str, Any]:
    """A file that this program wrote, whole. Raises UsageError."""
    try:
        saved = json.loads(files.whole(file))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):  # what is not UTF-8 too
        saved = None
    if not isinstance(saved, dict) or saved.get("format") != report.FORMAT:
        raise UsageError(f"{file} is no plan file: `reconcile plan --out {file}` writes one")
    if saved.get("version") != report.VERSION:
        raise UsageError(f"{file} was written by another version of reconcile: plan again")
    if "promise" not in saved and "merged" not in saved:
        return saved
    if saved.pop("checksum", None) != _checksum(saved):
        raise UsageError(f"{file} was changed after it was written: plan again")
    return saved


def is_one(file: str) -> bool:
    """Does this file look like a saved plan?"""
    try:
        path = Path(file)
        if not path.is_file():  # to look into a pipe would take something out of it, or never end
            return False
        with path.open(encoding="utf-8") as stream:
            return f'"format": "{report.FORMAT}"' in stream.read(200)
    except (OSError, ValueError):
        return False


def _checksum(saved: Mapping[str, Any]) -> str:
    """Shows that a file was cut off or edited. (Against forgery stands that the plan is made again.)"""
    text = json.dumps(saved, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def promise(saved: Mapping[str, Any], file: str) -> Promise:
    """How the plan of a file was made."""
    said = saved["promise"]
    texts = ("specs", "target", "allow", "reapply")
    if (
        not isinstance(said, dict)
        or any(not isinstance(said.get(one), list) for one in texts)
        or any(not isinstance(item, str) for one in texts for item in said[one])
        or isinstance(said.get("now"), bool)
        or not isinstance(said.get("now"), (int, float))
        or not abs(said["now"]) < FAR
        or any(not isinstance(said.get(one), bool) for one in ("prune", "sandbox"))
        or type(said.get("at_most")) is not int
        or not _is_shard(said.get("shard", ""))
        or not _are_sinks(said.get("sandbox_deliver", []))
        or not isinstance(saved.get("digest"), str)
        or not isinstance(saved.get("changes"), list)
    ):
        raise UsageError(f"{file} was changed after it was written: plan again")
    return Promise(
        tuple(said["specs"]),
        float(said["now"]),
        said["prune"],
        tuple(said["target"]),
        tuple(said["allow"]),
        tuple(said["reapply"]),
        said["sandbox"],
        said["at_most"],
        shard=said.get("shard", ""),
        sandbox_deliver=tuple(said.get("sandbox_deliver", ())),
    )


def shard_of(text: str | None, environment: Mapping[str, str]) -> str:
    """What `--shard` means, like `3/16`; empty where it was not said. Raises UsageError."""
    if text is None:
        return ""
    try:
        return str(Shard.parse(text, environment.get(INDEX)))
    except ValueError as error:
        raise UsageError(f"--shard: {error}") from None


def _is_shard(text: Any) -> bool:
    try:
        return not text or str(Shard.parse(text)) == text
    except (TypeError, ValueError):
        return False


def _are_sinks(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(one, str) for one in names)


def whole(files: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The saved plans of shards. Raises UsageError for anything else."""
    found = []
    for file in files:
        saved = read([file])
        if saved is None or not isinstance(saved.get("partial"), dict):
            raise UsageError(
                f"{file} is no plan of a shard: `reconcile plan --shard 1/N --out {file}` writes one"
            )
        promise(saved, file)
        found.append((file, saved))
    return found


def approve(file: str, planned: Planned) -> None:
    """Act on a part only if the whole was approved with it. Raises UsageError or Refused."""
    part = planned.prepared.wanted.part
    if part is None:
        raise UsageError("--approved belongs to a shard: add --shard, or give the saved plan of one")
    merged = _read(file).get("merged")
    try:
        digests = merged["shards"] if isinstance(merged, dict) else None
        mine = digests.get(str(part.shard)) if isinstance(digests, dict) else None
    except KeyError:
        digests = mine = None
    if digests is None:
        raise UsageError(
            f"{file} is no approval: `reconcile report merge PLAN.json… --out {file}` writes one"
        )
    if _read(file).get("objections"):
        said = (
            f"{file} is not approved: something stands against the whole, `reconcile show {file}` says what"
        )
        raise Refused([Problem("plan/shards", said, hint="answer it, plan all shards again, and merge them")])
    if mine != planned.plan.digest:
        said = f"shard {part.shard} would do something else now than was approved with {file}"
        hint = "plan all shards again, and have them merged"
        raise Refused([Problem("plan/stale", said, hint=hint)])


def keep(planned: Planned, saved: Mapping[str, Any], file: str) -> None:
    """Act only if the same plan comes out again, and is what the file shows to whoever approves it."""
    made = report.plan_json(planned.plan, planned.prepared.wanted.places)
    now, then = _by_address(made["changes"]), _by_address(saved["changes"])
    decided = {address: _decided(one) for address, one in now.items()}
    try:
        promised = {address: _decided(one) for address, one in then.items()}
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{file} was changed after it was written: plan again") from None
    moved = [one for one in {**now, **then} if decided.get(one) != promised.get(one)]
    if planned.plan.digest == saved["digest"] and not moved:
        if any(saved.get(part) != made[part] for part in ("kind", "summary", "subaccounts")):
            raise UsageError(f"{file} was changed after it was written: plan again")
        return
    differ = [one for one in {**now, **then} if now.get(one) != then.get(one)]
    said = [f"{one} ({_moved(then.get(one), now.get(one))})" for one in moved or differ]
    more = f", and {len(said) - 10} more" if len(said) > 10 else ""
    what = ", ".join(said[:10]) + more or "the place where it is done, or what stands against it"
    message = f"{file} is not what would be done now; different: {what}"
    raise Refused([Problem("plan/stale", message, hint="plan again, and have the new plan approved")])


def _by_address(changes: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    return {str(one.get("address")): one for one in changes if isinstance(one, dict)}


def _decided(change: Mapping[str, Any]) -> Any:
    """What of a change is a decision; its reasons and notes are not."""
    fields = [
        (one["path"], one["before"], one["after"]) for one in change.get("fields", ()) if one["changes"]
    ]
    retired = [one["name"] for one in change.get("retired", ())]
    return change.get("action"), change.get("generation"), "gate" in change, fields, retired


def _moved(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    before = "not there" if then is None else str(then.get("action"))
    after = "not there" if now is None else str(now.get("action"))
    return f"{before}, now {after}" if before != after else f"{after}, but not the same"


def check_name(out: str) -> None:
    """Find out before anything is asked. Only `.json` is known again as a plan; nothing else is overwritten."""
    path = Path(out)
    if path.exists() and not path.is_dir() and not path.is_file():
        return
    if not out.endswith(".json"):
        raise UsageError(f"--out: name it something.json, so that `apply` knows it as a plan; {out!r} is not")
    written.check(out, "--out")


def write(out: str, shown: Mapping[str, Any], promise: Promise) -> None:
    """Save a plan so that it can be applied as it was shown."""
    save(out, {**shown, "promise": asdict(promise)})


def save(out: str, saved: Mapping[str, Any]) -> None:
    """Write a file that shows when it was changed."""
    text = json.dumps({**saved, "checksum": _checksum(saved)}, indent=2) + "\n"
    try:
        written.write(Path(out), text)
    except OSError as error:
        raise OSError(error.errno, f"the plan could not be written: {error.strerror}", out) from None
