"""Plan files: a promise, not a program. What is applied is planned anew, and must come out the same."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import report
from btp_reconcile.core.errors import Refused, UsageError
from btp_reconcile.core.model import Address, Problem
from btp_reconcile.core.view import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.pipeline import Planned

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

    def policy(self) -> Policy:
        return Policy(
            self.now,
            self.prune,
            addresses(self.target, "--target"),
            frozenset(self.allow),
            frozenset(addresses(self.reapply, "--reapply")),
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
    file = specs[0]
    try:
        with Path(file).open(encoding="utf-8") as stream:
            saved = json.load(stream)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        saved = None
    if not isinstance(saved, dict) or saved.get("format") != report.FORMAT:
        raise UsageError(f"{file} is no plan file: `reconcile plan --out {file}` writes one")
    if saved.get("version") != report.VERSION:
        raise UsageError(f"{file} was written by another version of reconcile: plan again")
    if "promise" not in saved:
        raise UsageError(f"{file} is a plan, but not one that was saved to be applied: use plan --out")
    if saved.pop("checksum", None) != _checksum(saved):
        raise UsageError(f"{file} was changed after it was written: plan again")
    return saved


def is_one(file: str) -> bool:
    """Does this file look like a saved plan?"""
    try:
        with Path(file).open(encoding="utf-8") as stream:
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
    )


def keep(planned: Planned, saved: Mapping[str, Any], file: str) -> None:
    """Act only if the same plan comes out again, and is what the file shows to whoever approves it."""
    made = report.plan_json(planned.plan, planned.prepared.wanted.subaccounts)
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
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"--out: {out} is a folder" if path.is_dir() else f"--out: there is no folder {path.parent}"
        )


def write(out: str, shown: Mapping[str, Any], promise: Promise) -> None:
    """Save a plan so that it can be applied as it was shown."""
    saved = {**shown, "promise": asdict(promise)}
    text = json.dumps({**saved, "checksum": _checksum(saved)}, indent=2) + "\n"
    try:
        _write_private(Path(out), text)
    except OSError as error:
        raise OSError(error.errno, f"the plan could not be written: {error.strerror}", out) from None


def _write_private(path: Path, text: str) -> None:
    """A whole file or none, readable by its owner only. A pipe or a device is written to, never replaced."""
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    real = path.resolve()  # a link stays a link
    descriptor, temporary = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(real)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
