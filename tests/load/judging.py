"""What a scenario found: figures, rows of a table, and verdicts, each a value held against its bound."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

Number = int | float
Relation = Literal["is", "at most", "at least"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One value against its bound.

    Attributes:
        what: What was counted or measured, with its unit.
        value: What it was.
        relation: How it has to stand to the bound.
        bound: The bound.
        machine: Whether it depends on the machine and on who shares it: judged by the command, never by tests.
    """

    what: str
    value: Number
    relation: Relation
    bound: Number
    machine: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is as it has to be."""
        match self.relation:
            case "is":
                return self.value == self.bound
            case "at most":
                return self.value <= self.bound
            case "at least":
                return self.value >= self.bound

    def __str__(self) -> str:
        mark = "ok  " if self.holds else "FAIL"
        return f"{mark}  {self.what}: {_short(self.value)} ({self.relation} {_short(self.bound)})"


@dataclass(frozen=True, slots=True)
class Judged:
    """What a run found.

    Attributes:
        verdicts: What has to hold.
        figures: What is worth knowing; units are in the names.
        rows: Samples over the run, all with the same names.
    """

    verdicts: Sequence[Verdict]
    figures: Mapping[str, Number] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Number]] = ()

    @property
    def holds(self) -> bool:
        """Whether everything is as it has to be."""
        return all(verdict.holds for verdict in self.verdicts)

    def broken(self, *, machine: bool) -> list[str]:
        """What is not as it has to be; what depends on the machine only if asked."""
        return [str(verdict) for verdict in self.verdicts if not verdict.holds and (machine or not verdict.machine)]

    def record(self) -> dict[str, object]:
        """For the JSON line of a run."""
        verdicts = [{**asdict(verdict), "holds": verdict.holds} for verdict in self.verdicts]
        return {"holds": self.holds, "figures": dict(self.figures), "verdicts": verdicts, "rows": list(self.rows)}

    def text(self) -> str:
        """For people: the rows as a table, the figures, the verdicts."""
        lines = [*_table(self.rows)]
        lines += [f"      {name}: {_short(value)}" for name, value in self.figures.items()]
        return "\n".join([*lines, *map(str, self.verdicts)])


def per_second(rows: Sequence[tuple[float, float]]) -> float:
    """The slope of a line through points (seconds, value), by least squares; 0 where there are fewer than two."""
    if len(rows) < 2:
        return 0.0
    mean_s = sum(at_s for at_s, _ in rows) / len(rows)
    mean = sum(value for _, value in rows) / len(rows)
    spread = sum((at_s - mean_s) ** 2 for at_s, _ in rows)
    return sum((at_s - mean_s) * (value - mean) for at_s, value in rows) / spread if spread else 0.0


def _table(rows: Sequence[Mapping[str, Number]]) -> list[str]:
    if not rows:
        return []
    texts = [list(rows[0]), *([_short(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in texts]


def _short(value: Number) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return json.dumps(float(f"{value:.4g}")) if abs(value) < 1e6 else f"{value:,.0f}"
