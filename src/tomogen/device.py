"""Which device the work runs on: the word of `--device`, and why it cannot be had."""

import platform
import shutil
from pathlib import Path

import torch

from tomogen.errors import DependencyMissing


def resolved(device: str) -> str:
    """`cpu`, `cuda` or `mps`; `auto` takes CUDA where it is there, otherwise the processor.

    Raises:
        DependencyMissing: the one that was asked for is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise _no_cuda()
    if device == "mps" and not torch.backends.mps.is_available():
        raise DependencyMissing("--device mps: no Metal device here", fix="--device cpu")
    return device


def driver_found() -> bool:
    """Whether an NVIDIA driver is installed, whatever torch can do with it."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def _no_cuda() -> DependencyMissing:
    driver = driver_found()
    found = "an NVIDIA driver is there" if driver else "no NVIDIA driver was found"
    if torch.version.cuda is not None:
        return DependencyMissing(f"--device cuda: torch {torch.__version__} sees no CUDA device; {found}")
    index = " --extra-index-url https://download.pytorch.org/whl/cu130" if platform.system() == "Windows" else ""
    version = torch.__version__.partition("+")[0]
    return DependencyMissing(
        f"--device cuda: torch {torch.__version__} is a build without CUDA; {found}",
        fix=f"pip install --force-reinstall torch=={version}{index}" if driver else "--device cpu",
    )
