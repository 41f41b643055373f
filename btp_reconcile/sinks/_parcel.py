"""What is common to sinks: a parcel as text, the secrets that no message may hold, and who else was there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import credentials, digest
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.model import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btp_reconcile.core.model import Data
    from btp_reconcile.core.sink import Held, Parcel

FIELD = {
    "type": "string",
    "description": "Only one field of the credentials, in place of all as JSON: url, token_url, client_id, "
    "client_secret, certificate, private_key, cert_token_url, or a dotted path.",
}
"""The word `field` of a sink whose value is one text."""


def compact(value: Any) -> str:
    """A JSON value as text without blanks, secrets revealed."""
    return json.dumps(digest.plain(value), separators=(",", ":"), ensure_ascii=False)


def text_of(service: str, content: Data, field: str) -> str:
    """The credentials as one text: one field of them, or all as JSON. Raises PlatformError when it is not there."""
    if not field:
        return compact(content)
    found: Any = None
    try:
        found = credentials.field(credentials.read(content, None), field)
    except (credentials.ShapeError, KeyError):
        found = credentials.at(content, field)
    if isinstance(found, Secret):
        return found.reveal()
    if isinstance(found, str):
        return found
    if found is None:
        names = ", ".join(sorted(map(str, content)))
        words = f"the credentials hold no field {field!r}; at their top they have {names}"
        raise PlatformError(Blame(service, message=words))
    return compact(found)


def secrets_of(value: Any) -> Iterator[str]:
    """Every text that a message must not hold."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from secrets_of(item)


def unsecret(value: Any) -> str:
    """A text of the access; empty for none."""
    return value.reveal() if isinstance(value, Secret) else str(value or "")


def rooted(path: str, folder: str) -> str:
    """A path as it stands in a spec, seen from where the spec's folder is seen from. `~` is the user's own folder."""
    return os.path.join(folder, os.path.expanduser(path))  # noqa: PTH111, PTH118 - a text stays a text


def from_folder(access: Data, name: str, folder: str) -> Data:
    """An access whose path of this name starts at a folder. Several are separated as in PATH; what comes from a variable
    stays as hidden as it was.
    """
    written = access.get(name)
    given = unsecret(written)
    if not given:
        return access
    found = os.pathsep.join(rooted(one, folder) for one in given.split(os.pathsep) if one)
    return {**access, name: Secret(written.name, found) if isinstance(written, Secret) else found}


def undisturbed(service: str, place: str, parcel: Parcel, found: Held | None, now: Held | None) -> None:
    """Raises PlatformError when somebody else wrote there since the last look.

    What a run of ours wrote that was killed afterwards disturbs nobody, and what has gone since is simply made again.
    """
    if now is None or now.identity == parcel.identity:
        return
    if found is None:
        words = f"{place} came into being since it was looked at; it is not overwritten: plan again"
    elif (now.identity, now.version, now.digest) != (found.identity, found.version, found.digest):
        words = f"{place} was changed by others since it was looked at; it is not overwritten: plan again"
    else:
        return
    raise PlatformError(Blame(service, message=words))
