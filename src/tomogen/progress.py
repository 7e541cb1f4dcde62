"""How long work tells the outside how far it is: a callable, nothing more; and who of several processes speaks."""

import os
from collections.abc import Callable

Progress = Callable[[int, int | None, str], None]
"""Called with (done, total or None, what is happening now)."""


def silent(done: int, total: int | None, what: str) -> None:
    """A `Progress` that shows nothing."""


def leads() -> bool:
    """Whether this process is the first of those that torchrun, SLURM or Fabric started together; or the only one."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)
