"""A Service Manager key opens one subaccount, and its token says which."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.model import Action
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from btp_reconcile.core.model import Wanted

OTHER = "22222222-2222-4222-8222-222222222222"
SPEC = """\
version: 1
owner: finance
subaccounts:
  prod:
    id: 11111111-1111-4111-8111-111111111111
    region: eu10
    instances:
      one: {service: sandbox-config, plan: standard, runtime: other}
"""


class Mistaken(Bench):
    """Somebody pasted the key of another subaccount."""

    def access(self, wanted: Wanted) -> Mapping[str, Mapping[str, Any]]:
        keys = super().access(wanted)
        key = self.sandbox.access()["service_manager"][OTHER]
        return {
            name: {**mine, "service_manager": {"service_key": json.dumps(key)}} for name, mine in keys.items()
        }


def test_the_key_of_another_subaccount_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    bench = Mistaken(tmp_path)
    bench.sandbox.seed({"subaccounts": {"test": {"id": OTHER, "region": "eu10"}}})

    planned = bench.plan(bench.write(SPEC))

    assert [
        str(one.address)
        for one in planned.plan.changes
        if one.action is Action.CREATE and one.address.kind == "instance"
    ] == []
    (problem,) = planned.plan.unseen
    assert problem.code == "platform/unseen"
    assert f"(11111111-1111-4111-8111-111111111111) opens subaccount {OTHER}" in problem.message


def test_the_right_key_is_not_complained_about(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    assert bench.plan(bench.write(SPEC)).plan.unseen == ()
