"""Salted digests of what was delivered, so that a change at the consumer is seen without keeping anything secret.

What brokers generate is random through and through, so 64 bits of a digest that is salted with the key's own guid help
nobody to guess it. Values that people choose never enter a digest this way (see `fingerprint.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from btp_reconcile.core.model import Secret

LENGTH = 16
"""Hexadecimal digits."""


def salted(salt: str, content: bytes) -> str:
    """The digest of bytes; `salt` is the key's guid."""
    return hmac.new(salt.encode(), content, hashlib.sha256).hexdigest()[:LENGTH]


def of_json(salt: str, value: Any) -> str:
    """The digest of a JSON value, whatever the order of its members; `Secret`s in it count by what they hide."""
    return salted(salt, json.dumps(plain(value), sort_keys=True, separators=(",", ":")).encode())


def plain(value: Any) -> Any:
    """A JSON value with its secrets revealed. For the moment of sending or comparing; for nothing else."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def hidden(value: Any, name: str) -> Any:
    """A JSON value from a platform in which every text is a `Secret`, named by its path."""
    if isinstance(value, str):
        return Secret(name, value)
    if isinstance(value, Mapping):
        return {str(key): hidden(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [hidden(item, f"{name}.{index}") for index, item in enumerate(value)]
    return value
