"""Walks what was written along the language's schema: fields, types, names, references, literal secrets.

Every layer is walked once, before layers are merged. What is unusable is replaced by `WRONG` in the result, so
that later checks do not complain about it a second time.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import recipes, references, schema as words
from btp_reconcile.core.merge import WRONG, Node
from btp_reconcile.core.model import Address, Problem, Source
from btp_reconcile.core.suspicion import by_name, by_text, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from btp_reconcile.core.merge import Path

LATER: dict[str, tuple[str, ...]] = {
    "a subaccount": ("subscriptions",),
    "a template": ("subscriptions",),
    "a key": (
        "expires",
        "expires_in",
        "expires_after",
    ),
    "access": ("local",),
}
"""Words of the language whose time has not come. They stand in no schema, help or example."""

_ELSEWHERE: dict[tuple[str, str], str] = {
    ("an instance", "role"): "it belongs under parameters: `parameters: {role: …}`",
    ("an instance", "roles"): "write `parameters: {role: …}`; an instance has one role",
    ("an instance", "developerId"): "it belongs under parameters",
    ("an instance", "org"): "it belongs to the subaccount: `cloud_foundry: {org: …, space: …}`",
    ("an instance", "instances"): "instances stand beside one another, not in one another",
    (
        "an instance",
        "amount",
    ): "it belongs to the subaccount's entitlements: `entitlements: {SERVICE: {PLAN: {amount: …}}}`",
    ("a key", "xsuaa"): "it belongs under parameters: `parameters: {xsuaa: …}`",
    ("a key", "credential-type"): "write `parameters: {xsuaa: {credential-type: …}}`",
    ("a spec", "destinations"): "they belong to a subaccount, or to a template",
    ("a destination", "Type"): "it belongs under properties: `properties: {Type: …}`",
    ("a destination", "URL"): "it belongs under properties: `properties: {URL: …}`",
    ("a destination", "url"): "it belongs under properties: `properties: {URL: …}`",
    ("a destination", "Authentication"): "it belongs under properties",
    ("a destination", "keys"): "it takes from one key: `key: instance/key`",
    ("a subaccount", "org"): "it belongs under cloud_foundry",
    ("a subaccount", "space"): "it belongs under cloud_foundry",
    ("a subaccount", "landscape"): "it belongs under cloud_foundry",
    ("a subaccount", "api"): "an API's name stands in an instance; a Cloud Foundry URL under cloud_foundry",
    ("a subaccount", "runtime"): "it belongs to each instance, or to the spec's defaults",
    ("a subaccount", "name"): "the name is the key of this map; give the subaccount's ID as `id`",
    ("a subaccount", "keys"): "keys stand in their instance",
    ("a subaccount", "defaults"): "defaults stand at the top of the spec",
    ("a subaccount", "templates"): "templates stand at the top of the spec; name them here under `use`",
    ("a spec", "entitlements"): "they belong to a subaccount, or to a template",
    ("a spec", "instances"): "they belong to a subaccount, or to a template",
    ("a spec", "runtime"): "it belongs under defaults: `defaults: {runtime: …}`",
    ("a spec", "use"): "a subaccount uses templates; put it there",
    ("defaults", "space"): "it belongs to the subaccount, or to a template: `cloud_foundry: {space: …}`",
}


@dataclass
class Found:
    """What is wrong, each thing once: a mistake in a template is one mistake, however often it is used."""

    by_place: dict[tuple[str, str, Source], Problem] = field(default_factory=dict)

    def say(
        self,
        code: str,
        message: str,
        node: Node | Source,
        hint: str = "",
        address: Address | None = None,
        also: Iterable[Source] = (),
    ) -> None:
        place, more = (node, ()) if isinstance(node, Source) else (node.place, node.also)
        others = tuple(dict.fromkeys(one for one in (*more, *also) if one != place))
        known = self.by_place.get((code, message, place))
        if known:
            others = tuple(dict.fromkeys((*known.also, *others)))
            same = known.address == address
            problem = replace(known, also=others, address=address if same else None)
        else:
            problem = Problem(code, message, place, address, hint, others)
        self.by_place[(code, message, place)] = problem

    def all(self) -> tuple[Problem, ...]:
        """In the order of files, lines and columns."""
        return tuple(
            sorted(self.by_place.values(), key=lambda one: (one.source or Source(""), one.code, one.message))
        )


def near(word: str, right: Iterable[str], cutoff: float = 0.6) -> str:
    """The right word that was probably meant, or nothing."""
    small = {one.lower(): one for one in right}
    for close in difflib.get_close_matches(word.lower(), small, 1, cutoff):
        return small[close]
    return ""


def suggestion(word: str, right: Sequence[str], introduction: str = "one of") -> str:
    """What to write in place of a wrong word."""
    close = near(word, right)
    if close:
        return f"did you mean '{close}'?"
    return f"{introduction}: {', '.join(right)}" if right else ""


def address_of(path: Path) -> Address | None:
    """The address of what a path of a spec leads into."""
    if len(path) < 4 or path[0] != "subaccounts":
        return None
    parts = tuple(str(part) for part in path)
    if parts[2] == "instances":
        if len(parts) >= 6 and parts[4] == "keys":
            return Address("key", (parts[1], parts[3], parts[5]))
        return Address("instance", (parts[1], parts[3]))
    if parts[2] == "destinations":
        return Address("destination", (parts[1], parts[3]))
    if parts[2] == "entitlements" and len(parts) >= 5:
        return Address("entitlement", (parts[1], parts[3], parts[4]))
    return None


class Walker:
    """Walks nodes along one language. Collects what is wrong, and what is only suspicious."""

    def __init__(self, language: dict[str, Any], found: Found, warned: Found) -> None:
        self.language = language
        self.found = found
        self.warned = warned
        self.special: dict[str, Callable[[Node, Path], Node]] = {
            "name": self._name,
            "text": self._plain_text,
            "path": self._plain_text,
            "api": self._plain_text,
            "recipe": self._plain_text,
            "key_path": self._key_path,
            "destination_name": self._destination_name,
            "destination_properties": self._properties,
            "physical": self._physical,
            "referable": self._referable,
            "secret": self._secret,
            "guid": self._guid,
            "endpoint": self._endpoint,
            "landscape": self._landscape,
            "region": self._region,
            "duration": self._duration,
            "patience": self._patience,
            "parameters": self._parameters,
            "words": self._words,
            "free": lambda node, path: (
                node if isinstance(node.value, dict) else self._type(node, path, "a map")
            ),
        }

    def walk(self, node: Node, path: Path = (), schema: dict[str, Any] | None = None) -> Node:
        """The node with all that is unusable replaced by `WRONG`."""
        schema = self.language if schema is None else schema
        if node.value is None:
            return node
        reference = schema.get("$ref")
        if reference:
            name = reference.removeprefix("#/$defs/")
            if name in self.special:
                return self.special[name](node, path)
            schema = self.language["$defs"][name]
        if "anyOf" in schema:
            return self._either(node, path, schema)
        return self._typed(node, path, schema)

    def _typed(self, node: Node, path: Path, schema: dict[str, Any]) -> Node:
        wanted = schema.get("type", "boolean")
        value = node.value
        if wanted == "object" and isinstance(value, dict):
            return self._map(node, path, schema)
        if wanted == "array" and isinstance(value, list):
            return self._list(node, path, schema)
        if wanted == "boolean" and isinstance(value, bool):
            return self._enum(node, path, schema)
        if wanted == "integer" and isinstance(value, int) and not isinstance(value, bool):
            return self._least(node, path, schema)
        if wanted == "string":
            node = self._plain_text(node, path)
            return node if node.value is WRONG else self._enum(node, path, schema)
        return self._type(node, path, _DUE[wanted])

    def _either(self, node: Node, path: Path, schema: dict[str, Any]) -> Node:
        """The one alternative whose type fits; our alternatives never share a type."""
        for option in schema["anyOf"]:
            target = self.language["$defs"][option["$ref"][8:]] if "$ref" in option else option
            if target.get("const") is True and node.value is True:
                return node
            if _fits(node.value, target.get("type")):
                return self.walk(node, path, option)
        if node.value is False and any(option.get("const") is True for option in schema["anyOf"]):
            return self._wrong(
                "spec/amount",
                f"{label(path)} is false",
                node,
                path,
                "to take the plan away write `{ensure: absent}`; to leave it alone take this line away",
            )
        due = [_due(option) for option in schema["anyOf"]]
        return self._type(node, path, " or ".join(", ".join(due).rsplit(", ", 1)))

    def _map(self, node: Node, path: Path, schema: dict[str, Any]) -> Node:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        result: dict[str, Node] = {}
        for name, below in node.value.items():
            where = (*path, name)
            if name in properties:
                result[name] = self.walk(below, where, properties[name])
            elif isinstance(others, dict):
                if self._named(name, below, path, schema):
                    result[name] = self.walk(below, where, others)
            else:
                meant = self._unknown(name, below, path, schema)
                result.setdefault(meant or name, below._replace(value=WRONG))
        most = schema.get("maxProperties")
        if most and len(result) > most:
            return self._wrong(
                "spec/value", f"{label(path)} gives {' and '.join(result)}", node, path, "give one of them"
            )
        return node._replace(value=result)

    def _named(self, name: str, below: Node, path: Path, schema: dict[str, Any]) -> bool:
        """Is this key a name that may stand in a map of names?"""
        rule = schema.get("propertyNames", {}).get("$ref", "")
        key = below._replace(value=name, at=below.key)
        if rule.endswith("/name"):
            return self._name(key, (*path, name), what="the name").value is not WRONG
        if rule.endswith("/destination_name"):
            return self._destination_name(key, (*path, name), what="the name").value is not WRONG
        return self._plain_text(key, (*path, name)).value is not WRONG

    def _unknown(self, name: str, below: Node, path: Path, schema: dict[str, Any]) -> str:
        """Complain about a field that is none. Returns the field that was probably meant."""
        title = schema.get("title", "this map")
        right = tuple(schema["properties"])
        address = address_of((*path, name)) if len(path) > 3 else None
        if name in LATER.get(title, ()):
            self.found.say(
                "spec/not-in-this-version",
                f"'{name}' is not in this version",
                below.key,
                "take it away; only a later version knows this word",
                address,
            )
            return ""
        hint = _ELSEWHERE.get((title, name)) or suggestion(name, right, f"fields of {title}")
        self.found.say(
            "spec/unknown-field", f"{shown(name)} is no field of {title}", below.key, hint, address
        )
        return near(name, right)

    def _list(self, node: Node, path: Path, schema: dict[str, Any]) -> Node:
        items = []
        for index, below in enumerate(node.value):
            where = (*path, index)
            if below.value is None:
                items.append(self._type(below, where, "a text"))
            else:
                items.append(self.walk(below, where, schema["items"]))
        return node._replace(value=items)

    def _enum(self, node: Node, path: Path, schema: dict[str, Any]) -> Node:
        right = schema.get("enum")
        if right is None or node.value in right:
            return node
        if right == [True]:
            hint = "only true can stand here; to lift protection, write `protect: false` at the one instance that is meant"
        else:
            hint = suggestion(str(node.value), right)
        return self._wrong("spec/value", f"{label(path)} is {shown(node.value)}", node, path, hint)

    def _least(self, node: Node, path: Path, schema: dict[str, Any]) -> Node:
        if node.value < schema.get("minimum", node.value):
            return self._wrong(
                "spec/amount",
                f"{label(path)} is {node.value}, and an amount is at least 1",
                node,
                path,
                "to take the plan away write `{ensure: absent}`",
            )
        right = schema.get("enum")
        if right and node.value not in right:
            code, hint = "spec/value", f"one of: {', '.join(map(str, right))}"
            if label(path) == "version":
                code, hint = "spec/version", f"this program reads version {right[-1]}"
            return self._wrong(code, f"{label(path)} is {node.value}", node, path, hint)
        return node

    # --- texts -------------------------------------------------------------------------------------------

    def _text(self, node: Node, path: Path) -> bool:
        """Is it a usable text at all?"""
        value = node.value
        if not isinstance(value, str):
            self._type(node, path, "a text")
            return False
        if not value or (not value.isprintable() and not re.fullmatch(words.TEXT, value)):
            said = "is empty" if not value else "holds a line break or another control character"
            self._wrong("spec/value", f"{label(path)} {said}", node, path, "write a text on one line")
            return False
        return True

    def _plain_text(self, node: Node, path: Path) -> Node:
        """A text in which no reference may stand."""
        if not self._text(node, path):
            return node._replace(value=WRONG)
        if "${" in node.value:
            if references.found(node.value):
                return self._wrong(
                    "spec/reference-not-allowed",
                    f"{label(path)} cannot come from outside the spec",
                    node,
                    path,
                    "write the value itself; ${…} may stand in access, in parameters, in a subaccount's id, and "
                    "in cloud_foundry",
                )
            if self._malformed(node, path):
                return node._replace(value=WRONG)
            node = node._replace(value=references.unescaped(node.value))
        self._suspect(node, path)
        return node

    def _referable(self, node: Node, path: Path) -> Node:
        if not self._text(node, path) or self._malformed(node, path):
            return node._replace(value=WRONG)
        self._suspect(node, path)
        return node

    def _words(self, node: Node, path: Path) -> Node:
        """Any text, of several lines too."""
        return node if isinstance(node.value, str) and node.value else self._type(node, path, "a text")

    def _malformed(self, node: Node, path: Path) -> bool:
        bad = references.malformed(node.value)
        if bad and bad.startswith(("${key:", "${key#")):
            self._wrong(
                "spec/reference",
                f"{label(path)} holds {shown(bad)}, which is no reference here",
                node,
                path,
                "what a key holds can stand in a destination's properties only, as ${key:instance/key#url}",
            )
        elif bad:
            inner = bad.strip("${} ")
            write = (
                "${env:" + inner + "}" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", inner) else "${env:NAME}"
            )
            self._wrong(
                "spec/reference",
                f"{label(path)} holds {bad[:60]}, which is no reference",
                node,
                path,
                f"write {write} or ${{file:path}}; a literal ${{ is written $${{",
            )
        return bool(bad)

    def _suspect(self, node: Node, path: Path) -> None:
        """Warn of a text that looks like a secret, without showing it."""
        value = node.value
        if references.found(value):
            return
        kind = by_text(value)
        if not kind and path and isinstance(path[-1], str) and by_name(path[-1]) and "parameters" in path:
            kind = "a secret, by its name"
        if kind:
            self.warned.say(
                "spec/looks-secret",
                f"{label(path)} looks like {kind}",
                node,
                "if it is one, put it into a variable and write ${env:NAME}, and change it: it has been written down",
                address_of(path),
            )

    def _name(self, node: Node, path: Path, what: str = "") -> Node:
        called = what or label(path)
        if not isinstance(node.value, str):
            return self._type(node, path, "a text")
        if re.fullmatch(words.NAME, node.value):
            return node
        if references.found(node.value):
            return self._plain_text(node, path)
        fixed = re.sub(r"[^a-z0-9._-]+", "-", node.value.lower()).strip("._-")[:63]
        return self._wrong(
            "spec/name",
            f"{called} is {shown(node.value)}",
            node,
            path,
            "small letters and digits, with . _ - between them, at most 63"
            + (
                f": for instance {fixed}" if re.fullmatch(words.NAME, fixed) and len(node.value) < 100 else ""
            ),
        )

    def _destination_name(self, node: Node, path: Path, what: str = "") -> Node:
        if isinstance(node.value, str) and re.fullmatch(words.DESTINATION, node.value):
            return node
        if not isinstance(node.value, str):
            return self._type(node, path, "a text")
        return self._wrong(
            "spec/name",
            f"{what or label(path)} is {shown(node.value)}",
            node,
            path,
            "a destination's name has letters, digits and . _ - and begins with a letter or digit; at most 200",
        )

    def _key_path(self, node: Node, path: Path) -> Node:
        if isinstance(node.value, str) and re.fullmatch(recipes.KEY_PATH, node.value):
            return node
        if not isinstance(node.value, str):
            return self._type(node, path, "a text")
        return self._wrong(
            "spec/key-path",
            f"{label(path)} is {shown(node.value)}",
            node,
            path,
            "name the instance and its key: `instance/key`, or `subaccount/instance/key` if it is of another one",
        )

    def _properties(self, node: Node, path: Path) -> Node:
        """A destination's properties: all of them texts, with references in them."""
        if not isinstance(node.value, dict):
            return self._type(node, path, "a map")
        result = {}
        for name, below in node.value.items():
            where = (*path, name)
            wrong = _no_property(name)
            if wrong:
                said, hint = wrong
                self._wrong("spec/property", said, below._replace(at=below.key, value=name), path, hint)
            else:
                result[name] = below if below.value is None else self._property(below, where)
        return node._replace(value=result)

    def _property(self, node: Node, path: Path) -> Node:
        name = str(path[-1])
        if not self._text(node, path):
            return node._replace(value=WRONG)
        rest = node._replace(value=recipes.without(node.value))
        bad = references.malformed(rest.value)
        if bad and bad.startswith(("${key:", "${key#")):
            return self._wrong(
                "spec/reference",
                f"{label(path)} holds {shown(bad)}, which is no reference",
                node,
                path,
                "write ${key:instance/key#FIELD}; fields are url, token_url, client_id, client_secret, …, or a "
                "dotted path in the key's JSON",
            )
        if self._malformed(rest, path):
            return node._replace(value=WRONG)
        if recipes.secret_name(name) and recipes.fixed(node.value):
            return self._wrong(
                "spec/literal-secret",
                f"{label(path)} holds a value of its own",
                node,
                path,
                "a secret never stands in a spec: write ${key:instance/key#client_secret} or ${env:NAME}, and "
                "change the secret if it was real",
            )
        if recipes.fixed(node.value):
            self._suspect(node, path)
        if name == "tokenServiceURL" and re.search(
            r"#(cert_)?token_url\}\s*/oauth/token|/oauth/token/+oauth/token", node.value
        ):
            return self._wrong(
                "spec/token-url",
                f"{label(path)} would end in /oauth/token twice",
                node,
                path,
                "token_url is whole already: write ${key:instance/key#token_url} alone",
            )
        return node

    def _physical(self, node: Node, path: Path) -> Node:
        node = self._plain_text(node, path)
        if node.value is WRONG:
            return node
        if node.value != node.value.strip():
            return self._wrong(
                "spec/value", f"{label(path)} starts or ends with a blank", node, path, "take the blank away"
            )
        if len(node.value) > 255:
            return self._wrong(
                "spec/value", f"{label(path)} has {len(node.value)} characters", node, path, "at most 255"
            )
        return node

    def _secret(self, node: Node, path: Path) -> Node:
        value = node.value
        if isinstance(value, str) and references.whole(value) and not references.malformed(value):
            return node
        if (
            isinstance(value, str)
            and value.startswith("${")
            and "}" not in value[:-1]
            and self._malformed(node, path)
        ):
            return node._replace(value=WRONG)
        return self._wrong(
            "spec/literal-secret",
            f"{label(path)} holds a value of its own",
            node,
            path,
            "a secret never stands in a spec: write ${env:NAME} or ${file:path}, and change the secret if it was real",
        )

    def _guid(self, node: Node, path: Path) -> Node:
        if isinstance(node.value, str):
            node = self._referable(node, path)
        value = node.value
        if value is WRONG or (
            isinstance(value, str) and (references.found(value) or re.fullmatch(words.GUID, value))
        ):
            return node
        return self._wrong(
            "spec/guid",
            f"{label(path)} is {_a(value)}, and that is no ID of a subaccount",
            node,
            path,
            "it looks like 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10; the cockpit shows it on the subaccount's overview",
        )

    def _endpoint(self, node: Node, path: Path) -> Node:
        node = self._referable(node, path)
        if node.value is WRONG or references.found(node.value) or re.fullmatch(words.ENDPOINT, node.value):
            return node
        return self._wrong(
            "spec/url",
            f"{label(path)} is {shown(node.value)}",
            node,
            path,
            "write the API's URL without a path, like https://api.cf.eu10-004.hana.ondemand.com",
        )

    def _landscape(self, node: Node, path: Path) -> Node:
        node = self._referable(node, path)
        if node.value is WRONG or references.found(node.value):
            return node
        return self._region(node, path)

    def _region(self, node: Node, path: Path) -> Node:
        node = self._plain_text(node, path)
        if node.value is WRONG or re.fullmatch(words.REGION, node.value):
            return node
        technical = re.sub(r"^cf-", "", node.value.lower())
        known = f"did you mean '{technical}'?" if re.fullmatch(words.REGION, technical) else ""
        return self._wrong(
            "spec/region",
            f"{label(path)} is {shown(node.value)}",
            node,
            path,
            known or "write the technical name, like eu10, us10 or eu10-004",
        )

    def _duration(self, node: Node, path: Path) -> Node:
        value = node.value
        if isinstance(value, str) and re.fullmatch(words.DURATION, value):
            if len(value) < 8:
                return node
            return self._wrong(
                "spec/duration", f"{label(path)} is {shown(value)}", node, path, "nothing is kept that long"
            )
        said = (
            f"{label(path)} is {shown(value)}"
            if not isinstance(value, dict | list)
            else f"{label(path)} is no duration"
        )
        return self._wrong("spec/duration", said, node, path, "a number and m, h, d or w: 30m, 12h, 7d, 4w")

    def _patience(self, node: Node, path: Path) -> Node:
        value = node.value
        if isinstance(value, str) and re.fullmatch(words.PATIENCE, value):
            return node
        said = (
            f"{label(path)} is no duration"
            if isinstance(value, dict | list)
            else f"{label(path)} is {shown(value)}"
        )
        return self._wrong("spec/duration", said, node, path, "a number above 0 and s, m or h: 5s, 30s, 2m")

    # --- free values -------------------------------------------------------------------------------------

    def _parameters(self, node: Node, path: Path) -> Node:
        """Any JSON map; references may stand in its texts."""
        if not isinstance(node.value, dict):
            return self._type(node, path, "a map")
        return self._free(node, path)

    def _free(self, node: Node, path: Path) -> Node:
        value = node.value
        if isinstance(value, dict):
            result = {}
            for name, below in value.items():
                if "${" in name:
                    self._wrong(
                        "spec/reference-not-allowed",
                        f"the name {shown(name)} cannot come from outside the spec",
                        below._replace(at=below.key, value=name),
                        path,
                        "write the name itself; ${…} may stand in the value",
                    )
                    continue
                result[name] = self._free(below, (*path, name))
            return node._replace(value=result)
        if isinstance(value, list):
            return node._replace(
                value=[self._free(below, (*path, index)) for index, below in enumerate(value)]
            )
        if isinstance(value, str):
            if self._malformed(node, path):
                return node._replace(value=WRONG)
            self._suspect(node, path)
        return node

    # --- words -------------------------------------------------------------------------------------------

    def _type(self, node: Node, path: Path, due: str) -> Node:
        value = node.value
        if due == "a text" and isinstance(value, bool | int | float):
            said = "true or false" if isinstance(value, bool) else "a number"
            return self._wrong(
                "spec/quote-it",
                f"{label(path)} is read as {said} ({shown(value)}), and a text is due",
                node,
                path,
                'quote it: put "…" around it',
            )
        return self._wrong(
            "spec/type",
            f"{label(path)} is {_a(value)}, and {due} is due",
            node,
            path,
            _fix(value, due, path),
        )

    def _wrong(self, code: str, message: str, node: Node, path: Path, hint: str) -> Node:
        self.found.say(code, message, node, hint, address_of(path))
        return node._replace(value=WRONG)


