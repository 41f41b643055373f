"""What a spec says about the life of a key: how it signs in, when it is made anew, and to whom it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from btp_reconcile.core import merge
from btp_reconcile.core.merge import WRONG
from btp_reconcile.core.times import SECONDS, span

if TYPE_CHECKING:
    from btp_reconcile.core.catalogue import Api
    from btp_reconcile.core.merge import Node
    from btp_reconcile.core.model import Source

DAY, WEEK = SECONDS["d"], SECONDS["w"]
SHORTEST = 3600
"""Seconds: a key that is made anew more often than every hour is a mistake."""
OWN_WORDS = ("shape", "adopt")
"""The words of a delivery beside its sink."""


Objections = Callable[[str, Mapping[str, Any]], Iterable[str]]
"""(sink, what it is told) → what is wrong with that."""


_WORDS = frozenset({"credential", "rotate_after", "reissue_stale", "verify", "deliver"})
"""The words of a key that are about its life."""


class Written(Protocol):
    """A key as it was written, merged."""

    node: Node

    def value(self, name: str, default: Any = None) -> Any:
        """A field's plain value; None when it is not given or not usable."""

    def say(self, code: str, message: str, node: Node | Source, hint: str, *also: Source) -> None:
        """Note what is wrong."""


def seconds(duration: str | None) -> int:
    """A duration like 7d in seconds; a week when there is none."""
    return int(duration[:-1]) * SECONDS[duration[-1]] if duration else WEEK


def credential(key: Written, api: Api | None) -> dict[str, Any]:
    """How the key's holder signs in: `{}` when nothing is said, else `type`, and for x509 `validity` in seconds."""
    said = key.value("credential")
    node = key.node.get("credential")
    if not isinstance(said, dict) or node is None or WRONG in said.values():
        return {}
    kind = said.get("type")
    if kind is None:
        key.say(
            "spec/missing",
            "credential has no 'type'",
            node,
            "add `type: x509` (a client certificate) or `type: secret` (a secret of the key's own)",
        )
        return {}
    if kind == "secret" and (extra := [one for one in ("validity", "key_length") if one in said]):
        key.say(
            "spec/credential",
            f"{' and '.join(extra)} {'belong' if len(extra) > 1 else 'belongs'} to a certificate, and this key has "
            "a secret",
            node,
            f"write `type: x509`, or take {' and '.join(extra)} away; a secret lives as long as its key",
        )
        return {}
    if api is not None and _nest(api) is None:
        key.say(
            "spec/credential",
            f"the catalogue does not say how keys of {api.api} take a credential type",
            node,
            "take `credential` away; if the broker does take one, write its own words under `parameters`",
        )
        return {}
    found = dict(said)
    if kind == "x509" and "validity" in said:
        found["validity"] = seconds(said["validity"])
        if found["validity"] % DAY or not found["validity"]:
            key.say(
                "spec/credential",
                f"validity is {said['validity']}, and certificates live for whole days",
                node.get("validity") or node,
                "write it in days, like 30d",
            )
            return {}
    return found


def said(key: Written, signs_in: Mapping[str, Any], kept: int, objections: Objections) -> dict[str, Any]:
    """What is said of the key's life, in normal form; what is not said is left out."""
    if not _WORDS & key.node.value.keys():
        return {}
    found = {
        "credential": signs_in,
        "rotate_after": rotate_after(key, signs_in, kept),
        "reissue_stale": key.value("reissue_stale"),
        "verify": key.value("verify"),
        "deliver": deliveries(key, signs_in, objections),
    }
    return {name: value for name, value in found.items() if value is not None and value != {}}


