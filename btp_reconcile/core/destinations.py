"""One destination of a spec made whole, and what must be right about it when all specs are looked at together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import across, merge, recipes
from btp_reconcile.core.merge import WRONG
from btp_reconcile.core.model import Address
from btp_reconcile.core.shape import suggestion
from btp_reconcile.core.suspicion import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.core.across import Declared, Instance, Key
    from btp_reconcile.core.catalogue import Api, Catalogue, Recipe
    from btp_reconcile.core.merge import Node
    from btp_reconcile.core.shape import Found

OFFERING = "destination"
"""The service whose keys open the destinations of a subaccount."""


@dataclass(frozen=True)
class Use:
    """A key that something takes from, and where that is written."""

    key: Address
    node: Node
    reference: recipes.Reference | None = None
    """None: it is named under `key`."""
    recipe: bool = False
    """The recipe takes it, not the spec's own words."""


@dataclass(frozen=True)
class Destination(across.Named):
    """A declared destination."""

    recipe: Recipe | None
    uses: tuple[Use, ...]
    absent: bool


@dataclass(frozen=True)
class Opened:
    """A subaccount whose Destination service is opened by a declared key."""

    subaccount: str
    key: Address
    node: Node


# --- one spec -------------------------------------------------------------------------------------------


def whole(
    subaccount: str, name: str, node: Node, defaults: Node | None, catalogue: Catalogue, found: Found
) -> tuple[dict[str, Any], Destination]:
    """A destination with its recipe's properties under its own, in the words of a spec; and what it declares."""
    maker = _Maker(subaccount, name, node, catalogue, found)
    return maker.data(defaults), maker.declared()


