"""What we know of single APIs: which service and plan, which parameters, how a key looks, what errors mean.

All of it is data in `catalogue/*.yaml` and in a user's own files; another API is another file and no code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import merge
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Source
from btp_reconcile.core.shape import Found, Walker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.core.merge import Document


@dataclass(frozen=True)
class KnownError:
    """What a broker's text means. `final`: another try cannot help. `gate`: a person must act first."""

    match: str
    meaning: str
    hint: str = ""
    final: bool = False
    gate: bool = False


@dataclass(frozen=True)
class Verify:
    """One harmless request that proves a key. Without a path the token alone is the proof."""

    roles: tuple[str, ...] = ()
    """Values of the parameter `role` it is for; empty: for all."""
    url: str = "api"
    """Which of the key's URLs, see `KeyShape.urls`."""
    path: str = ""
    """Appended to that URL; begins with a slash."""
    accept: str = "application/json"
    status: int = 200


@dataclass(frozen=True)
class KeyShape:
    """Where a key's JSON holds what. Values are dotted paths in it."""

    urls: Mapping[str, str] = field(default_factory=dict)
    """name → path of a base URL; the main one is called `api` unless there are several."""
    token_url: str = ""
    append_token_path: bool = False
    """True: `token_url` names a host, and `/oauth/token` must be appended (only if it is not there yet)."""
    client_id: str = ""
    client_secret: str = ""
    certificate: str = ""
    private_key: str = ""
    cert_token_url: str = ""
    """Host for tokens by certificate; `/oauth/token` must be appended."""


@dataclass(frozen=True)
class Api:
    """One API of the catalogue."""

    api: str
    title: str
    service: str
    plan: str
    live_category: str = ""
    """The Entitlements API's category; empty when it is not established. The live one always counts."""
    regions: tuple[str, ...] = ()
    """Where it is known to be offered; empty: not known. Not being among them is a warning, never an error."""
    protect: bool = False
    help: str = ""
    """Name of the page of the vendor's documentation."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of the instance's parameters; empty: nothing is known of them."""
    replace_on: tuple[str, ...] = ()
    """Parameters whose change makes a new instance."""
    key_parameters: Mapping[str, Any] = field(default_factory=dict)
    key_shape: KeyShape = field(default_factory=KeyShape)
    verify: tuple[Verify, ...] = ()
    errors: tuple[KnownError, ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)
    """Wrong values and parameter names that are often written → the right ones."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Values that are never accepted → why, and what to write."""
    consumers: tuple[str, ...] = ()
    """What the key is used for."""
    notes: tuple[str, ...] = ()
    source: Source | None = None

    @cached_property
    def known_values(self) -> Mapping[str, Sequence[str]]:
        """Parameter → the values it can have, where the schema lists them."""
        properties: Mapping[str, Any] = self.parameters.get("properties", {})
        return {name: said["enum"] for name, said in properties.items() if "enum" in said}


