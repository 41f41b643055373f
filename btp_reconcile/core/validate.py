"""Documents → specs, or every problem at once. The only place that knows jsonschema.

Each layer's shape is checked once where it is written (`shape`); then layers are merged and the sum is checked
(`whole`), parameters against the catalogue (here), and all specs together (`across`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from re import search
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import across, deliveries, destinations, merge, references, schema as words
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.merge import WRONG, Document, Node, Path
from btp_reconcile.core.model import Address, Problem, Source
from btp_reconcile.core.shape import Found, Walker, label, near
from btp_reconcile.core.suspicion import shown
from btp_reconcile.core.whole import Reader, Spec, Whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from btp_reconcile.core.catalogue import Api, Catalogue
    from btp_reconcile.core.kind import Kind
    from btp_reconcile.core.sink import Sink

__all__ = ["Checked", "Spec", "check"]


@dataclass(frozen=True)
class Checked:
    """What can be worked with, and what is only suspicious."""

    specs: tuple[Spec, ...]
    warnings: tuple[Problem, ...] = ()


def check(
    documents: Sequence[Document], kinds: Sequence[Kind], catalogue: Catalogue, sinks: Sequence[Sink] = ()
) -> Checked:
    """The specs that documents hold. Raises SpecError with every problem, in the order of the files.

    `sinks` know which two deliveries go to one place.
    """
    found, warned = Found(), Found()
    walker = Walker(words.language(kinds), found, warned)
    objections = next((kind.objections for kind in kinds if kind.name == "delivery"), lambda *_: ())
    reader = Reader(walker, catalogue, _Parameters(found), found, warned, objections)
    parts = [Whole(reader, document) for document in documents if not _a_catalogue(document, found)]
    specs = tuple(part.spec() for part in parts)
    declared = [part.declared for part in parts]
    across.check(declared, found)
    destinations.check(declared, catalogue, found, warned)
    deliveries.check(specs, sinks, objections, found)
    if found.by_place:
        raise SpecError(found.all())
    return Checked(specs, warned.all())


def _a_catalogue(document: Document, found: Found) -> bool:
    """Say so, once, if a catalogue file was taken for a spec because it stands among specs."""
    data = document.data
    if (
        "version" in data
        or "subaccounts" in data
        or not ({"api", "service"} <= set(data) or "recipes" in data)
    ):
        return False
    found.say(
        "spec/catalogue-file",
        "this is a catalogue file and no spec",
        Source(document.file),
        "let its name start with _, so that it is not loaded as a spec, and name it under `catalogue` in one",
    )
    return True


class _Parameters:
    """Checks parameters against the catalogue's schemas. Each schema is compiled once, each value judged once."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.validators: dict[int, Any] = {}
        self.judged: dict[tuple[int, str], list[_Complaint]] = {}

    def check(
        self, node: Node | None, owner: Node, api: Api, schema: Mapping[str, Any], address: Address
    ) -> None:
        """Say what is wrong with these parameters, at the place of each."""
        if not schema or (node and node.value is WRONG):
            return
        value = merge.plain(node) if node else {}
        try:
            text = json.dumps(value, sort_keys=True, ensure_ascii=False)
        except TypeError:  # a part is WRONG, and has been complained about
            return
        if (id(schema), text) not in self.judged:
            self.judged[(id(schema), text)] = self._judge(value, api, schema)
        for one in self.judged[(id(schema), text)]:
            place = _at(node, one.path) if node else owner
            self.found.say(
                one.code, one.message, place.key if one.at_key else place, one.hint, address, place.also
            )

    def _judge(self, value: Any, api: Api, schema: Mapping[str, Any]) -> list[_Complaint]:
        validator = self._validator(schema, api)
        if validator is None:
            return []
        try:
            errors = sorted(
                validator.iter_errors(value), key=lambda error: [str(part) for part in error.absolute_path]
            )
        except Exception as error:  # noqa: BLE001 - whatever a user's own schema provokes, it is the schema's fault
            self._broken(api, type(error).__name__)
            return []
        complaints = [one for error in errors for one in _complaints(error, api, schema)]
        return list({(one.path, one.message): one for one in complaints}.values())

    def _validator(self, schema: Mapping[str, Any], api: Api) -> Any:
        if id(schema) not in self.validators:
            from jsonschema import Draft202012Validator
            from jsonschema.exceptions import SchemaError
            from referencing import Registry

            self.validators[id(schema)] = None
            try:
                Draft202012Validator.check_schema(schema)
                # An empty registry: a $ref into the network is refused, never fetched.
                self.validators[id(schema)] = Draft202012Validator(schema, registry=Registry())
            except SchemaError as error:
                self._broken(api, error.message)
        return self.validators[id(schema)]

    def _broken(self, api: Api, said: str) -> None:
        self.found.say(
            "catalogue/schema",
            f"the parameters of {api.api} are described by what is no JSON Schema: {said[:200]}",
            api.source or Source("catalogue"),
            "correct `parameters` or `key_parameters` in this catalogue file",
        )


@dataclass(frozen=True)
class _Complaint:
    """What is wrong with one parameter."""

    path: Path
    message: str
    hint: str
    code: str = "spec/parameter"
    at_key: bool = False


