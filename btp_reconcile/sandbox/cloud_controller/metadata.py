"""Labels and annotations: their grammar, their limits, and how a PATCH merges them.

Source: cloudfoundry/cloud_controller_ng app/messages/validators/metadata_validator.rb, app/actions/labels_update.rb,
app/actions/annotations_update.rb.
"""

from __future__ import annotations

import re
from typing import Any

from btp_reconcile.sandbox.cloud_controller.basics import Call, Row, error

_SIGNS = re.compile(r"[A-Za-z0-9_.\-]*")
_DNS = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
NAME_MAX = 63
ANNOTATION_MAX = 5000


def problems(body: dict[str, Any]) -> list[str]:
    """What is wrong with the ``metadata`` of a request body, in the platform's words."""
    metadata = body.get("metadata")
    if metadata is None:
        return []
    if not isinstance(metadata, dict):
        return ["Metadata must be an object"]
    found = []
    stray = [key for key in metadata if key not in {"labels", "annotations"}]
    if stray:
        found.append(f"Metadata has unexpected field(s): {', '.join(repr(key) for key in stray)}")
    for kind, member in (("label", "labels"), ("annotation", "annotations")):
        entries = metadata.get(member)
        if entries is None:
            continue
        if not isinstance(entries, dict):
            found.append(f"Metadata '{member}' is not an object")
            continue
        for key, value in entries.items():
            found += [f"Metadata {kind} key error: {text}" for text in _key_problems(key)]
            if value is not None:
                texts = _label_value(value) if kind == "label" else _annotation_value(value)
                found += [f"Metadata {kind} value error: {text}" for text in texts]
    return found


def _cut(text: str) -> str:
    return text[:7] + "..."


def _key_problems(key: str) -> list[str]:
    if key.count("/") > 1:
        return ["key has more than one '/'"]
    prefix, slash, name = key.rpartition("/")
    found = []
    if slash:
        if not _DNS.fullmatch(prefix):
            found.append(f"prefix '{prefix}' must be in valid dns format")
        elif prefix.lower() == "cloudfoundry.org":
            found.append("prefix 'cloudfoundry.org' is reserved")
    if not name:
        return [*found, "key cannot be empty string"]
    return found + _word_problems(name)


def _word_problems(word: str) -> list[str]:
    found = []
    if not _SIGNS.fullmatch(word):
        found.append(f"'{word}' contains invalid characters")
    elif word and not (word[0].isalnum() and word[-1].isalnum()):
        found.append(f"'{word}' starts or ends with invalid characters")
    if len(word) > NAME_MAX:
        found.append(f"'{_cut(word)}' is greater than {NAME_MAX} characters")
    return found


def _label_value(value: Any) -> list[str]:
    return _word_problems(value if isinstance(value, str) else str(value))


def _annotation_value(value: Any) -> list[str]:
    text = value if isinstance(value, str) else str(value)
    return (
        [f"'{_cut(text)}' is greater than {ANNOTATION_MAX} characters"] if len(text) > ANNOTATION_MAX else []
    )


def merge(call: Call, row: Row, body: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Labels and annotations of a row after a request; a null removes. Raises 422 beyond the limits."""
    wanted = body.get("metadata") or {}
    result = {}
    for member, most, code, title in (
        ("labels", call.settings["labels_max"], 390020, "LabelLimitExceeded"),
        ("annotations", call.settings["annotations_max"], 390023, "AnnotationLimitExceeded"),
    ):
        changes = wanted.get(member) or {}
        kept = {**row.get(member, {}), **{key: value for key, value in changes.items() if value is not None}}
        kept = {key: str(value) for key, value in kept.items() if changes.get(key, "") is not None}
        if changes and len(kept) > most:
            added = sum(value is not None for value in changes.values())
            raise error(
                422, code, title, f"Failed to add {added} {member} because it would exceed maximum of {most}"
            )
        result[member] = kept
    return result


def shown(row: Row) -> dict[str, dict[str, str]]:
    """The ``metadata`` of an answer."""
    return {"labels": row["labels"], "annotations": row["annotations"]}
