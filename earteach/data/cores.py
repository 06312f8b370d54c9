"""How many processes or threads may work at once."""

import os


def at_most_cores(wanted: int) -> int:
    """`wanted`, but never more than the cores that this process may use."""
    return min(wanted, len(os.sched_getaffinity(0)))
