"""From `--device --devices --nodes --strategy --precision` to Fabric."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from tomogen.device import resolved
from tomogen.errors import UsageFault

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""bf16 is autocast: weights, their averages and the optimizer's state stay float32."""


def fabric_of(
    device: str = "auto", devices: int | None = None, nodes: int = 1, strategy: str = "auto", precision: str = "fp32"
) -> Fabric:
    """Fabric for a machine; `devices` and `nodes` as torchrun or SLURM say where they started this process.

    Raises:
        DependencyMissing: the device is not there, or this build of torch cannot use it.
        UsageFault: more devices than the machine has.
    """
    device = resolved(device)
    launched = _launched()
    if launched:
        devices, nodes = launched
    devices = devices or 1
    if device == "cuda" and devices > torch.cuda.device_count():
        raise UsageFault(f"--devices {devices}: this machine has {torch.cuda.device_count()} CUDA devices")
    fabric: Fabric = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(strategy, device, devices * nodes),
        precision=PRECISIONS[precision],
    )
    return fabric


@contextlib.contextmanager
def repeatable(threads: int | None = None) -> Iterator[int]:
    """Torch repeats itself bit by bit in the block, with `threads` threads where given; yields their number."""
    # cuBLAS repeats itself only with a workspace of fixed size, read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads or before[0])
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Without this, every new tensor is filled with NaN, which only costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No words from Fabric about what it was told to do, nor from torch about layouts that are meant to be so."""
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        warnings.filterwarnings("ignore", module="lightning_fabric")
        yield
    logger.setLevel(before)


def leave(fabric: Fabric) -> None:
    """Leave the group of processes, once all have come here: its threads must not live on into Python's own end."""
    if torch.distributed.is_initialized():
        fabric.barrier()
        torch.distributed.destroy_process_group()


def _strategy(name: str, device: str, processes: int) -> str | Strategy:
    if processes == 1 and name == "auto":
        return "auto"
    backend = "nccl" if device == "cuda" else "gloo"
    if name == "fsdp":
        return ModelParallelStrategy(
            _shard, data_parallel_size=processes, tensor_parallel_size=1, process_group_backend=backend
        )
    # In each turn the other players' weights get no gradient.
    return DDPStrategy(find_unused_parameters=True, process_group_backend=backend)


def _shard(synthesizer: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """All players' weights as one group, gathered when a turn begins and freed when its backward pass ends.

    Groups within players put hooks inside the graph of a gradient penalty: its double backward then meets freed
    weights (a crash), or with `set_reshard_after_backward(False)` old ones (losses off by 10 %, and no message).
    Around the whole synthesizer there is no hook between the first backward pass and the second.
    """
    fully_shard(synthesizer, mesh=mesh["data_parallel"])
    return synthesizer


def _launched() -> tuple[int, int] | None:
    """(Devices per node, nodes) where torchrun or SLURM started this process as one of several."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return here, everywhere // here
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if tasks > 1 and "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return tasks // nodes, nodes
    return None
