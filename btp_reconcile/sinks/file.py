"""A file on this machine, readable by its owner alone and never half written.

Beside `NAME` lies `.NAME.reconcile`: whose it is, and a salted digest of what was delivered. It is written first. So when
a run is killed between the two, the next one knows the file as ours and sees that its content is not what was
meant. Both are written to a new file and renamed, so that a reader sees the old or the new one.

A copy that a killed run left behind is called `.NAME.reconcile.` and sixteen hexadecimal digits. It has the mode 0600 and is
removed by the next delivery; a lock that dies with its process tells it from one that is being written.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import re
import secrets
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import formats
from btp_reconcile.core.digest import salted
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.sink import CHANGED, FOLDER, LINK, ODD, Held, Identity
from btp_reconcile.sinks._parcel import rooted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btp_reconcile.core.model import Data
    from btp_reconcile.core.sink import Around, Parcel

MODES = ("0600", "0640", "0400", "0440")
LARGEST = 16 * 1024 * 1024
"""Bytes that are read of a file. What is larger was not delivered by us, whatever stands in the rest."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

SCHEMA: Data = {
    "title": "a file",
    "description": "A file on this machine, written whole or not at all, mode 0600.",
    "type": "object",
    "additionalProperties": False,
    "required": ["path"],
    "properties": {
        "path": {
            "$ref": "#/$defs/path",
            "description": "The file; from the spec's folder if it is not absolute.",
        },
        "format": {"type": "string", "enum": [*formats.FORMATS], "description": "Default json."},
        "values": {
            "type": "string",
            "enum": [*formats.VALUES],
            "description": "With format env. quoted (default): for shells and python-dotenv; literal: for "
            "docker run --env-file; base64: every value in base64, for all readers.",
        },
        "prefix": {
            "$ref": "#/$defs/text",
            "description": "Put before every name, with the formats env and properties: APIM_",
        },
        "mode": {
            "type": "string",
            "enum": [*MODES],
            "description": "Who may read it. Default 0600; 0640 and 0440 let the file's group read it.",
        },
        "make_folder": {
            "type": "boolean",
            "description": "Make the file's folder, mode 0700, if it does not exist. Default false.",
        },
    },
}


class FileSink:
    """The sink `file`."""

    name = "file"
    title = "a file on this machine"
    schema: Data = SCHEMA
    access: Data | None = None
    extra = ""
    can_look = True

    def objections(self, block: Data) -> tuple[str, ...]:
        kept = re.fullmatch(r"\..+\.reconcile", os.path.basename(str(block["path"])))
        why = (
            "its name is kept for the notes that lie beside files; choose another" if kept else _misfit(block)
        )
        return (f"file {block['path']}: {why}",) if why else ()

    def place(self, block: Data) -> str:
        return str(block["path"])

    def located(self, access: Data, folder: str) -> Data:  # noqa: ARG002 - no path stands in it
        return access

    def open(self, access: Data, around: Around) -> _Files:  # noqa: ARG002 - files need no access
        return _Files(around)


def _failed(path: str, message: str) -> PlatformError:
    return PlatformError(Blame("file", url=path, message=f"{path}: {message}"))


@contextlib.contextmanager
def _in_words(path: str) -> Iterator[None]:
    """What the system says about a file, without a word of what stands in it."""
    try:
        yield
    except OSError as error:
        raise _failed(path, error.strerror or "it cannot be read or written") from None


class _Files:
    """Keeps nothing open between calls."""

    def __init__(self, around: Around) -> None:
        self._around = around

    def look(self, block: Data) -> Held | None:
        path = self._path(block)
        with _in_words(path):
            try:
                with _opened(path) as spot:
                    return spot.held(_mode(block))
            except FileNotFoundError:
                return None

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        path = self._path(block)
        options = {name: block[name] for name in ("prefix", "values") if name in block}
        try:
            content = formats.text(parcel.content, block.get("format", "json"), **options)
        except formats.Unwritable as error:
            raise _failed(path, str(error)) from None
        with _in_words(path):
            _ensure_folder(path, make=bool(block.get("make_folder")))
            with _opened(path) as spot:
                return spot.put(content, parcel.identity, _mode(block), found)

    def close(self) -> None:
        pass

    def _path(self, block: Data) -> str:
        # A path in a spec begins at the spec's own folder, as everywhere in it.
        written = rooted(str(block["path"]), str(block.get("base") or ""))
        path = os.path.abspath(self._around.folder(written))
        if why := _misfit(block):
            raise _failed(path, why)
        return path