def _at(node: Node, path: Path) -> Node:
    """The node at a path, or the nearest one around it."""
    for part in path:
        value = node.value
        if isinstance(value, dict) and part in value:
            node = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            node = value[part]
        else:
            break
    return node


def _complaints(error: Any, api: Api, schema: Mapping[str, Any]) -> Iterator[_Complaint]:
    """One finding of jsonschema in words for people. Never shows more of a value than `shown` allows."""
    path: Path = tuple(error.absolute_path)
    called = label(path) if path else "parameters"
    value, rule = error.instance, error.validator
    if isinstance(value, str) and references.found(value):
        return
    here = error.schema if isinstance(error.schema, dict) else {}
    described = str(here.get("description") or "")
    if rule in {"enum", "const"}:
        if here.get("type") == "string" and not isinstance(value, str):
            return  # its type is complained about already
        right = [str(one) for one in (error.validator_value if rule == "enum" else [error.validator_value])]
        yield _Complaint(path, *_wrong_value(called, value, right, api))
    elif rule == "additionalProperties":
        for name in _unexpected(value, here):
            yield _unknown_parameter((*path, name), value[name], here, api)
    elif rule == "required":
        for name in error.validator_value:
            if name not in value:
                told = _described(schema, name)
                yield _Complaint(path, f"'{name}' is missing{_because(value)}", told or f"add `{name}: …`")
    elif rule == "type":
        yield _wrong_type(path, called, value, error.validator_value, described)
    elif rule is None:  # a schema `false`: jsonschema says only which map it stands in
        yield _Complaint(
            path,
            f"{called} holds something that {api.api} never takes",
            "look into the catalogue file",
            at_key=True,
        )
    elif rule == "not":
        message = f"'{called}' does not go with the rest of this map"
        yield _Complaint(path, message, described or "take it away", at_key=True)
    else:
        must = (
            "it must not be empty"
            if value == ""
            else f"it must be {_RULES.get(rule, f'as {rule} says:')} {str(error.validator_value)[:80]}"
        )
        message = f"{called} is {_type_of(value)}, which {api.api} does not take"
        yield _Complaint(path, message, f"{must}; {described}" if described else must)


def _unexpected(value: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """The names in a map that its schema does not speak of."""
    patterns = schema.get("patternProperties", {})
    right = schema.get("properties", {})
    return [name for name in value if name not in right and not any(search(one, name) for one in patterns)]


def _wrong_type(path: Path, called: str, value: Any, right: Any, described: str) -> _Complaint:
    due = [right] if isinstance(right, str) else list(right)
    words_due = " or ".join(_TYPES.get(one, one) for one in due)
    message = f"{called} is {_type_of(value)}, and {words_due} is due"
    if "string" in due and isinstance(value, bool | int | float):
        return _Complaint(path, message, 'quote it: put "…" around it', "spec/quote-it")
    if due == ["string"] and isinstance(value, list):
        return _Complaint(path, message, "write one text, not a list; an instance has one")
    return _Complaint(path, message, described or f"write {words_due}, or take it away")


def _wrong_value(called: str, value: Any, right: list[str], api: Api) -> tuple[str, str]:
    said = str(value)
    if said in api.refused:
        return f"{called} is {shown(value)}, which is not accepted", api.refused[said].strip()
    meant = api.spelling.get(said) or near(said, right, 0.75)
    every = f"{'one of: ' if len(right) > 1 else 'write '}{', '.join(right)}"
    hint = f"did you mean '{meant}'?" if meant in right else every
    return f"{called} is {shown(value)}, which {api.api} does not take", hint


def _unknown_parameter(path: Path, value: Any, schema: Mapping[str, Any], api: Api) -> _Complaint:
    name = str(path[-1])
    properties = schema.get("properties", {})
    fields = list(properties)
    inside = [
        one
        for one, below in properties.items()
        if isinstance(below, dict) and name in below.get("properties", {})
    ]
    meant = api.spelling.get(name) or near(name, fields)
    if meant in fields:
        hint = f"did you mean '{meant}'?"
        if isinstance(value, list):
            hint = f"write `{meant}: …` with one text, not a list; an instance has one {meant}"
    elif inside:
        hint = f"it belongs under {inside[0]}: `{inside[0]}: {{{name}: …}}`"
    elif fields:
        hint = f"it takes: {', '.join(fields)}"
    else:
        hint = "it takes none; take this away"
    return _Complaint(path, f"{api.api} takes no parameter {shown(name)}", hint, at_key=True)


def _because(value: Any) -> str:
    """The role that asks for more, if there is one."""
    role = value.get("role") if isinstance(value, dict) else None
    return f": role {shown(role)} needs it" if isinstance(role, str) and not references.found(role) else ""


def _described(schema: Mapping[str, Any], name: str) -> str:
    """What the schema says of a parameter, if it stands at the top."""
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, dict) else None
    told = found.get("description") if isinstance(found, dict) else None
    return f"add `{name}: …`: {told}" if isinstance(told, str) else ""


_RULES = {
    "minimum": "at least",
    "maximum": "at most",
    "minLength": "at least this long:",
    "maxLength": "at most this long:",
    "pattern": "like",
    "format": "a",
}

_TYPES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a map",
    "array": "a list",
}


def _type_of(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a map" if isinstance(value, dict) else "a list"
    return "null" if value is None else shown(value)
