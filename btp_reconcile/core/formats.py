r"""Credentials as the text of a file: JSON, lines of variables, or Java properties.

**Variables** (`env`). Nested names are joined by `_` and written in capitals. Three kinds of readers exist, and they do
not agree: a POSIX shell reads a line as a command (`. file`); python-dotenv, systemd and Docker Compose know quotes; and
`docker run --env-file` takes everything after the `=` as it is, quotes included. A value made only of letters, digits and
`_ @ % + = : , . / -` is the same to all of them and stands bare. Client ids and secrets of XSUAA hold `!`, `|` and `$`, and no
line can show those to all three alike. So the spec says for whom the file is:

- `quoted` (default): quotes where they are needed, only such as a POSIX shell and python-dotenv read alike. A value
  for which there are none is refused in words.
- `literal`: no quotes at all, for `docker run --env-file`.
- `base64`: each value in base64, which every reader reads alike.

A line break inside a value (PEM) is written as the two characters `\n`, except in base64, because lines are what these
files are made of.

**Properties** (`properties`). Nested names are joined by `.`; escapes follow `java.util.Properties.load` ("Java SE API"):
ISO-8859-1, where everything outside printable ASCII is `\uXXXX`.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.digest import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMATS = ("json", "env", "properties")
VALUES = ("quoted", "literal", "base64")

_BARE = re.compile(r"[A-Za-z0-9_@%+=:,./-]*", re.ASCII)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.IGNORECASE | re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Unwritable(ValueError):
    """The format cannot hold this. Its text names the field and never the value."""


def text(content: Mapping[str, Any], form: str, *, prefix: str = "", values: str = "quoted") -> bytes:
    """The whole file. Raises Unwritable."""
    try:
        if form == "env":
            return _env(content, prefix, values).encode()
        if form == "properties":
            return _properties(content, prefix).encode("ascii")
        return (json.dumps(plain(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # What Python says about it holds the text.
        raise Unwritable("a value holds half a character, which no file can hold") from None


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every single value with the names that lead to it, as text."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(below, (*path, name))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(below, (*path, str(index)))
    elif isinstance(value, str):
        yield path, value
    else:
        yield path, "" if value is None else json.dumps(value)


def _env(content: Mapping[str, Any], prefix: str, values: str) -> str:
    write = {"quoted": _quoted, "literal": _literal, "base64": _base64}[values]
    lines: dict[str, str] = {}
    origins: dict[str, str] = {}
    for path, value in _leaves(plain(content)):
        field = ".".join(path)
        name = prefix + re.sub(r"[^A-Z0-9_]", "_", "_".join(path).upper())
        if not _VARIABLE.fullmatch(name):
            raise Unwritable(f"{field} would become {name}, which is no name of a variable; give a prefix")
        if name in lines:
            raise Unwritable(f"{origins[name]} and {field} would both become {name}")
        origins[name] = field
        lines[name] = f"{name}={write(field, value)}\n"
    return "".join(lines[name] for name in sorted(lines))


def _one_line(field: str, value: str) -> str:
    if _CONTROL.search(value):
        raise Unwritable(f"{field} holds a control character; take values: base64, or the format json")
    return value.replace("\r", "\\r").replace("\n", "\\n")


def _literal(field: str, value: str) -> str:
    return _one_line(field, value)


def _base64(_field: str, value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _quoted(field: str, value: str) -> str:
    r"""Quotes that a POSIX shell and python-dotenv read alike.

    In single quotes a shell knows no escapes, python-dotenv knows `\\` and `\'`. In double quotes a shell knows `$` and
    the backtick, python-dotenv `\n` and its like; `\\` and `\"` mean the same to both. `${` is replaced by
    python-dotenv in any quotes.
    """
    line = _one_line(field, value)
    if _BARE.fullmatch(line):
        return line
    if "${" not in line:
        if "'" not in value and "\\" not in value:
            return f"'{line}'"
        if "$" not in line and "`" not in line:
            return '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"'
    raise Unwritable(
        f"{field} holds characters that no quotes protect from a shell and from python-dotenv alike; "
        "take values: base64, values: literal, or the format json"
    )


def _properties(content: Mapping[str, Any], prefix: str) -> str:
    lines: dict[str, str] = {}
    for path, value in _leaves(plain(content)):
        name = prefix + ".".join(path)
        if name in lines:
            raise Unwritable(f"two fields would both become {name}")
        lines[name] = f"{_escaped(name, name=True)}={_escaped(value)}\n"
    return "".join(lines[name] for name in sorted(lines))


_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}


def _escaped(part: str, *, name: bool = False) -> str:
    signs = []
    for position, sign in enumerate(part):
        if sign in _SHORT:
            signs.append(_SHORT[sign])
        elif sign in "=:#!" or (sign == " " and (name or position == 0)):
            signs.append("\\" + sign)
        elif " " <= sign <= "~":
            signs.append(sign)
        else:
            units = sign.encode("utf-16-be")
            signs += [f"\\u{units[at : at + 2].hex().upper()}" for at in range(0, len(units), 2)]
    return "".join(signs)
