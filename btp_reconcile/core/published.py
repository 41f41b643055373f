"""JSON Schemas (2020-12) of what `--format json` prints and of what is written to files.

Each is closed: what it does not name is not there. A new member or word raises no version, because readers pass over what
they do not know; a member that goes or changes its meaning does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import baseline, keys, report, verdict, watch
from btp_reconcile.core.model import Action, Phase, Seen, Status, Verb
from btp_reconcile.core.schema import DRAFT
from btp_reconcile.core.states import Health, Sync
from btp_reconcile.core.verdict import Waits, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_BOOL: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number", "minimum": 0}
_MOMENT: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$",
}
_GENERATION: Schema = {
    "type": "integer",
    "minimum": 1,
    "description": "Counted from 1, replacements included.",
}


def _is(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Schema, said: str = "") -> Schema:
    return {"type": "array", "items": items} | ({"description": said} if said else {})


def _words(words: Iterable[str], said: str = "") -> Schema:
    return {"enum": [str(one) for one in words]} | ({"description": said} if said else {})


def _said(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text}


def _map(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def _counts(words: Iterable[str]) -> Schema:
    return _map({str(one): _COUNT for one in words})


_ADDRESS = _said(
    {"type": "string", "pattern": "^[a-z]+:[^/]+(/[^/]+)*$"},
    "The natural name of a thing, like instance:prod/apim. What is special in it is percent-encoded.",
)
_SOURCE = _said(_TEXT, "file:line:column in a spec; lines and columns count from 1.")
_STATE = {
    "sync": _words(Sync, "Is it as the spec says?"),
    "health": _words(Health, "Can it be used?"),
}
_PROBLEM_PARTS = (
    {
        "code": _said(
            {"type": "string", "pattern": "^[a-z-]+/[a-z-]+$"}, "To search for, like spec/unknown-field."
        ),
        "message": _TEXT,
    },
    {
        "source": _SOURCE,
        "address": _ADDRESS,
        "hint": _said(_TEXT, "What to write or do instead."),
        "also": _list(_SOURCE, "Other places that take part."),
    },
)
_FOUND_PARTS = (
    {
        "id": _said(_TEXT, "The platform's id."),
        "name": _TEXT,
        "phase": _words(Phase),
    },
    {
        "runtime": _TEXT,
        "space": _TEXT,
        "generation": _GENERATION,
    },
)

_AUTHOR = _said(
    {
        "oneOf": [
            _map({"actor": _TEXT, "type": _TEXT, "at": _TEXT}),
            _map({"unknown": _said(_TEXT, "Why that is not known.")}),
        ]
    },
    "drift: who changed it last, and when, as the platform's events say.",
)

_DEFINITIONS: dict[str, Schema] = {
    "problem": _map(*_PROBLEM_PARTS),
    "unseen": _map(
        _PROBLEM_PARTS[0],
        {
            **_PROBLEM_PARTS[1],
            "where": _list(
                _map({"subaccount": _TEXT, "service": _TEXT}), "What could not be looked at because of it."
            ),
        },
    ),
    "found": _map(*_FOUND_PARTS),
    "field": _map(
        {
            "path": _said(_TEXT, "Dotted, in the words of the spec."),
            "before": _said({}, "What there is. A value from outside shows as its name, never as itself."),
            "after": _said({}, "What the spec says."),
            "seen": _words(Seen, "observed; assumed, by our own record; unknown, which is never a change."),
            "changes": _BOOL,
        },
        {"forces_replace": _BOOL, "note": _TEXT},
    ),
    "change": _map(
        {
            "address": _ADDRESS,
            "action": _words(Action),
            "reason": _said(_TEXT, "For people; nothing should decide by it."),
            "generation": _said(_GENERATION, "The generation that is there after the change."),
            "drifted": _said(_BOOL, "Does the platform differ from the spec here?"),
            **_STATE,
        },
        {
            "creates": _said(_TEXT, "The physical name of what is made."),
            "needs": _list(_ADDRESS, "What it stands on."),
            "gate": _said(_TEXT, "What a person must do first."),
            "sends": _list(_TEXT, "The fields that an update sends."),
            "fields": _list(_is("field")),
            "found": _said(_is("found"), "The live thing that the change starts from."),
            "retired": _list(_is("found"), "What goes with this change."),
            "name": _said(_TEXT, "The physical name that the spec wants."),
            "source": _SOURCE,
            "notes": _list(_TEXT),
            "accepted": _said({"const": True}, "Known, by the baseline."),
            "changed_by": _AUTHOR,
        },
    ),
    "unplanned": _map(
        {"address": _ADDRESS, **_STATE, "reason": _TEXT, "name": _TEXT},
        {"source": _SOURCE},
    ),
    "unmanaged": _map(
        {
            "address": _said(_ADDRESS, "The address it would have."),
            **_STATE,
            "kind": _TEXT,
            "subaccount": _TEXT,
            **_FOUND_PARTS[0],
        },
        {
            **_FOUND_PARTS[1],
            "instance": _said(_TEXT, "The physical name of the instance that a key stands in."),
            "mark": _map({"owner": _TEXT, "spec": _TEXT, "name": _TEXT}),
        },
    ),
    "key": {
        "description": "One generation of a key that is there, or a wanted key that is not.",
        "oneOf": [
            _map({"address": _ADDRESS, "state": _words(["missing", "absent"])}),
            _map(
                {
                    "address": _ADDRESS,
                    "name": _TEXT,
                    "generation": _GENERATION,
                    "runtime": _words(["cloudfoundry", "other"]),
                    "state": _words(["current", "superseded", "pending", "broken"]),
                    "type": _words(["secret", "x509"]),
                    "created_at": _said(_TEXT, "RFC 3339; empty when the platform does not say."),
                    "delivered": _list(_map({"to": _TEXT, "place": _TEXT, "at": _MOMENT})),
                },
                {
                    "age_seconds": {"type": "integer"},
                    "not_after": _said(_MOMENT, "When its certificate ends."),
                    "ends_in_seconds": _said({"type": "integer"}, "Below 0 when it has ended."),
                    "rotation_due": _MOMENT,
                    "retire_after": _said(_MOMENT, "From when on it may be deleted."),
                    "verified": _map({"at": _MOMENT, "verdict": _words(Word)}),
                },
            ),
        ],
    },
    "plan": {},  # written below, because it uses the others
    "ask": _map(
        {
            "pool": _TEXT,
            "plan": _TEXT,
            "address": _ADDRESS,
            "more": {"type": "number"},
            "remaining": {"type": ["number", "null"]},
        },
        {"source": _SOURCE},
    ),
    "outcome": _map(
        {
            "address": _ADDRESS,
            "verb": _words(Verb),
            "generation": _GENERATION,
            "status": _words(Status),
            "attempts": _COUNT,
            "seconds": _NUMBER,
        },
        {
            "error": _TEXT,
            "hint": _TEXT,
            "blocked_by": _ADDRESS,
            "gate": _said({"const": True}, "A person must act first."),
            "refused": _said({"const": True}, "Something that is not ours would have been lost."),
            "notes": _list(_TEXT),
        },
    ),
    "verdict": _map(
        {
            "address": _ADDRESS,
            "generation": _GENERATION,
            "verdict": _words(Word),
            "requests": _COUNT,
            "seconds": _NUMBER,
        },
        {
            "type": _words(["secret", "x509"]),
            "client_id": _TEXT,
            "token_seconds": _COUNT,
            "status": _COUNT,
            "not_after": _MOMENT,
            "scopes": _TEXT,
            "rights": _list(_TEXT),
            "scope_changed": _BOOL,
            "waits": _words(one for one in Waits if one),
            "detail": _TEXT,
            "hint": _TEXT,
        },
    ),
}


def _format(name: str, version: int) -> dict[str, Schema]:
    return {"format": {"const": name}, "version": {"const": version}}


_DEFINITIONS["plan"] = _map(
    {
        **_format(report.FORMAT, report.VERSION),
        "kind": _words(["plan", "drift"]),
        "digest": _said(_TEXT, "Stands for what was compared and decided."),
        "specs": _list(_TEXT, "owner/name of every loaded spec."),
        "summary": _counts([*Action, "gate"]),
        "subaccounts": {
            "type": "object",
            "additionalProperties": _map({"id": _TEXT, "region": _TEXT}),
        },
        "changes": _list(_is("change"), "Every address, in dependency order; keep is said, too."),
        "unplanned": _list(_is("unplanned"), "Wanted things of which nothing could be worked out."),
        "objections": _list(_is("problem"), "What stands against it."),
        "unmanaged": _list(_is("unmanaged"), "Carries the mark of a spec that does not name it any more."),
        "unseen": _list(_is("unseen"), "What could not be looked at."),
        "forecast": _map(
            {},
            {
                "writes": {"type": "object", "additionalProperties": _COUNT},
                "seconds": _NUMBER,
                "because": _TEXT,
            },
        ),
        "warnings": _list(_is("problem")),
    },
    {
        "now": _said(_MOMENT, "drift: the moment it is of."),
        "keys": _list(_is("key"), "drift: what is known of every key."),
        "baseline": _said(
            _map({"accepted": _COUNT, "gone": _list(_map({"address": _ADDRESS, "about": _TEXT}))}),
            "drift: how many changes are known, and what of the baseline is not so any more.",
        ),
        "partial": _said(
            _map(
                {
                    "shard": _said(_TEXT, "Like 3/16."),
                    "program": _TEXT,
                    "specs": _TEXT,
                    "managed": _COUNT,
                    "given_up": _COUNT,
                    "quota": _list(_is("ask")),
                }
            ),
            "--shard: what only all shards together can decide.",
        ),
        "merged": _said(
            _map(
                {
                    "of": _COUNT,
                    "program": _TEXT,
                    "specs": _TEXT,
                    "managed": _COUNT,
                    "given_up": _COUNT,
                    "quota": _list(_is("ask")),
                    "shards": {"type": "object", "additionalProperties": _TEXT},
                }
            ),
            "report merge: the sum of all shards, and the digest of each.",
        ),
        "promise": _said({"type": "object"}, "plan --out: how the plan was made."),
        "checksum": _said(_TEXT, "plan --out: shows that the file was cut off or edited."),
    },
)
_DEFINITIONS["report"] = _map(
    {
        **_format(report.REPORT_FORMAT, report.VERSION),
        "summary": _counts(Status),
        "outcomes": _list(_is("outcome")),
    }
)
_DEFINITIONS["verify"] = _map(
    {
        **_format(verdict.FORMAT, verdict.VERSION),
        "summary": _counts(Word),
        "keys": _list(_is("verdict")),
    }
)

PUBLISHED: Mapping[str, tuple[str, Schema]] = {
    "plan": ("A plan or a drift check of reconcile, and a plan file", _DEFINITIONS["plan"]),
    "report": ("How one round of applying went", _DEFINITIONS["report"]),
    "apply": (
        "What `reconcile apply` and `reconcile rotate` print",
        _map({"plan": _is("plan"), "reports": _list(_is("report"))}, {"verify": _is("verify")}),
    ),
    "verify": ("What trying every key showed", _DEFINITIONS["verify"]),
    "keys": (
        "What is known of every key",
        _map({**_format(keys.FORMAT, keys.VERSION), "now": _MOMENT, "keys": _list(_is("key"))}),
    ),
    "baseline": (
        "Drift that is known and accepted",
        _map(
            {
                **_format(baseline.FORMAT, baseline.VERSION),
                "accepted": _list(
                    _map(
                        {
                            "address": _ADDRESS,
                            "digest": _said(_TEXT, "Stands for what differs there."),
                            "sync": _words(Sync),
                            "about": _said(_TEXT, "For people."),
                        }
                    )
                ),
            }
        ),
    ),
    "check": (
        "One check of `reconcile drift --every`, in one line",
        _map(
            {
                **_format(watch.FORMAT, watch.VERSION),
                "at": _said(_MOMENT, "When the check ended."),
                "code": _said({"enum": list(watch.RESULTS)}, "What `reconcile drift` would have ended with."),
                "result": _words(watch.RESULTS.values(), "The same in a word."),
                "seconds": _NUMBER,
                "resources": _counts(Sync),
                "drifted": _list(
                    _map(
                        {"address": _ADDRESS, "sync": _words(Sync), "reason": _TEXT},
                        {"changed_by": _AUTHOR},
                    )
                ),
                "unseen": _list(_map({"subaccount": _TEXT, "service": _TEXT})),
                "objections": _list(
                    _map({"code": _PROBLEM_PARTS[0]["code"]}, {"address": _ADDRESS}),
                ),
                "expiring": _list(_map({"address": _ADDRESS, "not_after": _MOMENT})),
                "spec_errors": _said(_COUNT, "Problems of the specs; then nothing was compared."),
            }
        ),
    ),
    "problems": (
        "What is wrong with specs, when a command that prints JSON could not go on",
        _map(
            {
                **_format("btp-reconcile/problems", report.VERSION),
                "problems": _list(_is("problem")),
            }
        ),
    ),
    "validation": (
        "What `reconcile validate` prints",
        _map(
            {**_format("btp-reconcile/validation", report.VERSION), "valid": _BOOL},
            {"problems": _list(_is("problem")), "warnings": _list(_is("problem"))},
        ),
    ),
}
"""Name → title and shape."""


def schema(name: str) -> Schema:
    """One published schema, with the definitions it uses and no others."""
    title, shape = PUBLISHED[name]
    used: dict[str, Schema] = {}
    _collect(shape, used)
    return {
        "$schema": DRAFT,
        "$id": f"https://btp-reconcile.invalid/schemas/{name}.schema.json",
        "title": title,
        **shape,
        **({"$defs": {key: used[key] for key in sorted(used)}} if used else {}),
    }


def _collect(shape: Any, used: dict[str, Schema]) -> None:
    if isinstance(shape, dict):
        target = shape.get("$ref")
        if isinstance(target, str):
            name = target.rpartition("/")[2]
            if name not in used:
                used[name] = _DEFINITIONS[name]
                _collect(used[name], used)
        for item in shape.values():
            _collect(item, used)
    elif isinstance(shape, list):
        for item in shape:
            _collect(item, used)


def text(name: str) -> str:
    """The published file's text."""
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"
