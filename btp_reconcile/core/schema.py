"""The language of specs as JSON Schema: one description for editors and for the validator.

`language` is what the validator walks: it reads shapes and descriptions from it, and speaks its own words.
`build` adds what only editors need: the names of APIs and, for each, the parameters it takes.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import recipes, references

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btp_reconcile.core.catalogue import Api, Catalogue
    from btp_reconcile.core.kind import Kind

DRAFT = "https://json-schema.org/draft/2020-12/schema"

NAME = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
TEXT = r"^[^\u0000-\u001f\u007f]+$"
PHYSICAL = r"^[^\s\u0000-\u001f\u007f]([^\u0000-\u001f\u007f]*[^\s\u0000-\u001f\u007f])?$"
DURATION = r"^[0-9]+[mhdw]$"
PATIENCE = r"^[1-9][0-9]{0,5}[smhdw]$"
"""How long something is waited for: never not at all, and in seconds too."""
REGION = r"^[a-z]{2}[0-9]{2}(-[0-9]{3})?$"
GUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
DESTINATION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
HAS_REFERENCE = r"\$\{(env|file):[^}]+\}"
ENDPOINT = r"^(https://[^\s/]+|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?)/?$"


def _ref(name: str, description: str = "") -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", **({"description": description} if description else {})}


def _map(title: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _named(description: str, of: str, by: str = "name") -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "propertyNames": _ref(by),
        "additionalProperties": _ref(of),
    }


_ENTITLEMENTS = {
    "type": "object",
    "description": "Service plans assigned to the subaccount: service, then plan. Never taken away by leaving them out.",
    "propertyNames": _ref("text"),
    "additionalProperties": {
        "type": "object",
        "description": "Plans of this service.",
        "propertyNames": _ref("text"),
        "additionalProperties": _ref("entitlement"),
    },
}

_CENTRAL = _map(
    "access to the global account",
    "A service key of `cis` / `central`: opens entitlements and accounts.",
    {
        "service_key": _ref("secret", "The key: ${env:NAME} (its JSON) or ${file:path}."),
        "username": _ref("referable", "Needed only by keys with grant `user_token`."),
        "password": _ref("secret", "Belongs to `username`."),
    },
)

_SERVICE_MANAGER = _map(
    "access to the Service Manager",
    "A service key of `service-manager` / `subaccount-admin`: opens instances of the runtime `other`.",
    {
        "service_key": _ref("secret", "The key: ${env:NAME} (its JSON) or ${file:path}."),
        "bootstrap": {
            "type": "boolean",
            "enum": [True],
            "description": "In place of a key: a named binding of our own, made with access.central.",
        },
        "ensure": {
            "type": "string",
            "enum": ["present", "absent"],
            "description": "Beside bootstrap; absent: delete that binding.",
        },
    },
)

_FOUNDRY_ACCESS = _map(
    "access to Cloud Foundry",
    "A user (`username`, `password`, `origin`), a client, an assertion, or tokens.",
    {
        "username": _ref("referable", "A user who is space developer where instances are made."),
        "password": _ref("secret", "The user's password."),
        "origin": _ref("referable", "The identity provider's origin key, if it is not SAP's default one."),
        "client_id": _ref("referable", "A client, in place of a user or together with an assertion."),
        "client_secret": _ref("secret", "The client's secret."),
        "assertion": _ref("secret", "A JWT of a trusted identity provider."),
        "refresh_token": _ref("secret", "A refresh token of an earlier sign-in."),
        "access_token": _ref("secret", "An access token."),
        "passcode": _ref("secret", "A one-time passcode."),
        "api": _ref("endpoint", "The API these credentials are for, if it is not the subaccount's."),
    },
)

_DESTINATION = _map(
    "access to the Destination service",
    "A service key of `destination` / `lite`: opens the subaccount's destinations.",
    {
        "service_key": _ref("secret", "The key: ${env:NAME} (its JSON) or ${file:path}."),
        "key": _ref(
            "key_path", "In place of it, such a key that these specs declare; it is read when it is needed."
        ),
        "bootstrap": {
            "type": "boolean",
            "enum": [True],
            "description": "In place of both: an instance btp-reconcile-access and a key of it, made like any other.",
        },
    },
)

_DOORS = {
    "central": _ref("central"),
    "service_manager": _ref("service_manager"),
    "destination": _ref("destination_access"),
    "cloud_foundry": _ref("cloud_foundry_access"),
}


def _definitions() -> dict[str, Any]:
    """What specs are made of, apart from the kinds."""
    return {
        "name": {
            "type": "string",
            "pattern": NAME,
            "description": "Small letters, digits and . _ - inside; at most 63.",
        },
        "text": {"type": "string", "pattern": TEXT},
        "physical": {"type": "string", "maxLength": 255, "pattern": PHYSICAL},
        "referable": {"type": "string", "pattern": TEXT},
        "path": {"type": "string", "pattern": TEXT},
        "duration": {"type": "string", "pattern": DURATION, "examples": ["30m", "12h", "7d", "4w"]},
        "patience": {"type": "string", "pattern": PATIENCE, "examples": ["5s", "30s", "2m"]},
        "region": {"type": "string", "pattern": REGION, "examples": ["eu10", "us10", "eu10-004"]},
        "guid": {
            "type": "string",
            "anyOf": [{"pattern": GUID}, {"pattern": HAS_REFERENCE}],
        },
        "endpoint": {
            "type": "string",
            "anyOf": [{"pattern": ENDPOINT}, {"pattern": HAS_REFERENCE}],
        },
        "secret": {
            "type": "string",
            "pattern": references.WHOLE,
            "description": "Never the value itself: ${env:NAME} or ${file:path}.",
        },
        "api": {"type": "string"},
        "recipe": {"type": "string"},
        "key_path": {
            "type": "string",
            "pattern": recipes.KEY_PATH,
            "examples": ["apim/transport", "prod/apim/transport"],
        },
        "destination_name": {
            "type": "string",
            "pattern": DESTINATION,
            "description": "Letters, digits and . _ - inside; at most 200. Case counts.",
        },
        "destination_properties": {
            "type": "object",
            "additionalProperties": {"type": "string"},
        },
        "parameters": {"type": "object"},
        "ignore": {
            "type": "array",
            "items": _ref("text"),
            "description": "Fields left to others, in plan and apply alike, e.g. `parameters.role` or `tags`.",
        },
        "adopt": {
            "description": "Take over what exists already: true (the one of this name), {name: …} or {id: …}.",
            "anyOf": [
                {"type": "boolean"},
                {
                    "title": "adopt",
                    "type": "object",
                    "additionalProperties": False,
                    "maxProperties": 1,
                    "properties": {
                        "name": _ref("physical", "The name it has on the platform."),
                        "id": _ref("text", "Its guid."),
                    },
                },
            ],
        },
        "central": _CENTRAL,
        "service_manager": _SERVICE_MANAGER,
        "destination_access": _DESTINATION,
        "cloud_foundry_access": _FOUNDRY_ACCESS,
        "access": _map(
            "access",
            "Where this subaccount's credentials come from; nearer than the top level's.",
            dict(_DOORS),
        ),
        "access_everywhere": _map(
            "access",
            "Where credentials come from; never the credentials themselves.",
            {
                **_DOORS,
                "fingerprint_key": _ref(
                    "secret",
                    "Key for the fingerprints of secret parameters, so that their drift can be seen.",
                ),
            },
        ),
        "cloud_foundry": _map(
            "cloud_foundry",
            "The subaccount's Cloud Foundry environment.",
            {
                "org": _ref("referable", "Name of the organization."),
                "space": _ref("referable", "Name of the space of instances that name none."),
                "landscape": _ref(
                    "landscape", "The landscape, if it is not the region's main one: eu10-004."
                ),
                "api": _ref("endpoint", "The API's URL, in place of a landscape."),
            },
        ),
        "landscape": {
            "type": "string",
            "anyOf": [{"pattern": REGION}, {"pattern": HAS_REFERENCE}],
        },
        "defaults": _map(
            "defaults",
            "What every instance of this spec starts from.",
            {
                "runtime": {
                    "type": "string",
                    "enum": ["cloudfoundry", "other"],
                    "description": "cloudfoundry: in a space; other: in the Service Manager.",
                },
                "entitlement": {
                    "type": "string",
                    "enum": ["managed", "external"],
                    "description": "external: others entitle the plans.",
                },
                "manage": {
                    "type": "string",
                    "enum": ["full", "observe"],
                    "description": "observe: report drift, never write.",
                },
                "protect": {
                    "type": "boolean",
                    "enum": [True],
                    "description": "true: nothing is deleted or replaced. To lift it, say so at the instance.",
                },
                "keep_old_for": _ref("duration", "How long superseded generations are kept. Default 7d."),
            },
        ),
        "template": _map(
            "a template",
            "A baseline that subaccounts take over with `use`.",
            {
                "cloud_foundry": _ref("cloud_foundry"),
                "entitlements": _ENTITLEMENTS,
                "instances": _named("API instances, by name.", "instance"),
                "destinations": _named("Destinations, by name.", "destination", "destination_name"),
            },
        ),
        "subaccount": _map(
            "a subaccount",
            "A subaccount of the global account.",
            {
                "id": _ref("guid", "The subaccount's ID, as the cockpit shows it."),
                "region": _ref("region", "The subaccount's region, like eu10; checked against the platform."),
                "access": _ref("access"),
                "cloud_foundry": _ref("cloud_foundry"),
                "use": {
                    "type": "array",
                    "items": _ref("name"),
                    "description": "Templates, later ones over earlier ones.",
                },
                "entitlements": _ENTITLEMENTS,
                "instances": _named("API instances, by name.", "instance"),
                "destinations": _named("Destinations, by name.", "destination", "destination_name"),
            },
        ),
    }


def language(kinds: Sequence[Kind]) -> dict[str, Any]:
    """The shape of one spec file. Nothing is required in it: layers may be parts, only their sum is whole."""
    definitions = _definitions()
    for kind in (one for one in kinds if one.schema):
        definitions[kind.name] = {"title": _title(kind.name), **copy.deepcopy(dict(kind.schema))}
        for name, section in kind.access.items():
            definitions[f"{name}_access"] = {"title": f"access to {name}", **copy.deepcopy(dict(section))}
            for where in ("access", "access_everywhere"):
                definitions[where]["properties"][name] = _ref(f"{name}_access")
    top = _map(
        "a spec",
        "What SAP BTP subaccounts must have.",
        {
            "version": {"type": "integer", "enum": [1], "description": "Version of this language."},
            "owner": _ref("name", "Who answers for what this spec makes; stamped on all of it."),
            "name": _ref("name", "Name of this spec, stamped on all it makes. Default: the file's stem."),
            "owner_was": _ref("name", "The owner whose marks everything carries now; marked as ours."),
            "extends": {
                "description": "Files whose words stand below this file's; paths from this file's folder.",
                "anyOf": [_ref("path"), {"type": "array", "items": _ref("path")}],
            },
            "catalogue": {
                "type": "array",
                "items": _ref("path"),
                "description": "Catalogue files of your own; paths from this file's folder.",
            },
            "access": _ref("access_everywhere"),
            "defaults": _ref("defaults"),
            "templates": _named("Baselines for many subaccounts, by name.", "template"),
            "subaccounts": _named("The subaccounts, by a name of your choice.", "subaccount"),
        },
    )
    return {**top, "$defs": definitions}


def _title(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def build(kinds: Sequence[Kind], catalogue: Catalogue) -> dict[str, Any]:
    """The schema for editors: completion, hover texts, and warnings while typing."""
    schema = language(kinds)
    definitions = schema["$defs"]
    definitions["api"] = {
        "type": "string",
        "enum": [api.api for api in catalogue.apis],
        "enumDescriptions": [api.title for api in catalogue.apis],
    }
    definitions["recipe"] = {
        "type": "string",
        "enum": [recipe.name for recipe in catalogue.recipes],
        "enumDescriptions": [recipe.title for recipe in catalogue.recipes],
    }
    schema = _with_null(schema)
    schema["$defs"]["instance"]["allOf"] = [
        _rule(api) for api in catalogue.apis if api.parameters or api.key_parameters
    ]
    return {
        "$schema": DRAFT,
        "$id": "https://btp-reconcile.invalid/schemas/spec.schema.json",
        "$comment": "Written by `make schemas`; do not edit.",
        **{name: value for name, value in schema.items() if name != "$defs"},
        "required": ["version"],
        "$defs": schema["$defs"],
    }


def text(kinds: Sequence[Kind], catalogue: Catalogue) -> str:
    """The published file's text."""
    return json.dumps(build(kinds, catalogue), indent=2, ensure_ascii=False) + "\n"


