"""What a run was made with: enough to make it again, and nothing that names its user."""

import platform
from importlib import metadata
from typing import Any

import torch

from tomogen._version import __version__

LIBRARIES = ("torch", "lightning-fabric", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {"tomogen": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in LIBRARIES
    }


def environment(device: torch.device, processes: int, command: str, **more: Any) -> dict[str, Any]:
    """`environment.json`; `command` is as the user typed it."""
    return {
        "schema": 1,
        "command": command,
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": processes,
        "threads": torch.get_num_threads(),
        **more,
    }


def processor() -> str:
    """The processor and what its vector units can do, as torch names it."""
    return f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
