"""Prometheus's usual metrics of a process, summed over the processes of a group."""

import os
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric

from api.processes.group import ProcessGroup

_CPU, _START = "process_cpu_seconds", "process_start_time_seconds"
_TICKS = os.sysconf("SC_CLK_TCK")


def process_families(group: ProcessGroup) -> list[Metric]:
    """The metrics of this process; for several processes the sums, with the process that supervises them.

    The start is the earliest. Processor time then includes child processes that have ended, so that it does not
    decrease when a process is replaced. Memory that the processes share counts for each of them.
    """
    if group.count == 1:
        return list(ProcessCollector(registry=None).collect())
    supervisor = os.getppid()
    while True:
        ended = _ended_children_seconds(supervisor)
        pids = [supervisor, *group.pids]
        totals = _sum([_families_of(pid) for pid in pids])
        # A process that ended during the reading would be counted twice, or not at all.
        if (pids, ended) == ([supervisor, *group.pids], _ended_children_seconds(supervisor)):
            return totals


def _families_of(pid: int) -> list[Metric]:
    """Empty when the process has ended."""
    families = list(ProcessCollector(pid=lambda: pid, registry=None).collect())
    for family in families:
        if family.name == _CPU:
            family.samples = [
                sample._replace(value=sample.value + _ended_children_seconds(pid)) for sample in family.samples
            ]
    return families


def _ended_children_seconds(pid: int) -> float:
    """The processor time of the process's children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICKS


def _sum(processes: list[list[Metric]]) -> list[Metric]:
    """One family for each name, with the sum of its values, or the least of the times of starting."""
    totals: dict[str, Metric] = {}
    for family in (family for families in processes for family in families):
        if (total := totals.setdefault(family.name, family)) is not family:
            combine = min if family.name == _START else _add
            total.samples = [
                sample._replace(value=combine(sample.value, other.value))
                for sample, other in zip(total.samples, family.samples, strict=True)
            ]
    return list(totals.values())


def _add(one: float, other: float) -> float:
    return one + other
