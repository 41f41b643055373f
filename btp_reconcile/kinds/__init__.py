"""The kinds of resources. To add one, write its file and name it here; the order is the order of work."""

from btp_reconcile.core.kind import Kind
from btp_reconcile.kinds import access, delivery, destination, entitlement, instance, key

KINDS: tuple[Kind, ...] = (
    access.KIND,
    entitlement.KIND,
    instance.KIND,
    key.KIND,
    delivery.KIND,
    destination.KIND,
)

__all__ = ["KINDS"]
