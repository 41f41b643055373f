"""export: what is live in a subaccount and not described yet, as a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import talk, work
from btp_reconcile.cli.hide import hidden
from btp_reconcile.cli.world import Setting
from btp_reconcile.core import report
from btp_reconcile.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btp_reconcile.core.model import Subaccount, Wanted


def export(subaccount: str, specs: Sequence[str], *, log_format: str, **where: Any) -> int:
    """Look, and print the spec. What could not be looked at is said in it, and ends with 1."""
    with talk.telling(log_format) as events, Setting(**where).world(events) as world:
        prepared = pipeline.prepare(work.paths(specs), world, whole=subaccount)
        place = _place(subaccount, prepared.wanted)
        text, unseen = pipeline.export(prepared, world, place)
        talk.document(hidden(prepared.wanted, world).without(text))
        blind = [one for one in unseen if one.code == "platform/unseen"]
        talk.problems(blind) if blind else None
        return report.FAILED if blind else report.DONE


def _place(said: str, wanted: Wanted) -> Subaccount:
    for name, one in wanted.subaccounts.items():
        if said in {name, one.id} or said.lower() == one.id.lower():
            return one
    raise UsageError(
        f"no spec says where subaccount {said} is{talk.nearest(said, wanted.subaccounts)}; a spec with its id, region, "
        "cloud_foundry and access is enough"
    )
