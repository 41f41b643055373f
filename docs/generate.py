"""Writes the pages that are made from the program itself: the spec reference and the troubleshooting page.

`python -m docs.generate` writes them; a test compares what is checked in with what this gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from btp_reconcile import pipeline
from btp_reconcile.core import schema
from btp_reconcile.core.codes import CODES
from btp_reconcile.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from btp_reconcile.core.catalogue import KnownError

HERE = Path(__file__).parent
CASES = HERE.parent / "tests" / "cases"
WRITTEN = "<!-- Written by `make docs` from the program itself; do not edit. -->\n"

SECTIONS = (
    ("", "A spec"),
    ("access_everywhere", "access"),
    ("central", "access.central"),
    ("cloud_foundry_access", "access.cloud_foundry"),
    ("service_manager", "access.service_manager"),
    ("destination_access", "access.destination"),
    ("vault_access", "access.vault"),
    ("kubernetes_access", "access.kubernetes"),
    ("github_access", "access.github"),
    ("gitlab_access", "access.gitlab"),
    ("defaults", "defaults"),
    ("template", "A template"),
    ("subaccount", "A subaccount"),
    ("cloud_foundry", "cloud_foundry"),
    ("entitlement", "An entitlement"),
    ("instance", "An instance"),
    ("key", "A key"),
    ("delivery", "A delivery"),
    ("destination", "A destination"),
)
"""Definition in the schema → heading of its section, in the order of the page."""
SAME = {"access": "access_everywhere"}
"""What has no section of its own → the section that shows all of it."""

WORDS = {
    "name": ("a name", "Small letters, digits and `. _ -` between them, at most 63."),
    "text": ("a text", "On one line."),
    "physical": ("a text", "On one line, at most 255 characters: a name as the platform allows it."),
    "referable": ("a text or `${…}`", "`${env:NAME}` and `${file:path}` may stand in it."),
    "path": (
        "a path",
        "From the folder of the spec, also where it is written in a file that the spec extends, unless it says otherwise.",
    ),
    "duration": ("a duration", "A whole number and `m`, `h`, `d` or `w`: `30m`, `12h`, `7d`, `4w`."),
    "patience": ("a time to wait", "A whole number and `s`, `m` or `h`: `5s`, `30s`, `2m`."),
    "region": ("a region", "Its technical name: `eu10`, `us10`, `eu10-004`."),
    "landscape": ("a landscape", "The technical name of a Cloud Foundry landscape, `eu10-004`, or `${…}`."),
    "guid": ("an ID", "`5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10`, or `${…}`."),
    "endpoint": ("a URL", "`https://` and a host without a path, or `${…}`."),
    "secret": ("a secret", "`${env:NAME}` or `${file:path}`, never the value itself."),
    "api": ("a name of the catalogue", "See [the catalogue](#the-catalogue)."),
    "recipe": ("a recipe", "See [the catalogue](#the-catalogue)."),
    "key_path": ("a key", "`instance/key`, or `subaccount/instance/key`."),
    "destination_name": ("a destination's name", "Letters, digits and `. _ -`, at most 200; case counts."),
    "destination_properties": ("a map of texts", "Property → text; numbers and `true` are quoted."),
    "parameters": ("a map", "Handed to the service as JSON."),
    "ignore": ("a list of fields", "Paths like `parameters.role` or `tags`; in destinations, properties."),
    "adopt": ("`true`, `{name: …}` or `{id: …}`", "What exists already and shall be taken over."),
}
"""Definition → (what a value is called, how it is written)."""


def main() -> None:
    """Write every page that is made."""
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Name of a page → its text."""
    return {"reference.md": reference(), "troubleshooting.md": troubleshooting()}


# --- the spec reference -----------------------------------------------------------------------------------


def reference() -> str:
    """Each part of a spec with its fields, from the schemas of the kinds."""
    return "\n".join([WRITTEN + (HERE / "reference.head.md").read_text(encoding="utf-8"), *_reference()])


def _reference() -> Iterator[str]:
    whole = schema.language(KINDS)
    definitions = whole["$defs"]
    examples = {kind.name: kind.examples for kind in KINDS}
    for name, title in SECTIONS:
        shape = definitions[name] if name else whole
        yield f"## {title}\n"
        yield f"{_cell(shape.get('description', ''))}\n"
        yield from _tables(title, shape, 3)
        if examples.get(name):
            yield f"```yaml\n{examples[name][-1].rstrip()}\n```\n"
    yield "## Values\n"
    yield from _table(("Value", "How it is written"), dict.fromkeys(WORDS.values()))
    yield from _catalogue()


