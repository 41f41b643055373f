"""Declare SAP BTP API access in Git: entitlements, API instances and service keys."""

__version__ = "0.1.0"

__all__ = ["__version__"]
