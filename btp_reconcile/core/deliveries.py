"""What specs say of deliveries, all together: by which access a sink is opened, and which two go to one place."""

from __future__ import annotations

import json
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.merge import WRONG
from btp_reconcile.core.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from btp_reconcile.core.lifetimes import Objections
    from btp_reconcile.core.model import Wanted
    from btp_reconcile.core.shape import Found
    from btp_reconcile.core.sink import Sink
    from btp_reconcile.core.whole import Spec


def opened(specs: Sequence[Spec]) -> dict[tuple[str, str], tuple[Any, Spec]]:
    """(subaccount, sink) → the access as it is written, and the spec that says so. As in resolving: the nearer one, and
    of several specs the last.
    """
    found: dict[tuple[str, str], tuple[Any, Spec]] = {}
    for spec in specs:
        everywhere = spec.data.get("access") or {}
        for name, data in (spec.data.get("subaccounts") or {}).items():
            near = data.get("access") or {}
            for sink in sorted({str(said.get("sink")) for _, said in _written(name, data)}):
                said = near.get(sink) if near.get(sink) is not None else everywhere.get(sink)
                if said is not None:
                    found[name, sink] = (said, spec)
    return found


def located(wanted: Wanted, specs: Sequence[Spec], sinks: Sequence[Sink]) -> Wanted:
    """The same, with every path in the access of a sink starting at the folder of its spec."""
    known = {sink.name: sink for sink in sinks}
    access = {name: dict(services) for name, services in wanted.access.items()}
    for (subaccount, sink), (_, spec) in opened(specs).items():
        said = access.get(subaccount, {}).get(sink)
        if said and sink in known:
            access[subaccount][sink] = known[sink].located(said, _folder(spec))
    return replace(wanted, access=access)


def check(specs: Sequence[Spec], sinks: Sequence[Sink], objections: Objections, found: Found) -> None:
    """Say which deliveries go to one place, as far as that is known without values from outside."""
    known = {sink.name: sink for sink in sinks}
    access = opened(specs)
    first: dict[tuple[str, ...], tuple[Address, Spec]] = {}
    for spec in specs:
        for name, data in (spec.data.get("subaccounts") or {}).items():
            for address, said in _written(name, data, present=True):
                sink, block = str(said.get("sink")), said.get("block")
                if sink not in known or not isinstance(block, dict) or "${" in repr(block):
                    continue
                if not known[
                    sink
                ].can_look:  # one program may serve many keys: it is told which one it is given
                    continue
                if WRONG in block.values() or any(True for _ in objections(sink, block)):
                    continue
                where = known[sink].place(block)
                begun = posixpath.normpath(posixpath.join(_folder(spec), where)) if sink == "file" else where
                place = (sink, begun, *_by(access.get((name, sink)), known[sink], name))
                before, other = first.setdefault(place, (address, spec))
                if before != address:
                    found.say(
                        "conflict/claimed-twice",
                        f"{before} and {address} both go to {sink} {where}",
                        spec.source(*_path(address)),
                        "give one of them another place",
                        address,
                        (other.source(*_path(before)),),
                    )


def _by(said: tuple[Any, Spec] | None, sink: Sink, subaccount: str) -> tuple[str, ...]:
    """What tells two places of the same words apart: another access opens another place."""
    if said is None:
        return ()
    access, spec = said
    if not isinstance(access, dict) or not access:
        return (subaccount,)
    folder = _folder(spec)
    text = json.dumps(sink.located(access, folder), sort_keys=True, default=repr)
    # A file of the same name is another one beside another spec.
    return (text, folder if "${file:" in text else "")


def _written(
    subaccount: str, data: Mapping[str, Any], *, present: bool = False
) -> Iterator[tuple[Address, Mapping[str, Any]]]:
    """The deliveries of a subaccount; with `present` only those of keys that shall be there."""
    for instance, want in (data.get("instances") or {}).items():
        for name, key in (want.get("keys") or {}).items():
            if present and "absent" in (want.get("ensure"), key.get("ensure")):
                continue
            for where, said in (key.get("deliver") or {}).items():
                yield Address("delivery", (subaccount, instance, name, where)), said


def _path(address: Address) -> tuple[str, ...]:
    subaccount, instance, key, name = address.path
    return "subaccounts", subaccount, "instances", instance, "keys", key, "deliver", name


def _folder(spec: Spec) -> str:
    return spec.file.rpartition("/")[0]