_PROPERTIES = {name.lower(): name for name in recipes.KNOWN}


def _no_property(name: str) -> tuple[str, str] | None:
    """Why a destination cannot have a property of this name, and what to write instead."""
    right = _PROPERTIES.get(name.lower())
    if name.lower() == "name":
        return (
            "a destination's name is no property of it",
            "the key of the map is the name; `name: …` beside `properties` gives another one",
        )
    if name.startswith(recipes.OURS):
        return f"{shown(name)} is written by this program itself", "take it away"
    if right and right != name:
        return f"{shown(name)} is not how this property is spelt, and case counts", f"write {right}"
    if "${" in name or not name.isprintable() or name != name.strip() or not name:
        return f"{shown(name)} cannot be the name of a property", "write the name itself, like URL.headers.x"
    return None


_DUE = {
    "object": "a map",
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "string": "a text",
}


def _due(option: dict[str, Any]) -> str:
    if option.get("const") is True:
        return "true"
    return _DUE[option.get("type", "string")]


def _fits(value: Any, wanted: str | None) -> bool:
    if wanted == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    types: dict[str | None, type] = {"object": dict, "array": list, "boolean": bool, "string": str}
    return wanted in types and isinstance(value, types[wanted])


def _a(value: Any) -> str:
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    return f"the text {shown(value)}" if isinstance(value, str) else shown(value)


