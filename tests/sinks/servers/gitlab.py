"""GitLab's API for CI/CD variables, as its pages on project-level and group-level variables and its models have it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.sinks.servers.web import Asked, Says, Web

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = "glpat-ABCDEFGHIJKLMNOPQRST"
_PATH = re.compile(r"/api/v4/(projects|groups)/([^/]+)(/variables(?:/([A-Za-z0-9_]+))?)?")
_FLAGS = ("protected", "masked", "raw")
_TAKES = {"value", "description", "variable_type", "environment_scope", *_FLAGS}


class GitLabServer(Web):
    """Projects and groups, and their variables by name and scope."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.places = {("projects", "finance/closing"), ("groups", "finance")}
        self.variables: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        """(projects or groups, path, key, scope) → the variable."""
        self.maintainer = True
        self.masks_raw = True
        """False: as before GitLab 15.9, when `raw` did not widen what can be masked."""
        self.describes = True
        """False: as before GitLab 16.2."""

    def only(self) -> dict[str, Any]:
        """The one variable there is."""
        (variable,) = self.variables.values()
        return variable

    def _answer(self, asked: Asked) -> Says:
        if asked.headers.get("PRIVATE-TOKEN") != TOKEN:
            return Says(401, {"message": "401 Unauthorized"})
        match = _PATH.fullmatch(asked.path)
        if match is None:
            return Says(404, {"error": "404 Not Found"})
        kind, path, below, key = match[1], unquote(match[2]), match[3], match[4]
        if (kind, path) not in self.places:
            return Says(404, {"message": f"404 {kind[:-1].capitalize()} Not Found"})
        if below is None:
            allowed = {"with_projects"} if kind == "groups" else set[str]()
            known = asked.method == "GET" and set(asked.query) <= allowed
            return (
                Says(200, {"id": 1, "full_path": path}) if known else Says(405, {"error": "405 Not Allowed"})
            )
        if not self.maintainer:
            return Says(403, {"message": "403 Forbidden"})
        if key is None:
            return self._create(asked, kind, path)
        return self._one(asked, kind, path, key)

    def _one(self, asked: Asked, kind: str, path: str, key: str) -> Says:
        if set(asked.query) - {"filter[environment_scope]"}:
            return Says(400, {"error": "unknown parameters"})
        scope = asked.query.get("filter[environment_scope]")
        found = [
            where
            for where in self.variables
            if where[:3] == (kind, path, key) and (scope is None or where[3] == scope)
        ]
        if len(found) > 1:
            words = "There are multiple variables with provided parameters. Please use 'filter[environment_scope]'."
            return Says(409, {"message": words})
        if not found:
            return Says(404, {"message": "404 Variable Not Found"})
        if asked.method == "GET":
            return Says(200, self._shown(found[0]))
        if asked.method != "PUT":
            return Says(405, {"error": "405 Not Allowed"})
        return self._update(asked, found[0])

    def _create(self, asked: Asked, kind: str, path: str) -> Says:
        if asked.method != "POST":
            return Says(405, {"error": "405 Not Allowed"})
        if (wrong := _malformed(asked, {*_TAKES, "key"}, ("key", "value"))) is not None:
            return wrong
        said = asked.json
        where = (kind, path, said["key"], said.get("environment_scope", "*"))
        if where in self.variables:
            return Says(400, {"message": {"key": [f"({said['key']}) has already been taken"]}})
        made = {"variable_type": "env_var", "description": None, **dict.fromkeys(_FLAGS, False), **said}
        return self._stored(where, made, 201)

    def _update(self, asked: Asked, where: tuple[str, str, str, str]) -> Says:
        if (wrong := _malformed(asked, _TAKES, ())) is not None:
            return wrong
        return self._stored(where, {**self.variables[where], **asked.json}, 200)

    def _stored(self, where: tuple[str, str, str, str], made: Mapping[str, Any], status: int) -> Says:
        value, errors = made["value"], {}
        pattern = r"\S{8,}" if made["raw"] and self.masks_raw else r"[a-zA-Z0-9_+=/@:.~-]{8,}"
        if made["masked"] and not re.fullmatch(pattern, value):
            errors["value"] = ["is invalid"]
        if len(value) > 10_000:
            errors["value"] = ["is too long (maximum is 10000 characters)"]
        if len(made["description"] or "") > 255:
            errors["description"] = ["is too long (maximum is 255 characters)"]
        if not re.fullmatch(r"[A-Za-z0-9_]{1,255}", where[2]):
            errors["key"] = ["can contain only letters, digits and '_'."]
        if made["variable_type"] not in {"env_var", "file"}:
            return Says(400, {"error": "variable_type does not have a valid value"})
        if errors:
            return Says(400, {"message": errors})
        self.variables[where] = dict(made)
        return Says(status, self._shown(where))

    def _shown(self, where: tuple[str, str, str, str]) -> dict[str, Any]:
        made = self.variables[where]
        shown = {
            "variable_type": made["variable_type"],
            "key": where[2],
            "value": None if made.get("hidden") else made["value"],
            "hidden": bool(made.get("hidden")),
            **{flag: made[flag] for flag in _FLAGS},
            "environment_scope": where[3],
        }
        return {**shown, "description": made["description"]} if self.describes else shown


def _malformed(asked: Asked, known: set[str], needed: tuple[str, ...]) -> Says | None:
    if asked.headers.get("Content-Type") != "application/json":
        return Says(415, {"error": "The provided content-type is not supported."})
    said = asked.json
    missing = [name for name in needed if name not in said]
    if missing:
        return Says(400, {"error": f"{missing[0]} is missing"})
    if set(said) - known:
        return Says(400, {"error": f"{sorted(set(said) - known)} are not known here"})
    for name, value in said.items():
        if isinstance(value, bool) is not (name in _FLAGS):
            return Says(400, {"error": f"{name} is invalid"})
    return None
