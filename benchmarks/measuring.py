"""The measuring that all scenarios share: windows of work, what they cost, and the record of a run."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from .machine import MachineTime, cpu_seconds, machine_time

WARM_UP_S = 1.5
"""Connections, caches and the interpreter's specialised code are warm after about a second."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        windows: How many windows; a scenario's value is the median over them.
        seconds: How long each one is, where a window is a time and not a piece of work.
    """

    windows: int = 5
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Window:
    """One window.

    Attributes:
        seconds: How long it was.
        operations: How many were done in it.
        values: What was measured, by name.
        cpu_seconds: User and system time, by role.
        other_load_cores: Non-idle CPU of the machine that was not ours; a figure with more than 0.3 is a lower bound.
        steal_seconds: CPU time that the host gave to others, summed over the cores.
    """

    seconds: float
    operations: float
    values: Mapping[str, float]
    cpu_seconds: Mapping[str, float]
    other_load_cores: float
    steal_seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a scenario returns.

    Attributes:
        units: The unit of each value of the windows; the first one is the scenario's value.
        operation: What `operations` of the windows counts.
        windows: The windows.
        payload_bytes: Of one operation's result.
        concurrency: Operations, or invocations of many operations, at once.
        notes: What else should be known of this run.
    """

    units: Mapping[str, str]
    operation: str
    windows: Sequence[Window]
    payload_bytes: int
    concurrency: int
    notes: Mapping[str, object] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """The measured part of a run's JSON object."""
        cpu = {role: sum(w.cpu_seconds[role] for w in self.windows) for role in self.windows[0].cpu_seconds}
        operations = sum(window.operations for window in self.windows)
        served = sum(seconds for role, seconds in cpu.items() if role != "client")
        summaries = {name: self._summary(name) for name in self.units}
        name = next(iter(self.units))
        return {
            **summaries.pop(name),
            "also": summaries,
            "operation": self.operation,
            "operations": operations,
            "cpu_seconds": cpu,
            "operations_per_cpu_second": _ratio(operations, sum(cpu.values())),
            "operations_per_cpu_second_without_client": _ratio(operations, served),
            "cpu_us_per_operation": {role: _ratio(seconds * 1e6, operations) for role, seconds in cpu.items()},
            "payload_bytes": self.payload_bytes,
            "concurrency": self.concurrency,
            "other_load_cores": statistics.fmean(window.other_load_cores for window in self.windows),
            "steal_seconds": sum(window.steal_seconds for window in self.windows),
            "windows": [asdict(window) for window in self.windows],
            "notes": dict(self.notes),
        }

    def _summary(self, name: str) -> dict[str, object]:
        values = [window.values[name] for window in self.windows if name in window.values]
        return {
            "measures": name,
            "value": statistics.median(values),
            "unit": self.units[name],
            "range": [min(values), max(values)],
            "all": values,
        }


class Moment:
    """The counters at one moment; `until_now` is the window since then."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.at_s = time.perf_counter()
        self._pids = pids
        self._cpu_s = _cpu_by_role(pids)
        self._machine: MachineTime = machine_time()

    def until_now(self, operations: float, values: Mapping[str, float]) -> Window:
        """Return the window from this moment until now."""
        seconds = time.perf_counter() - self.at_s
        cpu = {role: now - self._cpu_s[role] for role, now in _cpu_by_role(self._pids).items()}
        machine = machine_time()
        other = machine.busy_s - self._machine.busy_s - sum(cpu.values())
        return Window(
            seconds, operations, values, cpu, max(0.0, other / seconds), machine.steal_s - self._machine.steal_s
        )


def _cpu_by_role(pids: Mapping[str, int]) -> dict[str, float]:
    # The client is this process, whose children are counted by their own roles.
    return {**dict(zip(pids, cpu_seconds(pids.values()), strict=True)), "client": time.process_time()}


async def timed_windows(
    plan: Plan,
    pids: Mapping[str, int],
    *,
    count: Callable[[], Awaitable[float]],
    values: Callable[[float, float], Mapping[str, float]],
) -> list[Window]:
    """Cut the load that is running into windows, after a warm-up.

    Args:
        plan: How many and how long.
        pids: The process of each role.
        count: How many operations were done since the load began.
        values: What was measured in a window, from its operations and its seconds.
    """
    await asyncio.sleep(WARM_UP_S)
    windows = []
    moment, before = Moment(pids), await count()
    values(0.0, 1.0)
    for _ in range(plan.windows):
        await asyncio.sleep(plan.seconds)
        after = await count()
        seconds = time.perf_counter() - moment.at_s
        windows.append(moment.until_now(after - before, values(after - before, seconds)))
        moment, before = Moment(pids), after
    return windows


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of `values` lies; not a number where there are none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else math.nan


def _ratio(dividend: float, divisor: float) -> float | None:
    return dividend / divisor if divisor else None