def _misfit(block: Data) -> str:
    """What does not go together in what a spec says; empty: all does."""
    form = block.get("format", "json")
    if "prefix" in block and form == "json":
        return "a prefix goes with the formats env and properties, not with json"
    if "values" in block and form != "env":
        return f"values goes with the format env, not with {form}"
    begins = re.fullmatch(r"([A-Z_][A-Z0-9_]*)?", block.get("prefix", ""), re.ASCII | re.IGNORECASE)
    if form == "env" and not begins:
        return "its prefix is no beginning of a variable's name: take letters, digits and _"
    return ""


def _mode(block: Data) -> int:
    return int(block.get("mode", "0600"), 8)


# --- folders --------------------------------------------------------------------------------------------


def _ensure_folder(path: str, *, make: bool) -> None:
    folder = os.path.dirname(path)
    if os.path.lexists(folder):
        return
    if not make:
        raise _failed(path, f"its folder {folder} does not exist; make it, or write make_folder: true")
    _ensure_folder(folder, make=True)
    why = _objection(os.path.dirname(folder))
    if why:
        raise _failed(path, why)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)


def _alone(gid: int) -> bool:
    """Is this group one user's private group, and that user we or root? Many systems make one for each user."""
    try:
        group = grp.getgrgid(gid)
        user = pwd.getpwnam(group.gr_name)
    except KeyError:
        return False
    mine = user.pw_gid == gid and user.pw_uid in {0, os.geteuid()}
    return mine and set(group.gr_mem) <= {user.pw_name}


def _objection(folder: str) -> str:
    """Why nothing is written there: somebody else could put another file in its place. Empty: it is safe.

    Every folder on the way counts, because who may write one of them can exchange those below. In a sticky folder,
    like /tmp, only the owner of a thing can.
    """
    for start in dict.fromkeys((folder, os.path.realpath(folder))):
        place = start
        while True:
            found = os.stat(place)
            mode = stat.S_IMODE(found.st_mode)
            if found.st_uid not in {0, os.geteuid()}:
                return (
                    f"the folder {place} belongs to another user, who could put another file in its place; "
                    "choose a folder of yours"
                )
            others = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _alone(found.st_gid))
            if others and not mode & stat.S_ISVTX:
                return (
                    f"others may write the folder {place} (mode {mode:04o}) and could put another file in its place; "
                    "take that right away (chmod go-w), or choose another folder"
                )
            above = os.path.dirname(place)
            if above == place:
                break
            place = above
    return ""


@contextlib.contextmanager
def _opened(path: str) -> Iterator[_Spot]:
    """The place of a file in its folder, which stays the same folder whatever is renamed meanwhile."""
    folder, name = os.path.split(path)
    if not name:
        raise _failed(path, "it is a folder; name a file")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        why = _objection(folder)
        if why:
            raise _failed(path, why)
        yield _Spot(path, handle, name)
    finally:
        os.close(handle)


# --- one file and what lies beside it -------------------------------------------------------------------


