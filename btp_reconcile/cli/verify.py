"""verify: does each key work?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import planfile, talk, work
from btp_reconcile.cli.hide import Hidden, hidden, within
from btp_reconcile.cli.world import Setting
from btp_reconcile.core import verdict
from btp_reconcile.core.shards import Shard
from btp_reconcile.core.view import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def verify(
    specs: Sequence[str],
    *,
    target: Sequence[str],
    format_: str,
    log_format: str,
    shard: str | None = None,
    **where: Any,
) -> int:
    """Look at what is there, try every key that is wanted, and say how that went."""
    part = planfile.shard_of(shard, os.environ)
    with talk.telling(log_format) as log:
        told = [log]  # the last one is told: while keys are tried, retries belong to the progress, too
        what = Hidden()

        def events(event: str, fields: Mapping[str, Any]) -> None:
            told[-1](event, within(fields, what))

        with Setting(**where).world(events) as world:
            policy = Policy(world.clock.now(), targets=planfile.addresses(target, "--target"))
            with work.spoken(format_):
                prepared = pipeline.prepare(work.paths(specs), world, Shard.parse(part) if part else None)
                planned = pipeline.make_plan(prepared, world, policy)
            work.known(planned, policy)
            what = hidden(planned.prepared.wanted, world)
            with talk.telling(log_format, len(planned.prepared.wanted.of("key"))) as progress:
                told.append(progress)
                found = pipeline.verify(planned, world, policy.targets)
                told.pop()
            shown = within(verdict.verdicts_json(found), what)
            if format_ == "json":
                talk.data(shown)
            else:
                talk.lines(verdict.verdicts_text(shown), wrap=True)
            return verdict.verdicts_exit(found)
