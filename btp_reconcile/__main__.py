"""`python -m btp_reconcile` is `reconcile`."""

from btp_reconcile.cli import main

if __name__ == "__main__":
    main()
