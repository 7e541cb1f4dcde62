"""How much memory training takes, and the words for when there is no more."""

import os
import sys

import torch

from tomogen.errors import OutOfSpace


def peak(device: torch.device) -> int:
    """Bytes that training has held at most: on the GPU, or of the whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    if sys.platform == "win32":
        return 0  # has no getrusage
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def out_of_memory(error: BaseException, step: int, device: torch.device) -> OutOfSpace | None:
    """What to say of an error that means that memory ran out; None for any other error."""
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in text:
        return None
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return OutOfSpace(
        f"out of memory on {device} in step {step}; peak {peak(device) / 2**30:.1f} of {total / 2**30:.1f} GB",
        fix="--set training.micro_batch=1, --precision bf16, or a smaller model.shape",
    )
