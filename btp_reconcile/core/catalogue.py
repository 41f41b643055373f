"""What we know of single APIs: which service and plan, which parameters, how a key looks, what errors mean; and recipes.

All of it is data in `catalogue/*.yaml` and in a user's own files; another API is another file and no code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import merge, recipes as recipes_
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
class Elsewhere:
    """What differs for a recipe when the key is of another subaccount than the destination."""

    own: Mapping[str, str] = field(default_factory=dict)
    """Properties that a spec must give itself → where to take them from."""
    longest_name: int = 200


@dataclass(frozen=True)
class Recipe:
    """How a destination is built from a key."""

    name: str
    title: str
    services: tuple[str, ...]
    """Services whose keys it is for."""
    properties: Mapping[str, str]
    """Texts in which `${key#field}` stands for a field of the key, see `core/recipes.py`."""
    destination: str = ""
    """The only name its consumer looks for; empty: any."""
    longest_name: int = 200
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameters that the key's instance must have."""
    no_certificate: str = ""
    """Why a key with a certificate does not do; empty: it does."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Properties that only a spec can give → what they are."""
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    once: str = ""
    """Why there must not be two for keys of one instance; empty: there may be."""
    key_shape: KeyShape | None = None
    """Of keys of a service that is no API of the catalogue."""
    notes: tuple[str, ...] = ()
    source: Source | None = None


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
    at_once: int = 0
    """So many requests at once, at most, that the API's host takes from one client; 0: no limit is known."""
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
    recipes: tuple[Recipe, ...] = ()

    def recipe(self, name: str) -> Recipe | None:
        """The recipe of that name."""
        return next((one for one in self.recipes if one.name == name), None)

    def shape_of(self, service: str, plan: str) -> KeyShape | None:
        """How keys of this service and plan look; None when nobody has said."""
        api = self.offered(service, plan)
        if api is not None:
            return api.key_shape
        return next((one.key_shape for one in self.recipes if service in one.services), None)

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


_KEY_SHAPE = _closed(
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
)

_RECIPE = _closed(
    "a recipe",
    {
        "title": _text(),
        "services": _TEXTS,
        "destination": _text(),
        "longest_name": {"type": "integer", "minimum": 1},
        "parameters": _WORD_MAP,
        "no_certificate": _text(),
        "properties": _WORD_MAP,
        "own": _WORD_MAP,
        "elsewhere": _closed(
            "elsewhere", {"own": _WORD_MAP, "longest_name": {"type": "integer", "minimum": 1}}
        ),
        "once": _text(),
        "key_shape": _KEY_SHAPE,
        "notes": _TEXTS,
    },
)

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
            "key_shape": _KEY_SHAPE,
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
            "at_once": {"type": "integer", "minimum": 1},
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
            "recipes": {
                "type": "object",
                "propertyNames": {"$ref": "#/$defs/name"},
                "additionalProperties": _RECIPE,
            },
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
    found, apis, recipes = Found(), {}, {}
    for document in documents:
        walker = Walker(SCHEMA, found, Found())
        before = len(found.by_place)
        node = walker.walk(merge.nodes(document))
        top = Source(document.file)
        alone = node.get("recipes") is not None and not node.value.keys() - {"recipes", "notes"}
        for name in () if alone else _REQUIRED:
            if node.value.get(name) is None or node.value[name].gone:
                found.say("catalogue/missing", f"a catalogue file needs '{name}'", top, f"add `{name}: …`")
        _inner(node, found)
        if len(found.by_place) == before:
            data = merge.plain(node)
            if not alone:
                apis[data["api"]] = _api(data, node.value["api"].key)
            for name, said in data.get("recipes", {}).items():
                recipes[name] = _recipe(name, said, node.value["recipes"].value[name].key)
    problems = found.all()
    if problems:
        raise SpecError(problems)
    return Catalogue(
        tuple(apis[name] for name in sorted(apis)), tuple(recipes[name] for name in sorted(recipes))
    )


def _inner(node: merge.Node, found: Found) -> None:
    """What must stand in the parts, and what must fit together."""
    for part, needed in (("errors", ("match", "meaning")),):
        listed = node.get(part)
        for item in listed.value if listed and isinstance(listed.value, list) else ():
            for name in needed:
                if isinstance(item.value, dict) and item.get(name) is None:
                    found.say("catalogue/missing", f"a known error needs '{name}'", item, f"add `{name}: …`")
    for recipe, below in (node.get("recipes") or merge.Node({}, Source(""), Source(""))).items():
        if not isinstance(below.value, dict):
            continue
        for name in ("title", "services", "properties"):
            if below.get(name) is None:
                message = f"recipe '{recipe}' needs '{name}'"
                found.say("catalogue/missing", message, below, f"add `{name}: …`")
        for name, text in (below.get("properties") or merge.Node({}, Source(""), Source(""))).items():
            if isinstance(text.value, str) and "${" in recipes_.without(text.value).replace("$${", ""):
                found.say(
                    "catalogue/recipe",
                    f"'{name}' of recipe '{recipe}' holds what is no reference to a key",
                    text,
                    "write ${key#url}, ${key#client_id} and the like; a literal ${ is written $${",
                )
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


def _recipe(name: str, data: dict[str, Any], source: Source) -> Recipe:
    facts = {**data, "services": tuple(data["services"]), "notes": tuple(data.get("notes", ()))}
    if "key_shape" in data:
        facts["key_shape"] = KeyShape(**data["key_shape"])
    return Recipe(**{**facts, "elsewhere": Elsewhere(**data.get("elsewhere", {}))}, name=name, source=source)


def _api(data: dict[str, Any], source: Source) -> Api:
    simple = ("api", "title", "service", "plan", "live_category", "protect", "help", "parameters", "at_once")
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
