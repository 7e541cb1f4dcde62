"""The log for TensorBoard (an extra); `log.jsonl` stays the source."""

from collections.abc import Mapping
from pathlib import Path

from tomogen.errors import DependencyMissing


class Board:
    """Writes losses under `tensorboard/` of a run; steps after `step` of an earlier sitting are hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise DependencyMissing(
                "--tensorboard needs the tensorboard package", fix="pip install 'tomogen[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(folder, purge_step=step + 1)

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        """The losses of one step."""
        for name, value in losses.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still waiting."""
        self._writer.close()