class _Maker:
    """One destination in the making."""

    def __init__(self, subaccount: str, name: str, node: Node, catalogue: Catalogue, found: Found) -> None:
        self.address = Address("destination", (subaccount, name))
        self.subaccount, self.name, self.node, self.found = subaccount, name, node, found
        self.beside = self._value("key", "")
        self.absent = self._value("ensure", "present") == "absent"
        self.recipe = self._recipe(catalogue)
        self.uses: list[Use] = []
        self.properties = self._properties()

    def say(self, code: str, message: str, node: Node, hint: str) -> None:
        self.found.say(code, message, node, hint, self.address)

    def _value(self, name: str, default: Any = None) -> Any:
        node = self.node.get(name)
        if node is None:
            return default
        return None if node.value is WRONG else merge.plain(node)

    def _recipe(self, catalogue: Catalogue) -> Recipe | None:
        node = self.node.get("recipe")
        if node is None or not isinstance(node.value, str):
            return None
        recipe = catalogue.recipe(node.value)
        names = [one.name for one in catalogue.recipes]
        if recipe is None:
            hint = suggestion(node.value, names)
            self.say("spec/unknown-recipe", f"there is no recipe {shown(node.value)}", node, hint)
        elif self.node.get("key") is None and not self.absent:
            self.say(
                "spec/recipe-key",
                f"recipe {recipe.name} builds a destination from a key, and none is named",
                node,
                "add `key: instance/key` (or `key: subaccount/instance/key`)",
            )
        return recipe

    def _properties(self) -> dict[str, str]:
        """The recipe's under its own; null takes one of the recipe's away."""
        written = self.node.get("properties")
        own = written.value if written and isinstance(written.value, dict) else {}
        result = {}
        if self.recipe and self.beside:
            place = self.node.get("key") or self.node
            for name, text in self.recipe.properties.items():
                if name not in own:
                    result[name] = self._taken(text, place, recipe=True)
        for name, below in own.items():
            if not below.gone and isinstance(below.value, str):
                result[name] = self._taken(below.value, below)
        self._complete(result, own)
        return result

    def _taken(self, text: str, node: Node, *, recipe: bool = False) -> str:
        """The text in its full form, its references noted."""
        for one in recipes.taken(text):
            if not one.key and not self.beside:
                self.say(
                    "spec/recipe-key",
                    f"${{key#{one.field}}} means the key named under `key`, and none is",
                    node,
                    f"add `key: instance/key`, or write ${{key:instance/key#{one.field}}}",
                )
                continue
            key = recipes.address(one.key or self.beside, self.subaccount)
            if key is None:
                self.say(
                    "spec/key-path",
                    f"{shown(one.key)} names no key",
                    node,
                    "name the instance and its key: `instance/key`, or `subaccount/instance/key`",
                )
            else:
                self.uses.append(Use(key, node, one, recipe))
        return recipes.absolute(text, self.subaccount, self.beside)

    def _complete(self, properties: Mapping[str, str], own: Mapping[str, Node]) -> None:
        if self.absent:
            return
        place = self.node.get("properties") or self.node
        if self.recipe is None:
            there = self._value("adopt") or self._value("manage") == "observe"
            told = self.node.get("recipe") is not None or place.value is WRONG
            if "Type" not in {*properties, *own} and not there and not told:
                self.say(
                    "spec/missing",
                    f"destination {self.name} has no property 'Type'",
                    place,
                    "add `Type: HTTP` under properties, or build it by a `recipe`",
                )
            return
        for needed, what in self.recipe.own.items():
            if needed not in {*properties, *own}:
                message = f"recipe {self.recipe.name} needs the property '{needed}', which no key holds"
                self.say("spec/missing", message, place, f"add `{needed}: …` under properties: {what}")

    def data(self, defaults: Node | None) -> dict[str, Any]:
        said = {name: merge.plain(below) for name, below in (defaults.items() if defaults else ())}
        adopt = self._value("adopt")
        physical = self._value("name", self.name)
        if isinstance(adopt, dict) and physical not in adopt.values():
            other = next(iter(adopt.values()), "")
            self.say(
                "spec/adopt-name",
                f"a destination is its name, so {shown(other)} cannot become {shown(physical)}",
                self.node.get("adopt") or self.node,
                f"write `name: {other}` and `adopt: true`",
            )
        key = recipes.address(self.beside, self.subaccount) if self.beside else None
        return {
            "name": physical,
            **({"recipe": self.recipe.name} if self.recipe else {}),
            **({"key": "/".join(key.path)} if key else {}),
            "properties": self.properties,
            "ensure": self._value("ensure", "present"),
            "adopt": bool(adopt or isinstance(adopt, dict)),
            "manage": self._value("manage", said.get("manage", "full")),
            "protect": self._value("protect", said.get("protect", False)),
            "ignore": self._value("ignore", []),
            **({"owner_was": self._value("owner_was")} if self.node.get("owner_was") else {}),
        }

    def declared(self) -> Destination:
        beside = self.node.get("key")
        key = recipes.address(self.beside, self.subaccount) if self.beside else None
        named = (Use(key, beside),) if key and beside else ()
        name = self._value("name", self.name) or self.name
        return Destination(self.address, self.node, name, self.recipe, (*named, *self.uses), self.absent)


# --- all specs together ---------------------------------------------------------------------------------


def check(specs: Sequence[Declared], catalogue: Catalogue, found: Found, warned: Found) -> None:
    """Say all that is wrong with destinations when every key and instance is known."""
    destinations = [one for spec in specs for one in spec.destinations]
    every = _Every(specs, catalogue, found, warned)
    _names_taken(destinations, found)
    for one in destinations:
        if not one.absent:
            every.keys(one)
            every.recipe(one)
    every.once(destinations)
    for spec in specs:
        for opened in spec.opened:
            every.opened(opened)


def _names_taken(destinations: Iterable[Destination], found: Found) -> None:
    """Within a subaccount, a name is there once."""
    known: dict[tuple[str, str], Destination] = {}
    for one in across.once(destinations, found):
        first = known.setdefault((one.address.subaccount, one.name), one)
        if first is not one:
            across.name_taken(first, one, found)


