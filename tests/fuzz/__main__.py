"""`make fuzz SECONDS=60 [SEED=…]`: inputs that are nearly right, for as long as it is told; or led by coverage.

```
python -m tests.fuzz --seconds 600 [--seed 7] [--target record]
python -m tests.fuzz --atheris --target record -- -max_total_time=600     # where atheris is installed
```

An input that breaks something is printed, and added to `tests/fuzz/test_fuzz.py` with the mend.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from pathlib import Path

from .mutation import Mutator

INPUTS_PER_TURN = 500
"""Of one target, before the next one has its turn."""


def main() -> int:
    """Fuzz, and return how many targets were broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--target", action="append", help="Repeatable; without it all, one after the other.")
    parser.add_argument("--atheris", action="store_true", help="Led by coverage; one --target, libFuzzer's flags last.")
    parser.add_argument("rest", nargs="*")
    asked = parser.parse_args()
    if asked.atheris:
        return _led_by_coverage(asked.target[0], asked.rest)
    _say(f"seed {asked.seed}")
    return _mutate(asked.target, seconds=asked.seconds, seed=asked.seed)


def _mutate(asked: list[str] | None, *, seconds: float, seed: int) -> int:
    from .targets import TARGETS

    names = asked or sorted(TARGETS)
    until_s = time.monotonic() + seconds
    mutators = {name: Mutator(TARGETS[name].seeds, random.Random(f"{seed} {name}")) for name in names}
    counts = dict.fromkeys(names, 0)
    broken: set[str] = set()
    while time.monotonic() < until_s and len(broken) < len(names):
        for name in [name for name in names if name not in broken]:
            for _ in range(INPUTS_PER_TURN):
                data = mutators[name]()
                counts[name] += 1
                try:
                    TARGETS[name].check(data)
                except Exception as error:
                    _say(f"{name} was broken by {data!r}: {error!r}")
                    broken.add(name)
                    break
    for name in names:
        _say(f"{name:<10} {counts[name]:>10} inputs{'  BROKEN' if name in broken else ''}")
    return len(broken)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _led_by_coverage(name: str, flags: list[str]) -> int:
    # Not among our dependencies: it has no wheels for every Python that we run on.
    atheris = importlib.import_module("atheris")
    # Nothing of ours is imported before: what is imported in this block, and nothing else, is instrumented.
    with atheris.instrument_imports(include=["perdure"]):
        from .targets import TARGETS
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(data)
        atheris.Setup([sys.argv[0], corpus, *flags], lambda data: target.check(bytes(data)))
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
