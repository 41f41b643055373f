"""YAML files → documents that remember where everything was written. The only place that knows YAML.

Reading is strict and bounded: YAML 1.2 core scalars, no tags, no duplicate keys, limits on size, depth and what
aliases unfold to. Whatever is wrong with a file becomes a Problem with its place.
"""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.merge import Document, Path as Where
from btp_reconcile.core.model import Problem, Source
from btp_reconcile.core.suspicion import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 10_000_000
MAX_DEPTH = 64
MAX_NODES = 200_000
"""Values in one file, with aliases unfolded. A thousand instances with two keys each are some 20,000."""
MAX_EXTENDS = 16

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # as YAML 1.2 allows
)


def documents(paths: Sequence[str | Path]) -> tuple[Document, ...]:
    """Load spec files, and all specs of folders. Raises SpecError with every problem of every file."""
    reader = _Reader()
    loaded = [reader.load(file) for path in paths for file in reader.files(str(path))]
    reader.raise_problems()
    return tuple(dict.fromkeys(document for document in loaded if document))


@dataclass(frozen=True)
class Named:
    """A file that a spec names, and where it names it."""

    path: str
    place: Source


def own_catalogues(documents: Sequence[Document]) -> tuple[Named, ...]:
    """The catalogue files that specs name under `catalogue`, each once."""
    named = {os.path.realpath(one.path): one for document in documents for one in _named(document)}
    return tuple(named.values())


def catalogue(extra: Sequence[str | Path | Named] = ()) -> tuple[Document, ...]:
    """The shipped catalogue files, then a user's own. Raises SpecError with every problem of every file."""
    reader = _Reader()
    folder = resources.files("btp_reconcile") / "catalogue"
    shipped = sorted(
        (one for one in folder.iterdir() if one.name.endswith(".yaml")), key=lambda one: one.name
    )
    loaded = [reader.parsed(f"catalogue/{one.name}", one.read_bytes()) for one in shipped]
    for one in extra:
        named = one if isinstance(one, Named) else Named(str(one), Source(str(one)))
        loaded.append(reader.load(named.path, named.place))
    reader.raise_problems()
    return tuple(document for document in loaded if document)


def outside(path: str, spec_file: str, *, anywhere: bool = False) -> str:
    """The text of a file that a spec names as `${file:path}`, from the spec's folder, without a final newline.

    Raises SpecError when it cannot be had, or when it lies outside that folder and this was not allowed: a spec
    from a pull request must not be able to pick up any file of the machine.
    """
    folder = os.path.dirname(spec_file)  # noqa: PTH120 - keeps the user's own spelling
    file = _beside(spec_file, path.replace("\0", ""))
    home = os.path.realpath(folder or ".")
    real = os.path.realpath(file)
    if not anywhere and os.path.commonpath([home, real]) != home:
        problem = Problem(
            "input/file-outside",
            f"{shown(path)} lies outside the folder of the spec",
            Source(spec_file),
            hint="put it into the spec's folder, or hand it over in a variable: ${env:NAME}",
        )
        raise SpecError([problem])
    reader = _Reader()
    raw = reader.raw(file, Source(spec_file))
    try:
        text = raw.decode("utf-8-sig") if raw is not None else ""
    except UnicodeDecodeError:
        said = f"{shown(path)} is not UTF-8"
        reader.problems.append(Problem("input/file", said, Source(spec_file), hint="save it as UTF-8"))
    if reader.problems:
        raise SpecError([replace(one, code="input/file") for one in reader.problems])
    return text.removesuffix("\n").removesuffix("\r")