class _Every:
    """All keys and instances that the loaded specs declare."""

    def __init__(self, specs: Sequence[Declared], catalogue: Catalogue, found: Found, warned: Found) -> None:
        self.found, self.warned, self.catalogue = found, warned, catalogue
        self.instances: dict[Address, Instance] = {
            one.address: one for spec in specs for one in spec.instances
        }
        self.declared: dict[Address, Key] = {one.address: one for spec in specs for one in spec.keys}

    def _key(self, use: Use, address: Address | None, code: str = "spec/unknown-key") -> Key | None:
        """The key that is meant, if it is declared and to be there."""
        key = self.declared.get(use.key)
        where = "/".join(use.key.path)
        if key is None:
            near = suggestion(where, ["/".join(one.path) for one in sorted(self.declared)], "declared are")
            hint = near or "declare it under its instance's `keys` first"
            self.found.say(code, f"no loaded spec declares a key {shown(where)}", use.node, hint, address)
        elif self.absent(key):
            self.found.say(
                code,
                f"{use.key} is to be absent, and this takes from it",
                use.node,
                "take one of the two away, or write `ensure: absent` here too",
                address,
                (key.node.place,),
            )
        return key

    def absent(self, key: Key) -> bool:
        instance = self.instances.get(key.instance)
        own = key.node.get("ensure")
        if own is not None:
            return bool(own.value == "absent")
        return instance is not None and instance.absent

    def keys(self, one: Destination) -> None:
        """Every key that a destination takes from, and every field of it."""
        told: set[Address] = set()
        for use in one.uses:
            if use.key not in told and self._key(use, one.address) is None:
                told.add(use.key)
            key = self.declared.get(use.key)
            if key is not None and use.reference is not None and not use.recipe:
                self._field(one, use, key)

    def _field(self, one: Destination, use: Use, key: Key) -> None:
        field = use.reference.field if use.reference else ""
        if certified(key) and field == "client_secret":
            self._no_secret(one, use, key, "take `certificate` and `private_key`, or a key with a secret")
        api = self._api(key)
        right = url_fields(api) if api else ()
        if right and (field == "url" or field.startswith("url.")) and field not in right:
            self.found.say(
                "spec/key-field",
                f"a key of {api.api if api else ''} has no '{field}'",
                use.node,
                f"one of: {', '.join(right)}",
                one.address,
            )

    def _no_secret(self, one: Destination, use: Use, key: Key, hint: str) -> None:
        self.found.say(
            "spec/key-certificate",
            f"{use.key} has a certificate and no client secret",
            use.node,
            hint,
            one.address,
            (key.node.place,),
        )

    def _api(self, key: Key) -> Api | None:
        instance = self.instances.get(key.instance)
        return self.catalogue.offered(*instance.offering) if instance else None

    def recipe(self, one: Destination) -> None:
        """Does what a recipe builds fit its key, and its consumer?"""
        recipe = one.recipe
        use = next((use for use in one.uses if use.reference is None), None)
        if recipe is None:
            return
        here = use is None or use.key.subaccount == one.address.subaccount
        self._name(one, recipe, here=here)
        key = self.declared.get(use.key) if use else None
        if use is None or key is None:
            return
        if recipe.no_certificate and certified(key) and any(part.recipe for part in one.uses):
            self.found.say(
                "spec/key-certificate",
                f"recipe {recipe.name} cannot use {use.key}, which has a certificate: {recipe.no_certificate}",
                use.node,
                "take a key with a secret (another key of the same instance)",
                one.address,
                (key.node.place,),
            )
        instance = self.instances.get(key.instance)
        if instance is not None:
            self._instance(one, recipe, use, instance)
        if not here:
            self._elsewhere(one, recipe)

    def _name(self, one: Destination, recipe: Recipe, *, here: bool) -> None:
        if recipe.destination and one.name != recipe.destination:
            self.found.say(
                "spec/destination-name",
                f"recipe {recipe.name} is for a consumer that looks for '{recipe.destination}' and nothing else; "
                f"this is called {shown(one.name)}",
                one.named_at,
                f"call it {recipe.destination}, exactly so",
                one.address,
            )
        most = recipe.longest_name if here else min(recipe.longest_name, recipe.elsewhere.longest_name)
        if len(one.name) > most:
            why = "" if here else " for a key of another subaccount"
            self.found.say(
                "spec/destination-name",
                f"{shown(one.name)} has {len(one.name)} characters, and recipe {recipe.name} allows {most}{why}",
                one.named_at,
                "give it a shorter `name`",
                one.address,
            )

    def _instance(self, one: Destination, recipe: Recipe, use: Use, instance: Instance) -> None:
        service = instance.offering[0]
        if service and service not in recipe.services:
            fit = [other.name for other in self.catalogue.recipes if service in other.services]
            self.found.say(
                "spec/recipe-service",
                f"recipe {recipe.name} is for keys of {' or '.join(recipe.services)}, and {use.key} is one of "
                f"{service}",
                use.node,
                f"name another key, or the recipe {' or '.join(fit)}" if fit else "name another key",
                one.address,
                (instance.node.place,),
            )
            return
        api = self.catalogue.offered(*instance.offering)
        for name, needed in recipe.parameters.items():
            said = instance.node.get("parameters", name)
            default = api.parameters.get("properties", {}).get(name, {}).get("default") if api else None
            value = said.value if said else default
            if value != needed and not (isinstance(value, str) and "${" in value) and value is not WRONG:
                self.found.say(
                    "spec/recipe-parameter",
                    f"recipe {recipe.name} needs a key with {name} {needed}, and {instance.address} has "
                    f"{shown(value) if value else 'none'}",
                    use.node,
                    f"name a key of an instance with `{name}: {needed}`",
                    one.address,
                    ((said or instance.node).place,),
                )

    def _elsewhere(self, one: Destination, recipe: Recipe) -> None:
        written = one.node.get("properties")
        own = written.value if written and isinstance(written.value, dict) else {}
        lacking = {name: what for name, what in recipe.elsewhere.own.items() if name not in own}
        if lacking:
            self.warned.say(
                "spec/recipe-elsewhere",
                f"the key is of another subaccount, where recipe {recipe.name} cannot know "
                f"{' and '.join(lacking)}",
                one.node,
                "add under properties: " + "; ".join(f"{name}: {what}" for name, what in lacking.items()),
                one.address,
            )

    def once(self, destinations: Iterable[Destination]) -> None:
        """Some consumers must not be told of one instance twice."""
        known: dict[tuple[str, Address], Destination] = {}
        for one in destinations:
            use = next((use for use in one.uses if use.reference is None), None)
            if one.recipe is None or not one.recipe.once or use is None or one.absent:
                continue
            instance = Address("instance", use.key.path[:2])
            first = known.setdefault((one.recipe.name, instance), one)
            if first is not one and first.address != one.address:
                self.found.say(
                    "spec/recipe-once",
                    f"{first.address} and {one.address} are both built by {one.recipe.name} from {instance}",
                    one.node,
                    f"keep one of them: {one.recipe.once}",
                    one.address,
                    (first.node.place,),
                )

    def opened(self, one: Opened) -> None:
        """A key that opens the Destination service must be one of its keys, and of that very subaccount."""
        key = self._key(Use(one.key, one.node), None)
        instance = self.instances.get(key.instance) if key else None
        if key is None or instance is None:
            return
        if instance.offering[0] and instance.offering[0] != OFFERING:
            self.found.say(
                "spec/access-key",
                f"access.destination names a key of {instance.offering[0]}",
                one.node,
                f"name a key of an instance of `service: {OFFERING}`, `plan: lite`",
                None,
                (instance.node.place,),
            )
        elif one.key.subaccount != one.subaccount:
            self.found.say(
                "spec/access-key",
                f"access.destination of subaccount {one.subaccount} names a key of subaccount {one.key.subaccount}, "
                "which opens only that one's destinations",
                one.node,
                "name a key of the same subaccount",
            )


def certified(key: Key) -> bool:
    """Will this key have a certificate in place of a secret?"""
    said = (
        key.node.get("credential", "type"),
        key.node.get("parameters", "xsuaa", "credential-type"),
        key.node.get("parameters", "credential-type"),
    )
    return any(one is not None and one.value == "x509" for one in said)


def url_fields(api: Api) -> tuple[str, ...]:
    """The internal names of a key's URLs."""
    names = tuple(api.key_shape.urls)
    alone = len(names) == 1 or "api" in names
    return (*(("url",) if alone else ()), *(f"url.{name}" for name in names))