def _rule(api: Api) -> dict[str, Any]:
    """What follows for an instance and its keys from `api: NAME`."""
    then: dict[str, Any] = {}
    if api.parameters:
        then["parameters"] = {**_open(api.parameters), "type": ["object", "null"]}
    if api.key_parameters:
        then["keys"] = {
            "additionalProperties": {
                "properties": {"parameters": {**_open(api.key_parameters), "type": ["object", "null"]}}
            },
        }
    return {
        "if": {"type": "object", "properties": {"api": {"const": api.api}}, "required": ["api"]},
        "then": {"properties": then},
    }


def _open(schema: Any) -> Any:
    """A broker's schema, with references and null allowed wherever a value is, and nothing required.

    In a layer a part may be missing; the validator looks at the sum.
    """
    if not isinstance(schema, dict):
        return schema
    opened = {
        name: value for name, value in schema.items() if name not in {"required", "allOf", "if", "then"}
    }
    for name in ("properties", "patternProperties"):
        if isinstance(schema.get(name), dict):
            opened[name] = {key: _or_reference(_open(value)) for key, value in schema[name].items()}
    return opened


def _or_reference(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    outer = {name: schema[name] for name in ("description", "default") if name in schema}
    inner = {name: value for name, value in schema.items() if name not in outer}
    return {**outer, "anyOf": [inner, {"type": "string", "pattern": HAS_REFERENCE}, {"type": "null"}]}


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    """`null` removes what a lower layer says, so it may stand wherever a named value may.

    Definitions themselves take it, so that a reference to one needs no alternatives around it: editors name
    the mistake inside, where "fits none of the alternatives" would be all they could say.
    """
    result = dict(schema)
    for name, value in schema.items():
        if name in {"properties", "$defs"}:
            result[name] = {key: _nullable(_with_null(below)) for key, below in value.items()}
        elif name == "additionalProperties" and isinstance(value, dict):
            result[name] = _nullable(_with_null(value))
        elif name == "anyOf":
            result[name] = [_with_null(below) for below in value]
    return result


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return schema
    if "type" not in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    nullable = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    if "anyOf" in schema:
        nullable["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return nullable
