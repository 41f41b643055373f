"""report merge: the plans of all shards, put together and decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btp_reconcile.cli import look, planfile
from btp_reconcile.core import parts, report
from btp_reconcile.core.errors import Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def merge(plans: Sequence[str], format_: str, out: str | None) -> int:
    """Show the sum, and write it down for who applies a part of it."""
    if out is not None:
        planfile.check_name(out)
    given = planfile.whole(plans)
    try:
        if problems := parts.wrong(given):
            raise Refused(problems)
        merged = parts.merged(given)
    except look.CHANGED:
        raise UsageError("one of these plans was changed after it was written: plan again") from None
    look.plan(merged, format_, 0)
    if out is not None:
        planfile.save(out, merged)
    if merged["objections"]:
        return report.REFUSED
    unseen = any(one["code"] == "platform/unseen" for one in merged["unseen"])
    return report.FAILED if unseen else report.DONE
