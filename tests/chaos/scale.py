"""How long a run is, how much it asks for, and what befalls it. PURE."""

from __future__ import annotations

from dataclasses import dataclass

from .schedule import Kind


@dataclass(frozen=True)
class Scale:
    """How long, how much, what.

    Attributes:
        seed: Of the first round; the next ones follow it.
        duration_s: No round begins later.
        kinds: What befalls it.
        round_s: How long a round's load and strikes last.
        gap_s: Between two strikes, about.
        workers: How many there are to be.
        rate: Requests a second.
        patience_s: Without any progress for so long after a round something is stuck.
        retention_s: How long results and journals are kept: longer than an outage of Kafka and what has to be read
            again after it, since what has expired is not known any more when its record comes a second time.
    """

    seed: int
    duration_s: float
    kinds: tuple[Kind, ...]
    round_s: float = 60.0
    gap_s: float = 2.0
    workers: int = 3
    rate: float = 8.0
    patience_s: float = 150.0
    retention_s: float = 240.0
