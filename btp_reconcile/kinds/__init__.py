"""The kinds of resources. To add one, write its file and name it here; the order is the order of work."""

from btp_reconcile.core.kind import Kind
from btp_reconcile.kinds import entitlement, instance, key

KINDS: tuple[Kind, ...] = (entitlement.KIND, instance.KIND, key.KIND)

__all__ = ["KINDS"]