def text(value: Any) -> str:
    """Plain data as YAML, for people."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def _named(document: Document) -> Iterator[Named]:
    """The catalogue files of one document, from its own folder; what is no text is complained about later."""
    data = document.data.get("catalogue") if isinstance(document.data, dict) else None
    for index, path in enumerate(data if isinstance(data, list) else []):
        if isinstance(path, str) and path:
            yield Named(_beside(document.file, path), document.places[("catalogue", index)][1])
    for base in document.extends:
        yield from _named(base)


def _beside(file: str, path: str) -> str:
    """A path that a file names, as seen from where the file itself is seen from."""
    return os.path.normpath(os.path.join(os.path.dirname(file), path))  # noqa: PTH118, PTH120 - keeps it relative


@dataclass
class _Reader:
    """Loads each file once, and keeps what is wrong with any."""

    problems: list[Problem] = field(default_factory=list)
    done: dict[str, Document | None] = field(default_factory=dict)

    def raise_problems(self) -> None:
        if self.problems:
            raise SpecError(sorted(self.problems, key=lambda one: one.source or Source("")))

    def files(self, path: str) -> Iterator[str]:
        """The spec files that a path stands for: itself, or those in the folder and below."""
        if "\0" in path or not os.path.isdir(path):  # noqa: PTH112 - false, never an error, for any text
            yield path
            return
        found = False
        for folder, below, names in os.walk(path):
            below[:] = sorted(name for name in below if not name.startswith((".", "_")))
            for name in sorted(names):
                if name.endswith((".yaml", ".yml")) and not name.startswith((".", "_")):
                    found = True
                    yield os.path.normpath(os.path.join(folder, name))  # noqa: PTH118 - stays relative
        if not found:
            self._say(
                "spec/no-specs",
                "this folder holds no spec",
                Source(path),
                "a spec ends in .yaml or .yml, and does not start with _; `reconcile init` writes a first one",
            )

    def load(self, file: str, named: Source | None = None, chain: tuple[str, ...] = ()) -> Document | None:
        """One file with what it extends, or None when something is wrong with it."""
        real = os.path.realpath(file.replace("\0", ""))
        if real in chain:
            self._say(
                "spec/extends-cycle",
                f"{shown(file)} extends itself, directly or through the files it extends",
                named or Source(file),
                "take this line away, or move what both need to a third file",
            )
            return None
        if len(chain) > MAX_EXTENDS:
            self._say(
                "spec/extends-cycle",
                f"more than {MAX_EXTENDS} files extend one another in a row",
                named or Source(file),
                "name the files that are needed in one list under extends",
            )
            return None
        if real not in self.done:
            raw = self.raw(file, named)
            document = None if raw is None else self.parsed(file, raw)
            self.done[real] = document and self._extended(document, (*chain, real))
        return self.done[real]

    def _extended(self, document: Document, chain: tuple[str, ...]) -> Document:
        told = document.data.get("extends")
        listed = [((), told)] if isinstance(told, str) else list(_indexed(told))
        paths: dict[str, Source] = {}
        for where, path in listed:
            if isinstance(path, str) and path:
                paths.setdefault(path, document.places[("extends", *where)][1])
        loaded = [self.load(_beside(document.file, path), place, chain) for path, place in paths.items()]
        unique = {id(one): one for one in loaded if one}
        return Document(document.file, document.data, document.places, tuple(unique.values()))

    def raw(self, file: str, named: Source | None) -> bytes | None:
        """A file's bytes, or None when they cannot be had."""
        at = named or Source(file)
        try:
            path = Path(file)
            if not stat.S_ISREG(path.stat().st_mode):
                self._say("spec/file-unreadable", f"{shown(file)} is no regular file", at, "name a YAML file")
                return None
            with path.open("rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            self._say("spec/file-missing", f"there is no file {shown(file)}", at, "check the path")
            return None
        except (OSError, ValueError) as error:
            said = (error.strerror or "cannot be read") if isinstance(error, OSError) else "is no file name"
            self._say(
                "spec/file-unreadable", f"{shown(file)} cannot be read: {said}", at, "check its permissions"
            )
            return None
        if len(raw) > MAX_BYTES:
            self._say(
                "spec/too-large",
                f"the file is larger than {MAX_BYTES // 1_000_000} MB",
                Source(file),
                "no spec of that size is meant; split it into several files",
            )
            return None
        return raw

    def parsed(self, file: str, raw: bytes) -> Document | None:
        """One file's text as a document, or None when something is wrong with it."""
        text = self._text(file, raw)
        if text is None:
            return None
        before = len(self.problems)
        try:
            root = _Parser(file, self.problems).parse(text)
        except _Stop:
            return None
        except yaml.YAMLError as error:
            self.problems.append(_syntax(file, text, error))
            return None
        if len(self.problems) > before or root is None:
            return None
        places: dict[Where, tuple[Source, Source]] = {(): (Source(file), Source(file))}
        return Document(file, _flat(root, (), places), places)

    def _text(self, file: str, raw: bytes) -> str | None:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:2]:
            self._say("spec/encoding", "the file is UTF-16 or UTF-32", Source(file), "save it as UTF-8")
            return None
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            column = error.start - raw.rfind(b"\n", 0, error.start)
            self._say(
                "spec/encoding",
                f"byte 0x{raw[error.start]:02x} is not UTF-8",
                Source(file, line, column),
                "save the file as UTF-8",
            )
            return None
        bad = _PRINTABLE.search(text)
        if bad:
            self._say(
                "spec/control-character",
                f"the character U+{ord(bad[0]):04X} may not stand in a YAML file",
                _at(file, text, bad.start()),
                "take it away",
            )
            return None
        return text

    def _say(self, code: str, message: str, source: Source, hint: str) -> None:
        self.problems.append(Problem(code, message, source, hint=hint))