def parameters(key: Written, api: Api | None, signs_in: Mapping[str, Any]) -> Any:
    """The parameters that the broker is sent: those written, and those that `credential` stands for."""
    written = key.value("parameters", {})
    if not signs_in or not isinstance(written, dict):
        return written
    made: dict[str, Any] = {"credential-type": "x509" if signs_in["type"] == "x509" else "binding-secret"}
    if signs_in["type"] == "x509":
        length, validity = signs_in.get("key_length"), signs_in.get("validity")
        made["x509"] = {
            "key-length": length or 2048,
            **({"validity": validity // DAY, "validity-type": "DAYS"} if validity else {}),
        }
    nest = _nest(api) if api is not None else ""
    top = {nest: made} if nest else made
    if doubled := sorted(set(top) & set(written)):
        which = " and ".join(f"`parameters.{one}`" for one in doubled)
        key.say(
            "spec/credential",
            f"`credential` says how this key signs in, and so {'do' if len(doubled) > 1 else 'does'} {which}",
            key.node.get("credential") or key.node,
            f"keep `credential`, and take {which} away",
        )
    return {**written, **top}


def _nest(api: Api) -> str | None:
    """Under which parameter a broker takes the credential type: empty for none, None when it takes nothing.

    Services built on XSUAA nest it under `xsuaa`, or take it at top level (reference: "Binding / key parameters").
    """
    properties = api.key_parameters.get("properties", {})
    if "xsuaa" in properties:
        return "xsuaa"
    return "" if "credential-type" in properties else None


def rotate_after(key: Written, signs_in: Mapping[str, Any], kept: int) -> int | None:
    """Seconds after which the key is made anew. With `keep_old_for` it must fit into a certificate's life."""
    text, node = key.value("rotate_after"), key.node.get("rotate_after")
    if text is None or node is None:
        return None
    after = seconds(text)
    if after < SHORTEST:
        key.say("spec/rotation", f"rotate_after is {text}", node, "the shortest is 1h")
        return None
    validity = signs_in.get("validity")
    if isinstance(validity, int) and after + kept >= validity:
        key.say(
            "spec/rotation",
            f"rotate_after ({span(after)}) and keep_old_for ({span(kept)}) together are not shorter than the "
            f"certificate's validity ({span(validity)}): the old certificate would end while it is still in use",
            node,
            f"leave room: rotate_after and keep_old_for together must be less than {span(validity)}",
        )
    return after


def deliveries(
    key: Written, signs_in: Mapping[str, Any], objections: Objections
) -> dict[str, dict[str, Any]]:
    """Name → sink, what the sink is told, shape, and whether what is there may be overwritten."""
    node = key.node.get("deliver")
    found: dict[str, dict[str, Any]] = {}
    for name, written in node.items() if node is not None and isinstance(node.value, dict) else ():
        if written.gone or written.value is WRONG or not isinstance(written.value, dict):
            continue
        sinks = [(word, below) for word, below in written.items() if word not in OWN_WORDS and not below.gone]
        named = [word for word, below in sinks if below.value is not WRONG]
        if len(named) > 1 or not sinks:
            words = " and ".join(named) or "none"
            hint = "write one of the sinks, e.g. `{file: {path: …}}`; two places are two deliveries"
            if named and written.also:
                hint = f"`{named[0]}: ~` takes away what another layer names; two places are two deliveries"
            key.say(
                "spec/delivery",
                f"delivery {name} must name one place, and names {words}",
                written,
                hint,
            )
            continue
        if len(sinks) > len(named):  # a word that is none was told already
            continue
        sink, block = sinks[0]
        said = merge.plain(written)
        told: Mapping[str, Any] = said[sink]
        for wrong in () if WRONG in told.values() else objections(sink, told):
            hint = "`reconcile kinds delivery` shows what each sink is told"
            key.say("spec/delivery", f"delivery {name}: {wrong}", block, hint)
        if said.get("shape") == "piper" and signs_in.get("type") == "x509":
            key.say(
                "spec/delivery",
                f"delivery {name} has the shape piper, which knows no certificate, and this key has one",
                written.get("shape") or written,
                "write another shape, or give the key a secret: `credential: {type: secret}`",
            )
        found[name] = {
            "sink": sink,
            "block": told,
            "shape": said.get("shape", "native"),
            "adopt": said.get("adopt", False),
        }
    return found
