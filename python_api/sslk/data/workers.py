"""How many processes load images."""

import os


def loading_processes(wanted: int) -> int:
    """`wanted`, at most one per processor that this process may use; 0 loads in the process itself.

    >>> loading_processes(0)
    0
    """
    affinity = getattr(os, "sched_getaffinity", None)  # what Slurm and containers leave; not on macOS
    return min(wanted, (len(affinity(0)) if affinity else os.cpu_count()) or 1)