def _indexed(value: Any) -> Iterator[tuple[tuple[int], Any]]:
    if isinstance(value, list):
        yield from (((index,), item) for index, item in enumerate(value))


def _at(file: str, text: str, position: int) -> Source:
    return Source(file, text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))


class _Stop(Exception):
    """Nothing more can be said about this file."""


class _Written:
    """A value as written. `size` and `depth` count what aliases unfold to."""

    __slots__ = ("at", "depth", "keys", "size", "value")

    def __init__(self, value: Any, at: Source) -> None:
        self.value = value
        self.at = at
        self.keys: dict[str, Source] = {}
        self.size = 1
        self.depth = 1


class _Parser:
    """Events → values, without recursion, so that no file can exhaust the stack."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.anchors: dict[str, _Written | None] = {}
        self.stack: list[tuple[_Written, str | None]] = []  # open collections, with their anchors
        self.pending: list[tuple[str, Source] | None] = []  # per open map: the key that waits for its value
        self.root: _Written | None = None
        self.count = 0

    def parse(self, text: str) -> _Written | None:
        documents = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(
                        "spec/several-documents",
                        "a second document starts here",
                        self._source(event),
                        "a spec is one document: take the line --- away, or make two files",
                    )
        return self._checked()

    def _checked(self) -> _Written | None:
        root = self.root
        if root is None or root.value is None:
            self._stop(
                "spec/empty", "the file is empty", Source(self.file), "`reconcile init` writes a first spec"
            )
        elif not isinstance(root.value, dict):
            self._stop(
                "spec/no-map",
                f"the file holds {'a list' if isinstance(root.value, list) else 'a single value'}, not a map",
                root.at,
                "a spec starts with lines like `version: 1` and `owner: my-team`",
            )
        elif root.size > MAX_NODES:
            self._unfolded(root)
        elif root.depth > MAX_DEPTH:
            self._deep(root.at)
        return root

    def _scalar(self, event: Any) -> None:
        at = self._source(event)
        self._no_tag(event, at)
        text = event.value
        value: Any = text
        if event.implicit[0] and not event.style:  # libyaml says "", the Python parser None
            value = self._resolved(text, at)
        elif not text.isprintable():
            self._characters(text, at)
        node = _Written(value, at)
        if event.anchor:
            self.anchors[event.anchor] = node
        self._put(node, text)

    def _resolved(self, text: str, at: Source) -> Any:
        """A plain scalar as YAML 1.2's core schema reads it: `no`, `on` and `12:30` are text."""
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _INT.fullmatch(text):
            if len(text) > 100:
                self._say(
                    "spec/number", f"a number of {len(text)} digits", at, "quote it, if it is meant as text"
                )
                return 0
            return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)
        if _FLOAT.fullmatch(text):
            number = (
                float(text.replace("inf", "0").replace("nan", "0"))
                if text[-1].isdigit() or text[-1] == "."
                else math.inf
            )
            if not math.isfinite(number):
                self._say(
                    "spec/number",
                    f"{text[:40]} is no number that JSON knows",
                    at,
                    "quote it, if it is meant as text",
                )
                return 0
            return number
        return text

    def _characters(self, text: str, at: Source) -> None:
        for letter in text:
            if (
                (letter < " " and letter not in "\t\n\r")
                or letter == "\x7f"
                or "\ud800" <= letter <= "\udfff"
            ):
                self._say(
                    "spec/control-character",
                    f"this text holds the character U+{ord(letter):04X}, which no name or value has",
                    at,
                    "take it away",
                )
                return

    def _open(self, event: Any) -> None:
        at = self._source(event)
        self._no_tag(event, at)
        if len(self.stack) >= MAX_DEPTH:
            self._deep(at)
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.anchor:
            self.anchors[event.anchor] = None  # open: an alias to it from inside would never end
        self.stack.append((_Written({} if is_map else [], at), event.anchor))
        self.pending.append(None)

    def _close(self) -> None:
        node, anchor = self.stack.pop()
        self.pending.pop()
        if anchor:
            self.anchors[anchor] = node
        self._put(node, None)

    def _alias(self, event: Any) -> None:
        at = self._source(event)
        node = self.anchors.get(event.anchor)
        if event.anchor not in self.anchors:
            self._stop(
                "spec/yaml",
                f"*{event.anchor} stands for nothing: no &{event.anchor} comes before it",
                at,
                f"write &{event.anchor} at the value that is meant, further up; or put quotes around a text with *",
            )
        if node is None:
            self._stop(
                "spec/alias", f"*{event.anchor} stands inside itself", at, "use templates in place of aliases"
            )
        if node.size > MAX_NODES:
            self._unfolded(node)
        used = _Written(node.value, at)
        used.keys, used.size, used.depth = node.keys, node.size, node.depth
        self._put(used, None if isinstance(node.value, dict | list) else str(node.value))

    def _unfolded(self, node: _Written) -> NoReturn:
        self._stop(
            "spec/too-large",
            f"the aliases of this file unfold to more than {MAX_NODES:,} values",
            node.at,
            "use templates in place of aliases",
        )

    def _put(self, node: _Written, text: str | None) -> None:
        """Place a finished value: as root, as a list's item, as a map's key or as that key's value."""
        self.count += 1
        if self.count > MAX_NODES:
            self._stop(
                "spec/too-large",
                f"the file holds more than {MAX_NODES:,} values",
                node.at,
                "no spec of that size is meant; split it into several files",
            )
        if not self.stack:
            self.root = node
            return
        into, _ = self.stack[-1]
        if isinstance(into.value, list):
            into.value.append(node)
            self._grow(into, node)
        elif self.pending[-1] is None:
            self.pending[-1] = (self._key(node, text), node.at)
        else:
            key, at = self.pending[-1]
            self.pending[-1] = None
            self._pair(into, key, at, node)

    def _pair(self, into: _Written, key: str, at: Source, node: _Written) -> None:
        if key in into.keys:
            first = into.keys[key]
            self._say(
                "spec/duplicate-key",
                f"{shown(key)} stands twice in this map",
                at,
                "keep one of the two",
                also=(first,),
            )
            return
        into.value[key] = node
        into.keys[key] = at
        self._grow(into, node)

    def _grow(self, into: _Written, node: _Written) -> None:
        into.size += node.size
        into.depth = max(into.depth, node.depth + 1)

    def _key(self, node: _Written, text: str | None) -> str:
        if isinstance(node.value, str):
            if node.value == "<<":
                self._say(
                    "spec/merge-key",
                    "<< merges maps in YAML 1.1 only",
                    node.at,
                    "put what is shared under templates, and name it under use",
                )
            return node.value
        if text is None:
            self._say(
                "spec/key-not-text", "a map or list cannot be a key", node.at, "write a name before the colon"
            )
            return f"\0{node.at}"
        said = f"{shown(text)} is read as {_kind(node.value)}, and a key must be text"
        self._say("spec/key-not-text", said, node.at, f'quote it: "{text}"')
        return text

    def _no_tag(self, event: Any, at: Source) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._say(
                "spec/tag",
                f"the tag {tag[:60]} is not allowed here",
                at,
                "take the tag away; only plain YAML is read",
            )

    def _deep(self, at: Source) -> None:
        self._stop(
            "spec/too-deep",
            f"more than {MAX_DEPTH} levels inside one another",
            at,
            "no spec needs as many; check the brackets",
        )

    def _source(self, event: Any) -> Source:
        mark = event.start_mark
        return Source(self.file, mark.line + 1, mark.column + 1)

    def _say(self, code: str, message: str, at: Source, hint: str, also: tuple[Source, ...] = ()) -> None:
        if len(self.problems) > 1000:  # a file of garbage: nobody reads on
            raise _Stop
        self.problems.append(Problem(code, message, at, hint=hint, also=also))

    def _stop(self, code: str, message: str, at: Source, hint: str) -> NoReturn:
        self.problems.append(Problem(code, message, at, hint=hint))
        raise _Stop


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    return f"{str(value).lower()} (yes or no)" if isinstance(value, bool) else "a number"


