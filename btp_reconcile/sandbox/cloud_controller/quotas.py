"""Quotas of organisation and space, as far as services count.

Source: cloudfoundry/cloud_controller_ng app/models/services/constraints/ and errors/v2.yml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btp_reconcile.sandbox.cloud_controller.basics import INSTANCES, KEYS, SPACES, Call, unprocessable

if TYPE_CHECKING:
    from btp_reconcile.sandbox.cloud_controller.catalogue import ListedPlan

PAID = "The service instance cannot be created because paid service plans are not allowed"


def check_instance(call: Call, space_guid: str, listed: ListedPlan) -> None:
    """422 when one more managed instance does not fit."""
    spaces, rows = call.rows(SPACES), call.rows(INSTANCES)
    organization = spaces[space_guid]["organization"]
    managed = [row for row in rows.values() if row["type"] == "managed"]
    most = call.settings["organization_quota"]["services"]
    if most is not None:
        held = sum(spaces[row["space"]]["organization"] == organization for row in managed)
        if held >= most:
            raise unprocessable("You have exceeded your organization's services limit.")
    most = call.settings["space_quota"]["services"]
    if most is not None and sum(row["space"] == space_guid for row in managed) >= most:
        raise unprocessable("You have exceeded your space's services limit.")
    check_paid(call, listed)


def check_paid(call: Call, listed: ListedPlan) -> None:
    """422 when the plan costs something and may not."""
    if listed.plan.free:
        return
    if not call.settings["organization_quota"]["paid"]:
        raise unprocessable(f"{PAID}.")
    if not call.settings["space_quota"]["paid"]:
        raise unprocessable(f"{PAID} for your space.")


def check_key(call: Call, space_guid: str) -> None:
    """422 when one more key does not fit."""
    spaces, rows = call.rows(SPACES), call.rows(INSTANCES)
    homes = [rows[key["instance"]]["space"] for key in call.rows(KEYS).values() if "app" not in key]
    most = call.settings["space_quota"]["keys"]
    if most is not None and homes.count(space_guid) >= most:
        raise unprocessable("You have exceeded your space's limit for service binding of type key.")
    most = call.settings["organization_quota"]["keys"]
    organization = spaces[space_guid]["organization"]
    held = sum(spaces[home]["organization"] == organization for home in homes)
    if most is not None and held >= most:
        raise unprocessable("You have exceeded your organization's limit for service binding of type key.")