@dataclass(frozen=True)
class _Part:
    """A map inside a section that is too large for a cell."""

    title: str
    shape: Mapping[str, Any]


def _tables(title: str, shape: Mapping[str, Any], level: int) -> Iterator[str]:
    """The fields of one map, and below it those of the maps inside it."""
    fields = {**shape.get("properties", {})}
    for other in shape.get("anyOf", ()):
        fields |= other.get("properties", {})
    parts: list[_Part] = []
    rows = [(f"`{name}`", *_field(name, said, title, parts)) for name, said in fields.items()]
    yield from _table(("Field", "Value", "Meaning"), rows)
    for part in parts:
        yield f"{'#' * level} {part.title}\n"
        yield f"{_cell(part.shape.get('description', ''))}\n"
        yield from _tables(part.title, part.shape, min(level + 1, 6))


def _field(name: str, said: Mapping[str, Any], title: str, parts: list[_Part]) -> tuple[str, str]:
    meaning = str(said.get("description", ""))
    own = said.get("properties")
    if own:
        part = _Part(f"{title.partition(' ')[2] or title}.{name}", said)
        parts.append(part)
        return f"[a map](#{_anchor(part.title)})", _cell(meaning)
    if not meaning and "$ref" in said:
        meaning = str(schema.language(KINDS)["$defs"][_target(said)].get("description", ""))
    return _value(said), _cell(meaning)


def _target(said: Mapping[str, Any]) -> str:
    return str(said["$ref"]).rpartition("/")[2]


def _value(said: Mapping[str, Any]) -> str:
    """What a field takes, in a word or a link."""
    if "$ref" in said:
        target = _target(said)
        titles = dict(SECTIONS)
        section = SAME.get(target, target)
        if section in titles:
            return f"[{_small(titles[section])}](#{_anchor(titles[section])})"
        return f"[{WORDS[target][0]}](#values)" if "`" not in WORDS[target][0] else WORDS[target][0]
    if "enum" in said:
        return ", ".join(f"`{str(one).lower() if one is True else one}`" for one in said["enum"])
    if "const" in said:
        return f"`{str(said['const']).lower()}`"
    if "anyOf" in said:
        return " or ".join(dict.fromkeys(_value(one) for one in said["anyOf"]))
    inner = said.get("additionalProperties")
    if isinstance(inner, dict) and inner.get("additionalProperties"):
        return f"a map of maps of {_plural(inner['additionalProperties'])}"
    if isinstance(inner, dict):
        return f"a map of {_plural(inner)}"
    if said.get("type") == "array":
        return f"a list of {_plural(said.get('items', {}))}"
    kinds = {
        "string": "a text",
        "integer": "a whole number",
        "boolean": "`true` or `false`",
        "object": "a map",
    }
    return kinds[said["type"]]


def _plural(said: Mapping[str, Any]) -> str:
    """`[an instance](#…)` → `[instances](#…)`."""
    singular = _value(said).replace("delivery]", "deliverie]")
    return re.sub(r"^(\[?)an? (\w+)", r"\1\2s", singular)


def _small(title: str) -> str:
    return title[0].lower() + title[1:] if title.startswith(("A ", "An ")) else f"`{title}`"


