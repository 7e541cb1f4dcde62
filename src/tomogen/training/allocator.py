"""Keep freed memory in the process: training frees and takes the same large tensors in every step.

glibc gives every block over 32 MB back to the kernel, and each new one is then faulted in page by page: a million
faults and seconds of system time per step of a 3D model. Told not to, a step takes 1.1 to 1.3 times less; the price
is fragmentation, up to 40 % more memory in fp32 for models with tensors of many sizes.
"""

import ctypes
import sys

M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD = -4, -1, -2


def keep_freed_memory() -> bool:
    """Set glibc's allocator so, for the rest of this process; whether it took the settings. Elsewhere: nothing."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # musl has no mallopt
    return all(
        mallopt(setting, value) == 1
        for setting, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 << 20))
    )
