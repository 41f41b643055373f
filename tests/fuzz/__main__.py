"""`python -m tests.fuzz KIND FROM [TO]`: what the tests run, one by one; with one number, in full."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz import cases
from tests.guard.sitecustomize import guard


def say(text: str) -> None:
    """To whoever ran it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(kind: str, first: int, last: int | None) -> int:
    """Run them, and say which break a promise."""
    guard()
    warnings.simplefilter("error")
    codes: Counter[int] = Counter()
    wrong = 0
    begun = time.monotonic()
    for index in range(first, first + 1 if last is None else last):
        with TemporaryDirectory(prefix="fuzz-") as folder:
            if last is None:
                for path in cases.KINDS[kind](index, Path(folder)):
                    say(
                        f"{path.arguments} -> {path.code} {path.broken}\n{path.out[-3000:]}\n{path.err[-6000:]}"
                    )
                continue
            for ran in cases.KINDS[kind](index, Path(folder)):
                codes[ran.code] += 1
                if ran.broken:
                    wrong += 1
                    say(f"=== {kind} {index}: {ran}")
    took = time.monotonic() - begun
    say(f"{kind} {first}..{last}: {wrong} broke a promise; codes {dict(sorted(codes.items()))}; {took:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