@dataclass(frozen=True)
class _Note:
    """What stands beside a file."""

    identity: Identity
    digest: str

    def text(self) -> bytes:
        return json.dumps({"version": 1, **asdict(self)}, indent=2).encode() + b"\n"

    @classmethod
    def read(cls, raw: bytes) -> _Note | None:
        try:
            data: Any = json.loads(raw)
            told = data["identity"]
            texts = {name: str(told[name]) for name in ("owner", "spec", "delivery", "key")}
            return cls(Identity(**texts, generation=int(told["generation"])), str(data["digest"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


class _Spot:
    """A name in an opened folder."""

    def __init__(self, path: str, folder: int, name: str) -> None:
        self._path = path
        self._folder = folder
        self._name = name
        self._beside = f".{name}.reconcile"

    def held(self, wished: int) -> Held | None:
        """What lies there."""
        odd = self._odd()
        if odd is None:
            return None
        if odd:
            return Held(foreign=odd)
        note = self._note()
        if not isinstance(note, _Note):
            return Held(foreign=note)
        with self._reading(self._name) as handle:
            found = os.fstat(handle)
            content = _content(handle)
        digest = salted(note.identity.key, content)
        mode = stat.S_IMODE(found.st_mode)
        wrong = []
        if digest != note.digest:
            wrong.append(CHANGED)
        if mode != wished:
            can = "others can read it" if mode & 0o077 & ~wished else f"its mode is not {wished:04o}"
            wrong.append(f"{can} (mode {mode:04o})")
        if found.st_uid != os.geteuid():
            wrong.append(f"it belongs to another user (uid {found.st_uid})")
        if self._left_over():
            wrong.append("a copy that a killed run left lies beside it")
        return Held(digest=digest, identity=note.identity, wrong="; ".join(wrong))

    def put(self, content: bytes, identity: Identity, wished: int, found: Held | None) -> Held:
        """Write it, unless somebody else has come in between."""
        odd = self._odd()
        if odd:
            raise _failed(self._path, f"{odd}; nothing was written")
        note = _Note(identity, salted(identity.key, content))
        now = self.held(wished)
        if now is not None:
            self._unchanged(now, identity, found)
            if now == Held(digest=note.digest, identity=identity):
                return now
        for name in self._left_over():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
        self._write(self._beside, note.text(), 0o600)
        self._write(self._name, content, wished)
        return self.held(wished) or Held()

    def _unchanged(self, now: Held, identity: Identity, found: Held | None) -> None:
        seen = found is not None and found.identity == now.identity and bool(found.foreign or not now.foreign)
        if now.identity == identity or seen:
            return
        if now.identity is not None and now.identity.delivery != identity.delivery:
            raise _failed(
                self._path,
                f"{identity.delivery} and {now.identity.delivery} (owner {now.identity.owner}, spec {now.identity.spec}) both "
                "go to this file, perhaps through a link; nothing was written: choose another place for one of them",
            )
        whose = now.foreign or _whose(now.identity)
        raise _failed(self._path, f"changed meanwhile: {whose}; nothing was written, run again")

    def _odd(self) -> str | None:
        """What else than an ordinary file it is; None: nothing is there."""
        try:
            mode = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(mode):
            return LINK
        if stat.S_ISDIR(mode):
            return FOLDER
        return "" if stat.S_ISREG(mode) else ODD

    def _note(self) -> _Note | str:
        """What stands beside the file, or why it does not count."""
        try:
            with self._reading(self._beside) as handle:
                found = os.fstat(handle)
                raw = _content(handle)
        except FileNotFoundError:
            return "it was not made by reconcile"
        except OSError:
            return f"{self._beside}, which says whose it is, cannot be read"
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return f"others could write {self._beside}, which says whose it is"
        return _Note.read(raw) or f"{self._beside}, which says whose it is, is damaged"

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[int]:
        handle = os.open(name, _READ, dir_fd=self._folder)
        try:
            yield handle
        finally:
            os.close(handle)

    def _write(self, name: str, content: bytes, mode: int) -> None:
        """A new file in the place of the old one, or no change at all."""
        new, handle = self._new()
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchmod(handle, mode)
                os.fsync(handle)
                os.rename(new, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                os.fsync(self._folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=self._folder)
            raise

    def _new(self) -> tuple[str, int]:
        """A new, locked file. Another run that cleans up may be faster than the lock; then once more."""
        while True:
            name = f"{self._beside}.{secrets.token_hex(8)}"
            handle = os.open(name, _MAKE, 0o600, dir_fd=self._folder)
            with contextlib.suppress(OSError):  # where files cannot be locked, nobody cleans up either
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return name, handle
            os.close(handle)

    def _left_over(self) -> list[str]:
        """Copies that nobody is writing any more."""
        ours = re.compile(re.escape(self._beside) + r"\.[0-9a-f]{16}")
        names = os.listdir(self._folder)
        return [name for name in sorted(names) if ours.fullmatch(name) and self._idle(name)]

    def _idle(self, name: str) -> bool:
        try:
            with self._reading(name) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return os.fstat(handle).st_uid == os.geteuid()
        except OSError:
            return False


def _whose(identity: Identity | None) -> str:
    if identity is None:
        return "it is another one now"
    return f"it belongs to {identity.owner}/{identity.spec}, {identity.delivery}, generation {identity.generation} now"


def _content(handle: int) -> bytes:
    parts, left = [], LARGEST + 1
    while left and (part := os.read(handle, min(left, 1024 * 1024))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
