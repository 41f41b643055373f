"""What a sink must say: a place outside the platform where a key's credentials are delivered to.

A sink is one file in `sinks/`. It is opened with its access, looked at while planning, and written to while applying. It
never sleeps, retries, logs or prints; it raises `errors.PlatformError` and its kin, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btp_reconcile.core.model import Data


CHANGED = "its content is not what was delivered"
"""What a sink says in `Held.wrong` of a change that its digest shows as well."""
LINK = "it is a symbolic link, which is not followed"
FOLDER = "it is a folder"
ODD = "it is no ordinary file"
NEVER = frozenset({LINK, FOLDER, ODD})
"""What a sink says in `Held.foreign` of a thing that is not overwritten, whatever a spec says."""


@dataclass(frozen=True)
class Identity:
    """Which key is meant. No secret; it is kept beside the credentials where the consumer can hold it."""

    owner: str
    spec: str
    delivery: str
    """Text of the delivery's address: `delivery:prod/apim/transport/main`."""
    key: str
    """The key's guid on the platform. Also the salt of digests: see `core/digest.py`."""
    generation: int


@dataclass(frozen=True)
class Parcel:
    """What is handed to a consumer."""

    content: Mapping[str, Any]
    """The credentials in the shape that was asked for. Every value that may be secret is a `Secret`."""
    identity: Identity


@dataclass(frozen=True)
class Held:
    """What a consumer holds now, as far as it can be known without reading a secret that need not be read.

    The engine writes `version` and `digest` into the receipt on the key; the next plan compares them with what
    is looked up then. An empty text makes no statement.
    """

    version: str = ""
    """The consumer's own version (Vault: version number; GitHub: time of the last change). At most 64 characters."""
    digest: str = ""
    """Salted digest of what is there, by `core.digest.salted`, where reading it is needed to see a change."""
    identity: Identity | None = None
    """What the consumer says whose it is."""
    foreign: str = ""
    """Why it is somebody else's, in words; empty: ours, or it cannot be told."""
    wrong: str = ""
    """What else is wrong with it and would be mended by delivering again: "others can read it (mode 0644)"."""


@dataclass(frozen=True)
class Around:
    """What a sink may use of the world."""

    environment: Mapping[str, str]
    check: Callable[[str], None]
    """Raises HostRefused unless credentials may be sent to this URL. Called before anything is sent there."""
    folder: Callable[[str], str]
    """A path as a spec writes it → an absolute one. Raises PlatformError where it may not lead."""
    read: Callable[[str], bytes]
    """A file's content. Raises OSError, in words, also for what may have no end."""
    commands: bool = False
    """Was `--allow-commands` given?"""
    timeout: float = 30.0
    """Seconds that one request, or one command, may take."""
    now: Callable[[], float] = field(default=lambda: 0.0)
    """Epoch seconds, by the clock that consumers go by."""


class Consumer(Protocol):
    """One opened sink. Any number of threads."""

    def look(self, block: Data) -> Held | None:
        """What is there now; None: nothing. Reads only."""

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        """Deliver; putting the same parcel twice is harmless. `found` is what the last look saw (check-and-set).

        Gives what is there afterwards.
        """

    def close(self) -> None:
        """Let go of connections."""


class Sink(Protocol):
    """One kind of consumer."""

    @property
    def name(self) -> str:
        """The word in a spec: `vault`."""

    @property
    def title(self) -> str:
        """In words, for `reconcile kinds delivery`: "a version in a KV v2 secrets engine"."""

    @property
    def schema(self) -> Data:
        """JSON Schema of its block in a spec; `additionalProperties: false`."""

    @property
    def access(self) -> Data | None:
        """JSON Schema of `access.<name>`; None: it needs no access of its own."""

    def located(self, access: Data, folder: str) -> Data:
        """Its access with every path in it starting at `folder`, which is that of the spec that says so."""

    @property
    def extra(self) -> str:
        """The extra to install (`vault`), or empty."""

    @property
    def can_look(self) -> bool:
        """False: what was delivered cannot be seen again (a command). Its consumer is never asked to look; what it was
        given is known by the receipt on the key alone.
        """

    def objections(self, block: Data) -> tuple[str, ...]:
        """What is wrong with a block, in words; values from outside are not filled in yet."""

    def place(self, block: Data) -> str:
        """Where it goes, in words that fit into one line: `secret/apim/pipeline`. No secret."""

    def open(self, access: Data, around: Around) -> Consumer:
        """Ready to look and to put. Asks nobody yet. Raises SpecError when the access lacks something."""


class ConsumerDoor(Protocol):
    """What drivers of deliveries are handed in place of a service's door."""

    @property
    def consumer(self) -> Consumer:
        """The opened sink."""
