"""Addresses as plans and reports hold them: texts, of which views show the parts as they are written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Addressed:
    """Something with an address: `instance:prod/apim`."""

    address: str

    @property
    def kind(self) -> str:
        return self.address.partition(":")[0]

    @property
    def path(self) -> str:
        """What follows its kind."""
        return self.address.partition(":")[2]

    @property
    def subaccount(self) -> str:
        """The spec's name of its subaccount."""
        return self.path.partition("/")[0]

    @property
    def label(self) -> str:
        """Its name within its subaccount."""
        return self.path.partition("/")[2] or self.subaccount