def _anchor(title: str) -> str:
    """As the table of contents makes it (`markdown.extensions.toc.slugify`)."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def _catalogue() -> Iterator[str]:
    known = pipeline.shipped_catalogue()
    yield "## The catalogue\n"
    yield "`reconcile catalogue NAME` shows one of them with all that is known.\n"
    yield from _table(
        ("`api`", "Service", "Plan", "Parameters", "Protected"),
        [
            (
                f"`{api.api}`",
                f"`{api.service}`",
                f"`{api.plan}`",
                ", ".join(f"`{one}`" for one in api.parameters.get("properties", {})) or "none",
                "yes" if api.protect else "no",
            )
            for api in known.apis
        ],
    )
    yield from _table(
        ("`recipe`", "Destination", "From a key of", "For"),
        [
            (
                f"`{one.name}`",
                f"`{one.destination}`" if one.destination else "a name of your choice",
                ", ".join(f"`{service}`" for service in one.services),
                _cell(one.title),
            )
            for one in known.recipes
        ],
    )


# --- troubleshooting --------------------------------------------------------------------------------------

AREAS = {
    "spec": "In a spec",
    "input": "Values from outside",
    "catalogue": "Catalogue files of your own",
    "access": "Credentials",
    "platform": "The platform",
    "conflict": "Conflicts",
    "entitlement": "Entitlements",
    "plan": "Plans",
    "subaccount": "Subaccounts",
    "shard": "Shards",
    "safety": "Safety",
}
"""What stands before the slash of a code → heading."""


def troubleshooting() -> str:
    """Every code with its meaning, why it comes up, what to do, and a message that holds it."""
    return "\n".join(
        [
            WRITTEN + (HERE / "troubleshooting.head.md").read_text(encoding="utf-8"),
            *_known_errors(),
            *_codes(),
        ]
    )


def _known_errors() -> Iterator[str]:
    yield "## What brokers say\n"
    yield "Texts of SAP's services that the catalogue knows. Other texts are shown as they came.\n"
    errors: dict[KnownError, list[str]] = {}
    for api in pipeline.shipped_catalogue().apis:
        for error in api.errors:
            errors.setdefault(error, []).append(api.api)
    rows = [(f"`{one.match}`", _cell(one.meaning), _cell(one.hint), _consequence(one)) for one in errors]
    yield from _table(("The text holds", "Meaning", "What to do", "Then"), dict.fromkeys(rows))


def _consequence(error: KnownError) -> str:
    if error.gate:
        return "waits for a person (6)"
    return "is not tried again (1)" if error.final else "is tried again, once"


def _codes() -> Iterator[str]:
    told = entries()
    order = [
        *AREAS,
        *dict.fromkeys(code.partition("/")[0] for code in CODES if code.partition("/")[0] not in AREAS),
    ]
    for area in order:
        codes = [code for code in CODES if code.partition("/")[0] == area and code in told]
        if codes:
            yield f"## {AREAS.get(area, area.capitalize())}\n"
        for code in codes:
            yield from _code(code, told[code])


def _code(code: str, entry: Mapping[str, str]) -> Iterator[str]:
    meaning = CODES[code]
    warns = meaning.startswith("Warning: ")
    meaning = meaning.removeprefix("Warning: ")
    yield f"### {code} {{ #{_anchor(code.replace('/', '-'))} }}\n"
    yield f"{'*A warning.* ' if warns else ''}{_prose(meaning[0].upper() + meaning[1:])}\n"
    yield f"**Why.** {_prose(entry['why'])}\n"
    yield f"**What to do.** {_prose(entry['do'])}\n"
    yield f"``` {{ .text .message }}\n{example(code, entry).rstrip()}\n```\n"


def entries() -> dict[str, dict[str, str]]:
    """`codes.yaml`, code → `why`, `do`, and `case` or `example`."""
    found: dict[str, dict[str, str]] = yaml.safe_load((HERE / "codes.yaml").read_text(encoding="utf-8"))
    return found


def example(code: str, entry: Mapping[str, str]) -> str:
    """A message with this code: the first one of its case, or the one that stands in the entry."""
    if "example" in entry:
        return entry["example"]
    folder = CASES / entry["case"]
    for file in sorted(folder.glob("*.txt")):
        for message in messages(file.read_text(encoding="utf-8")):
            if message.endswith(f"[{code}]"):
                return message
    raise LookupError(f"{code}: no message in {entry['case']} holds it")


def messages(text: str) -> Iterator[str]:
    """The messages in a file of problems or in a plan, each without its common indentation."""
    lines = text.splitlines()
    for last, line in enumerate(lines):
        if not re.search(r"  \[[a-z]+/[a-z0-9-]+\]$", line):
            continue
        depth, first = _depth(line), last
        while first and lines[first - 1].strip() and _depth(lines[first - 1]) >= depth:
            first -= 1
        if first and depth and _depth(lines[first - 1]) == depth - 2 and re.match(_PLACE, lines[first - 1]):
            first -= 1
        block = lines[first : last + 1]
        less = min(map(_depth, block))
        yield "\n".join(one[less:] for one in block)


_PLACE = r" *(\S.*:\d+:\d+|[a-z]+:\S+)"
"""The first line of a message that has a place: file, line and column, or an address."""


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


# --- Markdown ---------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    yield "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Prose in a cell: references and words of the language set as code, bars escaped."""
    return _prose(text).replace("|", "\\|")


def _prose(text: str) -> str:
    """Text of the program as Markdown: `${…}`, `{…}` maps and `<…>` are set as code where they are not yet."""
    pieces = re.split(r"(`[^`]*`)", text)
    for place in range(0, len(pieces), 2):
        said = re.sub(r"\$\{[^}]*\}|\{(?:name|id|amount|org)[^}]*\}", r"`\g<0>`", pieces[place])
        pieces[place] = re.sub(r"\*(?=[ ,.;]|$)", r"\\*", said).replace("<", "&lt;")
    return "".join(pieces)


if __name__ == "__main__":
    main()
