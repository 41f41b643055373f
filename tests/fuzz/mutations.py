"""Changes that nobody would make on purpose: to plain data, and to bytes. The same seed gives the same change."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

LARGE = 100_000
"""Letters to which one change may let something grow."""

Spot = tuple[Any, Any]
"""A container, and the key or index of one of its values."""


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"down": value}
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1e308, 5e-324, -0.0, 0.5, 1_767_225_600_000),
    *("", " ", "x", "0", "null", "no", "~", "-", ".", "..", "/", "a/b", "A.b_c-d", "a b", "a,b", "a'b\"c"),
    *(
        "\x00",
        "\x1b[31mred\x1b[0m",
        "\u202egnp.exe",
        "\ufeffbom",
        "\u2028",
        "\u0085",
        "line\nbreak",
        "tab\there",
    ),
    *(
        "é",
        "e\u0301",
        "𝕏",
        "名前",
        "ﬁ",
        "ß",
        "\u0130",
        "\ud800",
        "\udfff",
        "%00",
        "%2e%2e%2f",
        "..%2f",
        "&x=1",
    ),
    *(
        "a" * 64,
        "a" * 300,
        "é" * 200,
        "a" * 70_000,
        "9" * 400,
        "{{7*7}}",
        "{}",
        "{0}",
        "%s%n",
        "$(id)",
        "`id`",
    ),
    *(
        "11111111-1111-4111-8111-111111111111",
        "{11111111-1111-4111-8111-111111111111}",
        "eu10",
        "xx99",
        "cf-eu10",
    ),
    *(
        "2026-01-01T00:00:00Z",
        "0000-00-00",
        "9999-99-99T99:99:99Z",
        "P1D",
        "5d",
        "-5d",
        "99999999999d",
        "1e3m",
    ),
    *(
        "create",
        "absent",
        "present",
        "observe",
        "cloudfoundry",
        "other",
        "kubernetes",
        "succeeded",
        "in progress",
    ),
    *(
        [],
        {},
        [[]],
        [{}],
        [None],
        [""],
        {"": ""},
        {"a": None},
        ["a", "a"],
        [1, "1", True],
        {"0": 0},
        {"name": []},
    ),
    *(deep(5), deep(40), deep(70)),
)
WORDS = (
    *(
        "version",
        "owner",
        "name",
        "access",
        "defaults",
        "templates",
        "subaccounts",
        "id",
        "region",
        "use",
        "keys",
    ),
    *(
        "instances",
        "entitlements",
        "api",
        "service",
        "plan",
        "runtime",
        "space",
        "org",
        "landscape",
        "parameters",
    ),
    *(
        "role",
        "adopt",
        "ensure",
        "manage",
        "protect",
        "ignore",
        "tags",
        "keep_old_for",
        "extends",
        "catalogue",
    ),
    *(
        "central",
        "service_manager",
        "cloud_foundry",
        "service_key",
        "username",
        "password",
        "origin",
        "amount",
    ),
    *(
        "",
        " ",
        "__proto__",
        "constructor",
        "~1",
        "a.b",
        "a/b",
        "é",
        "\x00",
        "\x1b[2J",
        "a" * 200,
        "Name",
        "0",
        "<<",
    ),
)


def spots(value: Any, found: list[Spot] | None = None) -> list[Spot]:
    """Every place in which a value stands."""
    found = [] if found is None else found
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in parts:
        found.append((value, key))
        spots(below, found)
    return found


# --- structure ------------------------------------------------------------------------------------------


def _drop(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    del spot[0][spot[1]]


def _retype(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    into, key = spot
    value = into[key]
    texts = str(value) if not isinstance(value, (dict, list)) else json.dumps(value)[:500]
    turned: list[Any] = [texts, [value], {"value": value}, bool(value), len(texts), None]
    if isinstance(value, dict):
        turned += [list(value), [list(pair) for pair in value.items()]]
    if isinstance(value, list):
        turned.append(dict(zip(map(str, range(len(value))), value, strict=True)))
    into[key] = rng.choice(turned)


def _replace(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    spot[0][spot[1]] = copy.deepcopy(rng.choice(odd))


def _nest(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    into, key = spot
    for _ in range(rng.choice([1, 1, 2, 65])):
        into[key] = {str(key): into[key]} if rng.random() < 0.5 else [into[key]]


def _duplicate(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    into, key = spot
    if isinstance(into, list):
        into.insert(rng.randint(0, len(into)), copy.deepcopy(into[key]))
    else:
        into[_word(rng, key)] = copy.deepcopy(into[key])


def _rename(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    into, key = spot
    if isinstance(into, dict):
        into[_word(rng, key)] = into.pop(key)


def _add(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    into, key = spot
    if isinstance(into, dict):
        into[_word(rng, key)] = copy.deepcopy(rng.choice(odd))
    else:
        into.append(copy.deepcopy(rng.choice(odd)))


def _many(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    into, key = spot
    value = into[key]
    number = rng.choice([30, 300])
    number = max(1, min(number, LARGE // len(json.dumps(value))))
    if isinstance(into, list):
        into.extend(copy.deepcopy(value) for _ in range(number))
    else:
        into.update({f"{key}{index}": copy.deepcopy(value) for index in range(number)})


def _shuffle(rng: random.Random, spot: Spot, odd: Sequence[Any]) -> None:
    value = spot[0][spot[1]]
    if isinstance(value, list):
        rng.shuffle(value)
    elif isinstance(value, str) and value:
        at = rng.randrange(len(value))
        spot[0][spot[1]] = (
            value[:at] + rng.choice(["", " ", "é", "\x00", "/", "$", "${", value[0]]) + value[at + 1 :]
        )


def _word(rng: random.Random, key: Any) -> str:
    text = str(key)
    near = [text.upper(), text + "s", text[:-1], f" {text}", text + "\u200b", f"{text}{text}"]
    return rng.choice(near) if rng.random() < 0.4 else rng.choice(WORDS)


_OPERATIONS: Sequence[Callable[[random.Random, Spot, Sequence[Any]], None]] = (
    *(_drop, _retype, _replace, _replace, _replace, _nest, _duplicate, _rename, _add, _many, _shuffle),
)


def structure(
    rng: random.Random, value: Any, times: int, odd: Sequence[Any] = ODD, *, keep: Any = None
) -> Any:
    """A copy of plain data with so many changes. `keep` says of (container, key) what is left alone."""
    whole = {"whole": copy.deepcopy(value)}
    for _ in range(times):
        places = spots(whole["whole"]) or [(whole, "whole")]
        if rng.random() < 0.02:
            places = [(whole, "whole")]
        if keep is not None:
            places = [one for one in places if not keep(*one)] or [(whole, "whole")]
        operation = rng.choice(_OPERATIONS if len(places) < 5000 else [_drop, _retype, _replace])
        spot = rng.choice(places)
        if spot[0] is whole and operation in {_drop, _rename, _many, _duplicate, _add}:
            operation = _replace
        operation(rng, spot, odd)
    return whole["whole"]


# --- bytes ----------------------------------------------------------------------------------------------

BITS = (
    *(
        b"",
        b"\n",
        b"  ",
        b"\t",
        b": ",
        b"- ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"'",
        b'"',
        b"#",
        b"|",
        b">",
        b",",
        b"\\",
    ),
    *(
        b"${",
        b"${env:PLANTED}",
        b"${file:planted.txt}",
        b"&a ",
        b"*a ",
        b"!!python/object:os.system ",
        b"!!x ",
    ),
    *(b"<<: *a\n", b"---\n", b"...\n", b"%YAML 1.1\n", b"? ", b"null", b"1", b"\r\n", b"\r", b"\xef\xbb\xbf"),
    *(
        b"\x00",
        b"\x07",
        b"\x1b[2J",
        b"\x7f",
        b"\xff\xfe",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc2\x85",
    ),
    *(
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\xf0\x9d\x95\x8f",
        b"a" * 5000,
        b"[" * 200,
        b"{a: " * 100,
        b"9" * 200,
    ),
)


def garble(rng: random.Random, text: bytes, times: int) -> bytes:
    """Bytes with so many changes."""
    raw = bytearray(text)
    for _ in range(times):
        at = rng.randint(0, len(raw))
        width = rng.choice([0, 0, 1, 1, 2, 5, 20, 100])
        doing = rng.random()
        if doing < 0.55:
            raw[at : at + width] = rng.choice(BITS)
        elif doing < 0.7:
            raw[at : at + width] = rng.randbytes(rng.randint(0, 4))
        elif doing < 0.8:
            raw[at:at] = raw[at : at + 60] * rng.choice([1, 2, 50])
        elif doing < 0.9:
            start = rng.randint(0, len(raw))
            raw[at:at] = raw[start : start + rng.randint(1, 80)]
        elif doing < 0.95:
            del raw[at:]
        else:
            lines = bytes(raw).split(b"\n")
            rng.shuffle(lines)
            raw = bytearray(b"\n".join(lines))
    return bytes(raw)


def as_text(rng: random.Random, value: Any) -> bytes:
    """Plain data as YAML, in one of the ways in which people write it."""
    if rng.random() < 0.5:
        try:
            return yaml.safe_dump(value, allow_unicode=rng.random() < 0.7, sort_keys=False).encode(
                "utf-8", "surrogatepass"
            )
        except (yaml.YAMLError, ValueError, RecursionError):
            pass
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
