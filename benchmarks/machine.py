"""What the kernel knows: CPU time of process trees, load of the whole machine, and what machine it is. Linux only."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MachineTime(NamedTuple):
    """Since boot, summed over all cores, in seconds. `busy_s` leaves out idling, waiting for disks, and steal."""

    busy_s: float
    steal_s: float


class Process(NamedTuple):
    """A process's parent, and its user and system seconds with those of its children that have ended."""

    parent: int
    cpu_s: float


def machine_time() -> MachineTime:
    """Read `/proc/stat`."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return MachineTime((user + nice + system + irq + softirq) / TICKS_PER_S, steal / TICKS_PER_S)


def cpu_seconds(roots: Iterable[int]) -> list[float]:
    """User and system seconds of each process tree, in the order of `roots`; 0 for one that has ended."""
    processes = {int(name): process for name in os.listdir("/proc") if name.isdigit() and (process := _process(name))}
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    totals = []
    for root in roots:
        total, waiting = 0.0, [root]
        while waiting:
            pid = waiting.pop()
            total += processes[pid].cpu_s if pid in processes else 0.0
            waiting += children.get(pid, [])
        totals.append(total)
    return totals


def resident_bytes(pid: int) -> int:
    """Memory of one process that is not swapped out; 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * PAGE_BYTES


def open_descriptors(pid: int) -> int:
    """Open files, sockets and pipes of one process; 0 for one that has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _process(pid: str) -> Process | None:
    try:
        text = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in brackets may hold anything, spaces too.
    fields = text.rpartition(")")[2].split()
    return Process(int(fields[1]), sum(map(int, fields[11:15])) / TICKS_PER_S)


def describe_machine() -> dict[str, object]:
    """Cores, processor, memory and kernel, for the record of a run."""
    return {
        "cores": os.cpu_count(),
        "model": _first("/proc/cpuinfo", "model name"),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
    }


def _first(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