@dataclass(frozen=True)
class Catalogue:
    """All APIs that are known, a user's own included."""

    apis: tuple[Api, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[str, Api]:
        return {api.api: api for api in self.apis}

    @cached_property
    def by_plan(self) -> Mapping[tuple[str, str], Api]:
        return {(api.service, api.plan): api for api in self.apis}

    def named(self, name: str) -> Api | None:
        """The API of that name."""
        return self.by_name.get(name)

    def offered(self, service: str, plan: str) -> Api | None:
        """The API that stands for this service and plan."""
        return self.by_plan.get((service, plan))

    def known_error(self, service: str, plan: str, text: str) -> KnownError | None:
        """What a broker's text means, if the catalogue knows it. The first that fits holds."""
        api = self.offered(service, plan)
        said = " ".join(text.lower().split())
        for error in api.errors if api else ():
            if " ".join(error.match.lower().split()) in said:
                return error
        return None


def _text(description: str = "") -> dict[str, Any]:
    return {"$ref": "#/$defs/words", "description": description}


_TEXTS = {"type": "array", "items": {"$ref": "#/$defs/words"}}
_FREE = {"$ref": "#/$defs/free"}
_WORD_MAP = {"type": "object", "additionalProperties": {"$ref": "#/$defs/words"}}


def _closed(title: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "type": "object", "additionalProperties": False, "properties": properties}


SCHEMA: dict[str, Any] = {
    **_closed(
        "a catalogue file",
        {
            "api": {"$ref": "#/$defs/name"},
            "title": _text(),
            "service": {"$ref": "#/$defs/text"},
            "plan": {"$ref": "#/$defs/text"},
            "live_category": {
                "type": "string",
                "enum": [
                    "SERVICE",
                    "ELASTIC_SERVICE",
                    "ELASTIC_LIMITED",
                    "APPLICATION",
                    "QUOTA_BASED_APPLICATION",
                    "PLATFORM",
                    "ENVIRONMENT",
                ],
            },
            "regions": {"type": "array", "items": {"$ref": "#/$defs/region"}},
            "protect": {"type": "boolean"},
            "help": _text(),
            "parameters": _FREE,
            "replace_on": _TEXTS,
            "key_parameters": _FREE,
            "key_shape": _closed(
                "key_shape",
                {
                    "urls": _WORD_MAP,
                    "token_url": _text(),
                    "append_token_path": {"type": "boolean"},
                    "client_id": _text(),
                    "client_secret": _text(),
                    "certificate": _text(),
                    "private_key": _text(),
                    "cert_token_url": _text(),
                },
            ),
            "verify": {
                "type": "array",
                "items": _closed(
                    "a request of verify",
                    {
                        "roles": _TEXTS,
                        "url": _text(),
                        "path": _text(),
                        "accept": _text(),
                        "status": {"type": "integer", "minimum": 100},
                    },
                ),
            },
            "errors": {
                "type": "array",
                "items": _closed(
                    "a known error",
                    {
                        "match": _text(),
                        "meaning": _text(),
                        "hint": _text(),
                        "final": {"type": "boolean"},
                        "gate": {"type": "boolean"},
                    },
                ),
            },
            "spelling": _WORD_MAP,
            "refused": _WORD_MAP,
            "consumers": _TEXTS,
            "notes": _TEXTS,
        },
    ),
    "$defs": {"name": {}, "text": {}, "region": {}, "words": {}, "free": {}},
}
"""The shape of one catalogue file, in the same words as the language of specs."""

_REQUIRED = ("api", "title", "service", "plan")


def build(documents: Sequence[Document]) -> Catalogue:
    """Catalogue files as a catalogue; a later file of the same name replaces an earlier one.

    Raises SpecError with every problem.
    """
    found, apis = Found(), {}
    for document in documents:
        walker = Walker(SCHEMA, found, Found())
        before = len(found.by_place)
        node = walker.walk(merge.nodes(document))
        top = Source(document.file)
        for name in _REQUIRED:
            if node.value.get(name) is None or node.value[name].gone:
                found.say("catalogue/missing", f"a catalogue file needs '{name}'", top, f"add `{name}: …`")
        _inner(node, found)
        if len(found.by_place) == before:
            data = merge.plain(node)
            apis[data["api"]] = _api(data, node.value["api"].key)
    problems = found.all()
    if problems:
        raise SpecError(problems)
    return Catalogue(tuple(apis[name] for name in sorted(apis)))


def _inner(node: merge.Node, found: Found) -> None:
    """What must stand in the parts, and what must fit together."""
    for part, needed in (("errors", ("match", "meaning")),):
        listed = node.get(part)
        for item in listed.value if listed and isinstance(listed.value, list) else ():
            for name in needed:
                if isinstance(item.value, dict) and item.get(name) is None:
                    found.say("catalogue/missing", f"a known error needs '{name}'", item, f"add `{name}: …`")
    urls = node.get("key_shape", "urls")
    requests = node.get("verify")
    for item in requests.value if requests and isinstance(requests.value, list) else ():
        url = item.get("url")
        if url and urls and isinstance(url.value, str) and url.value not in urls.value:
            found.say(
                "catalogue/unknown-url",
                f"'{url.value}' is none of the key's URLs",
                url,
                f"one of: {', '.join(urls.value)}",
            )


def _api(data: dict[str, Any], source: Source) -> Api:
    simple = ("api", "title", "service", "plan", "live_category", "protect", "help", "parameters")
    lists = ("regions", "replace_on", "consumers", "notes")
    maps = ("key_parameters", "spelling", "refused")
    facts: dict[str, Any] = {name: data[name] for name in (*simple, *maps) if name in data}
    facts |= {name: tuple(data[name]) for name in lists if name in data}
    return Api(
        **facts,
        key_shape=KeyShape(**data.get("key_shape", {})),
        verify=tuple(
            Verify(**{**item, "roles": tuple(item.get("roles", ()))}) for item in data.get("verify", ())
        ),
        errors=tuple(KnownError(**item) for item in data.get("errors", ())),
        source=source,
    )
