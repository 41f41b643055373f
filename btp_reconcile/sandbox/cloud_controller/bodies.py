"""What is wrong with the body of a request, in the platform's words.

Source: cloudfoundry/cloud_controller_ng app/messages/ and app/messages/validators.rb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.cloud_controller.basics import unprocessable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def unknown_fields(body: Mapping[str, Any], allowed: Iterable[str]) -> list[str]:
    """Fields that the request does not have, as one text."""
    stray = [key for key in body if key not in set(allowed)]
    return [f"Unknown field(s): {', '.join(repr(key) for key in stray)}"] if stray else []


def relationship_problems(body: Mapping[str, Any], *names: str) -> list[str]:
    """What is wrong with the relationships of a create body; each name is required."""
    given = body.get("relationships")
    if not isinstance(given, dict):
        return ["Relationships 'relationships' is not an object"]
    if not given:
        return ["Relationships 'relationships' must include one or more valid relationships"]
    found = [f"Relationships {text}" for text in unknown_fields(given, names)]
    for name in names:
        label = name.capitalize().replace("_", " ")
        if name not in given or given[name] is None:
            found.append(f"Relationships {label} can't be blank")
        elif related(body, name) is None:
            found.append(
                f"Relationships {label} must be structured like this: "
                f'"{name}: {{"data": {{"guid": "valid-guid"}}}}"'
            )
    return found


def related(body: Mapping[str, Any], name: str) -> str | None:
    """The guid of a relationship, when it is one."""
    try:
        guid = body["relationships"][name]["data"]["guid"]
    except (KeyError, TypeError):
        return None
    return guid if isinstance(guid, str) else None


def name_problems(body: Mapping[str, Any]) -> list[str]:
    """What is wrong with the name of a create body."""
    name = body.get("name")
    if isinstance(name, str):
        return [] if name.strip() else ["Name can't be blank"]
    return ["Name must be a string", "Name can't be blank"] if name is None else ["Name must be a string"]


def parameter_problems(body: Mapping[str, Any]) -> list[str]:
    """``parameters`` is an object or null."""
    if body.get("parameters") is None or isinstance(body["parameters"], dict):
        return []
    return ["Parameters must be an object"]


def tag_problems(body: Mapping[str, Any]) -> list[str]:
    """``tags`` is a list of texts or null."""
    tags = body.get("tags")
    if tags is None:
        return []
    if not isinstance(tags, list):
        return ["Tags must be an array"]
    return [] if all(isinstance(tag, str) for tag in tags) else ["Tags must be a list of strings"]


def user_provided_problems(body: Mapping[str, Any]) -> list[str]:
    """What is wrong with the members that only user-provided instances have."""
    found = []
    if body.get("credentials") is not None and not isinstance(body["credentials"], dict):
        found.append("Credentials must be an object")
    for key, label in (("syslog_drain_url", "Syslog drain url"), ("route_service_url", "Route service url")):
        value = body.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            found.append(f"{label} must be a string")
        elif key == "route_service_url" and not value.startswith("https://"):
            found.append(f"{label} must be https")
    return found


def refuse(problems: list[str]) -> None:
    """422 with every problem in one item."""
    if problems:
        raise unprocessable(*problems)