def _flat(node: _Written, path: Where, places: dict[Where, tuple[Source, Source]]) -> Any:
    """Plain data; the place of every part goes into `places`."""
    if isinstance(node.value, dict):
        data = {}
        for key, below in node.value.items():
            where = (*path, key)
            places[where] = (node.keys[key], below.at)
            data[key] = _flat(below, where, places)
        return data
    if isinstance(node.value, list):
        items = []
        for index, below in enumerate(node.value):
            where = (*path, index)
            places[where] = (below.at, below.at)
            items.append(_flat(below, where, places))
        return items
    return node.value


_TOLD = (
    (
        "cannot start any token",
        "this cannot be read as YAML",
        "indent with blanks, never with tabs; and put quotes around a text that starts with @, ` or %",
    ),
    (
        "mapping values are not allowed",
        "a colon stands where no key can be",
        "put quotes around a text that holds `: `, or check the indentation of this line",
    ),
    (
        "did not find expected key",
        "this line does not fit those above it",
        "indent it exactly as its neighbours; check quotes and brackets of the lines above",
    ),
    (
        "could not find expected ':'",
        "a key without a colon",
        "write `name: value`; check quotes and indentation of the lines above",
    ),
    (
        "did not find expected ',' or",
        "a bracket is not closed",
        "close { with } and [ with ], with commas between",
    ),
    (
        "unexpected end of stream",
        "a quotation mark is not closed",
        "close it, or put the other kind around the text",
    ),
    (
        "did not find expected '-' indicator",
        "this line does not fit the list above it",
        "start it with `- `, or check its indentation",
    ),
    (
        "did not find expected <document start>",
        "the text goes on where it should have ended",
        "check the indentation of this line",
    ),
    (
        "escape",
        "an unknown escape in a text in double quotes",
        "write \\\\ for a backslash, or use single quotes",
    ),
    (
        "did not find expected node content",
        "a value is missing or a bracket is too many",
        "check brackets and commas",
    ),
)


def _syntax(file: str, text: str, error: yaml.YAMLError) -> Problem:
    """What the YAML reader could not digest, in words."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", "") or getattr(error, "reason", "") or "cannot be read")
    source = Source(file, mark.line + 1, mark.column + 1) if mark else Source(file)
    began = getattr(error, "context_mark", None)
    also = (
        (Source(file, began.line + 1, began.column + 1),)
        if began and mark and began.line != mark.line
        else ()
    )
    line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Problem(
            "spec/yaml", "this line is indented with a tab", source, hint="indent with blanks", also=also
        )
    for sign, message, hint in _TOLD:
        if sign in said:
            if also and "not closed" in message:
                source, also = also[0], (source,)
            return Problem("spec/yaml", f"{message} ({said})", source, hint=hint, also=also)
    return Problem(
        "spec/yaml", f"this is no YAML: {said}", source, hint="check this line and the one above", also=also
    )
