"""What can go wrong, as types. A class exists only where some code acts differently.

```
ReconcileError
├── SpecError         yours to fix: the spec, its inputs or a variable          (exit 3)
├── UsageError        the command line asks for something that cannot be        (exit 64)
├── Refused           unsafe, conflicting or stale; nothing was written         (exit 4)
└── PlatformError     the platform said no, or could not be understood          (exit 1)
    ├── LostResponse      sent, but no answer came back: it may have happened
    ├── TooSoon           a known limit is used up; nothing was sent, and it says when to come again
    ├── Unreachable       no connection: it did not happen
    ├── SignInRefused     wrong or missing credentials; final for that user in this run
    └── HostRefused       a credential was about to go to a host that is not allowed
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btp_reconcile.core.model import Problem


class ReconcileError(Exception):
    """Everything this program raises on purpose."""


class SpecError(ReconcileError):
    """The spec or its inputs are wrong. Carries every problem, in the order of the files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{len(self.problems)} problem(s) in the spec")


class UsageError(ReconcileError):
    """The command line asks for something that cannot be done."""


class Refused(ReconcileError):
    """Not done because it is unsafe, in conflict or no longer what was approved."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


@dataclass(frozen=True)
class Blame:
    """What the platform said, mapped once: nobody reads message texts after this.

    `status` is the HTTP status (0 when there was none), `code` SAP's own code or title, `correlation` the id
    that support asks for, `wait` the seconds the platform asked for.
    """

    service: str
    method: str = ""
    url: str = ""
    status: int = 0
    code: str = ""
    message: str = ""
    correlation: str = ""
    repeatable: bool = False
    wait: float | None = None
    attempts: int = 1
    first: str = ""

    def __str__(self) -> str:
        parts = [f"{self.service}: {self.message or 'no answer'}"]
        said = " ".join(
            part for part in (str(self.status) if self.status else "", self.code) if part and part != "0"
        )
        if said:
            parts.append(f"[{said}]")
        if self.correlation:
            parts.append(f"(correlation id {self.correlation})")
        if self.attempts > 1:
            parts.append(f"after {self.attempts} attempts")
        if self.first:
            parts.append(f"first error: {self.first}")
        return " ".join(parts)


class PlatformError(ReconcileError):
    """The platform refused, failed or answered something that cannot be understood."""

    def __init__(self, blame: Blame) -> None:
        self.blame = blame
        super().__init__(str(blame))


class LostResponse(PlatformError):
    """The request was sent and no answer came back: it may or may not have happened."""


class TooSoon(PlatformError):
    """A known limit is used up. Nothing was sent; `blame.wait` says in how many seconds it may be."""


class Unreachable(PlatformError):
    """No connection could be made: the request did not happen."""


class NotAsKnown(PlatformError):
    """It was given, and has another form than is known. Asking again gives the same."""


class SignInRefused(PlatformError):
    """The platform does not accept these credentials. Repeating locks accounts, so nobody tries again."""


class HostRefused(PlatformError):
    """The address is not one that credentials may be sent to."""
