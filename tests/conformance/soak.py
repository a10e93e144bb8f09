"""`python -m tests.conformance.soak --minutes 10`: random programs on workers that are killed, until the time is over.

Ends with 1 at the first failure, and says its seed and the smallest program found that fails, too.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path

from perdure.worker.clock import system_random
from tests.conftest import NAMESPACE_LETTERS
from tests.servers import lane

from .random_programs import Plan, size, smaller, to_json
from .random_rounds import Place, Round, Tally, make_round, run_round

SHRINK_MINUTES = 10.0
TRIES = 2
"""How often a smaller program is run before it counts as one that does not fail: what fails here is often a race."""


async def soak(*, minutes: float, seed: int | None, directory: Path) -> int:
    """Run rounds until the time is over; the exit code.

    Args:
        minutes: After so long no further round begins.
        seed: Of the first round; the next ones follow it.
        directory: For servers, logs and traces.
    """
    first = system_random().getrandbits(24) if seed is None else seed
    deadline, tally, number = time.monotonic() + minutes * 60, Tally(), 0
    redis = await lane.new_redis(directory / "redis")
    try:
        broker = await lane.new_broker(directory / "broker")
        try:
            place = Place(f"redis://{redis.address}", broker.address, directory / "rounds")
            while time.monotonic() < deadline:
                # Plans have seeds of their own, which follow that of the round.
                wanted = make_round(first + 10 * number)
                failure = await _failure(wanted, place, tally)
                if failure:
                    _say(f"SEED={wanted.seed} fails:\n{failure}\n{tally}")
                    await _shrunk(wanted, place)
                    return 1
                number += 1
                _say(
                    f"seed {wanted.seed}, {wanted.hits} hits, {'replay' if wanted.always_replay else 'plain'}: {tally}"
                )
        finally:
            await broker.stop()
    finally:
        await redis.stop()
    _say(f"No failure: {tally}")
    return 0


async def _failure(wanted: Round, place: Place, tally: Tally) -> str:
    namespace = "s" + "".join(system_random().choices(NAMESPACE_LETTERS, k=8))
    try:
        await run_round(wanted, place, namespace=namespace, tally=tally)
    except AssertionError as error:
        return str(error)
    shutil.rmtree(place.directory / namespace)
    return ""


async def _shrunk(wanted: Round, place: Place) -> None:
    """Leave out what the failure does not need, for as long as there is time."""
    deadline = time.monotonic() + SHRINK_MINUTES * 60
    smallest, last = wanted, ""
    while time.monotonic() < deadline:
        for candidate in _smaller(smallest):
            failure = await _fails(candidate, place, deadline)
            if failure:
                smallest, last = candidate, failure
                _say(f"still fails with {sum(map(size, candidate.plans))} commands and {candidate.hits} hits")
                break
        else:
            break
    _say(f"The smallest found ({smallest.hits} hits, always_replay={smallest.always_replay}):\n{last}")
    for plan in smallest.plans:
        _say(to_json(plan))


def _smaller(wanted: Round) -> list[Round]:
    plans = wanted.plans
    fewer = [plans[:index] + plans[index + 1 :] for index in range(len(plans))] if len(plans) > 1 else []
    one: list[tuple[Plan, ...]] = [
        (*plans[:index], shorter, *plans[index + 1 :]) for index, plan in enumerate(plans) for shorter in smaller(plan)
    ]
    calmer = [dataclasses.replace(wanted, hits=wanted.hits - 1)] if wanted.hits else []
    return [*(dataclasses.replace(wanted, plans=chosen) for chosen in fewer), *calmer] + [
        dataclasses.replace(wanted, plans=chosen) for chosen in one
    ]


async def _fails(candidate: Round, place: Place, deadline: float) -> str:
    for _ in range(TRIES):
        if time.monotonic() > deadline:
            break
        failure = await _failure(candidate, place, Tally())
        if failure:
            return failure
    return ""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is the command's output


def main() -> int:
    """Read the flags, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    flags = parser.parse_args()
    lane.prepare()
    directory = Path(tempfile.mkdtemp(prefix="perdure-soak-"))
    code = asyncio.run(soak(minutes=flags.minutes, seed=flags.seed, directory=directory))
    if code == 0:
        shutil.rmtree(directory)
    else:
        _say(f"Logs and traces are in {directory}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