def _fix(value: Any, due: str, path: Path) -> str:
    if value is None:
        return "take it away, or write what is meant"
    if due == "a map" and isinstance(value, list):
        return "things have names here: write `name: …` in place of `- …`"
    if due == "a list" and isinstance(value, str):
        return f"put brackets around it: [{value}]" if len(value) < 40 else "put [ ] around it"
    if (
        due == "true or false"
        and isinstance(value, str)
        and value.lower() in {"yes", "no", "on", "off", "y", "n"}
    ):
        return f"write {'true' if value.lower() in {'yes', 'on', 'y'} else 'false'}; only true and false are read as such"
    if due == "a map" and len(path) > 1 and path[-2] == "entitlements":
        return f"name the plan: `{path[-1]}: {{PLAN: true}}`"
    if due.startswith("true, a whole number"):
        return "write true, an amount like 4, or {amount: 4}"
    if due == "a whole number" and isinstance(value, str) and value.isdigit():
        return f"write {value} without quotes"
    if due == "a map" and path and path[0] != "access":
        return "write what belongs to it below, indented, or {} for nothing"
    return ""


def label(path: Path) -> str:
    """What a reader calls the place: the field, with its position in a list."""
    if isinstance(path[-1], int):
        return f"{path[-2]}[{path[-1]}]"
    return path[-1] if len(path[-1]) <= 60 else path[-1][:60] + "…"
