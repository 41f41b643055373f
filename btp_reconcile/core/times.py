"""Times and spans in words."""

from __future__ import annotations

from datetime import UTC, datetime

from btp_reconcile.core.fingerprint import epoch as epoch_of

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
"""The letters of a duration."""
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


_FIRST, _LAST = -62135596800, 253402300799
"""The years 1 to 9999, in epoch seconds. What anybody may write beside a key can lie beyond them."""


def date(epoch: float) -> datetime:
    """Epoch seconds as a date, the nearest one that there is."""
    return datetime.fromtimestamp(min(max(epoch, _FIRST), _LAST), UTC)


def day(epoch: float) -> str:
    """Epoch seconds to the minute: `2026-11-22 10:00 UTC`."""
    found = date(epoch)
    return f"{found.year:04}{found:-%m-%d %H:%M UTC}"


def words(moment: str) -> str:
    """A time as notes and platforms write it, in words; as it is when it is none."""
    epoch = epoch_of(moment)
    return moment if epoch is None else day(epoch)


def span(seconds: float) -> str:
    """Exactly, in the largest unit that does: `36 hours`."""
    for unit, size in _UNITS:
        if seconds >= size and seconds % size == 0:
            return _counted(int(seconds // size), unit)
    return _counted(int(seconds), "second")


def about(seconds: float) -> str:
    """Roughly, in the largest unit that is full: `3 days`."""
    for unit, size in _UNITS:
        if seconds >= size:
            return _counted(int(seconds // size), unit)
    return _counted(int(seconds), "second")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
