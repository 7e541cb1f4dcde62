"""A scan as an autoencoder's code: a Gaussian for each number of the code, the scan's grid, and the file of both.

The file is a safetensors file with `mean` and `log_variance` `(C, *grid)` in float32; what else is known lies in its
metadata. It names no patient and no file, but what is decoded from it is the patient's scan, less its details.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tomogen.errors import DataInvalid, Reason
from tomogen.formats import placed
from tomogen.intensity import Window
from tomogen.layers.posterior import Posterior
from tomogen.storage import opened, refuse_pickle, whole
from tomogen.volume import Affine

Point = tuple[float, float, float]
"""LPS mm."""

SUFFIX = ".safetensors"
KEY = "tomogen.code"
"""Of the metadata: one JSON object."""
SCHEMA = 1
"""Version of that object."""
PARTS = ("mean", "log_variance")
ANEW = "tomogen encode RUN SCAN OUT makes a code"


@dataclass(frozen=True, eq=False)
class Code:
    """What a run's encoder says of a scan."""

    posterior: Posterior
    """Both `(1, C, *grid)` float32, on the CPU; the grid along (depth, height, width)."""
    shape: tuple[int, int, int]
    """Voxels of the scan; they lie in the middle of the grid, which is somewhat larger."""
    affine: Affine
    """4x4 of the scan, index to LPS mm, its axes along `SPL`."""
    middle: Point
    """LPS mm of the middle of the body, or of the grid: what is laid upon what when two scans are mixed."""
    window: Window
    """HU to which it was clipped."""
    run: str
    """Identifier of the run whose encoder made it: no other run's decoder knows what it means."""
    recipe: str
    """Name of that run's recipe."""
    source: str
    """Digest of the scan's voxels and affine."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Numbers of the code along its channels, depth, height and width."""
        return tuple(self.posterior.mean.shape[1:])

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres of the scan in mm along (depth, height, width)."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)


def is_code(path: Path) -> bool:
    """Whether a file is one of safetensors, by its name or its first bytes, and so no scan."""
    if not path.is_file():
        return False
    if path.name.endswith(SUFFIX):
        return True
    with opened(path) as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < 2**32


def write(code: Code, path: Path) -> Path:
    """Write a code; the file has its name only once it is whole."""
    told = {
        "schema": SCHEMA,
        "run": code.run,
        "recipe": code.recipe,
        "shape": code.shape,
        "affine": code.affine.tolist(),
        "middle": code.middle,
        "window": (code.window.low, code.window.high),
        "source": code.source,
    }
    tensors = {name: part[0].contiguous() for name, part in zip(PARTS, code.posterior, strict=True)}
    with whole(path) as partial:
        partial.write_bytes(save(tensors, {KEY: json.dumps(told)}))
    return path


def read(path: Path) -> Code:
    """The code in a file.

    Raises:
        InputMissing: it cannot be read.
        RecipeMismatch: it is a pickle.
        DataInvalid: it is damaged, or no code.
    """
    refuse_pickle(path, fix=ANEW)
    with opened(path):
        pass
    try:
        with safe_open(path, framework="pt") as file:
            told: Any = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(f"the code is damaged: {error}", path) from None
    if not isinstance(told, dict):
        raise DataInvalid("no code of a scan: its metadata does not say of which run", reason=Reason.CORRUPT, at=path,
                          fix=ANEW)  # fmt: skip
    missing = [name for name in PARTS if name not in tensors]
    if missing:
        raise _damaged(f"the code lacks {' and '.join(missing)}", path)
    mean, log_variance = (tensors[name].float() for name in PARTS)
    if mean.ndim != 4 or mean.shape != log_variance.shape:
        shapes = f"{tuple(mean.shape)} and {tuple(log_variance.shape)}"
        raise _damaged(f"mean and log_variance of {shapes}; both (channels, depth, height, width) expected", path)
    if not (mean.isfinite().all() and log_variance.isfinite().all()):
        raise DataInvalid("NaN or infinity in the code", reason=Reason.NOT_FINITE, at=path, fix=ANEW)
    try:
        if told["schema"] != SCHEMA:
            raise _damaged(f"the code has schema {told['schema']!r}, this version reads {SCHEMA}", path)
        depth, height, width = (int(size) for size in told["shape"])
        x, y, z = (float(mm) for mm in told["middle"])
        if not np.isfinite((x, y, z)).all():
            raise ValueError("its middle is not finite")
        affine = np.array(told["affine"], dtype=np.float64).reshape(4, 4)
        code = Code(
            posterior=Posterior(mean[None], log_variance[None]),
            shape=(depth, height, width),
            affine=placed(affine, path),
            middle=(x, y, z),
            window=Window(*(float(end) for end in told["window"])),
            run=str(told["run"]),
            recipe=str(told["recipe"]),
            source=str(told["source"]),
        )
    except KeyError as error:
        raise _damaged(f"the code's metadata lacks {error}", path) from None
    except (TypeError, ValueError) as error:
        if isinstance(error, DataInvalid):
            raise
        raise _damaged(f"the code's metadata is damaged: {error}", path) from None
    return code


def _damaged(what: str, path: Path) -> DataInvalid:
    return DataInvalid(what, reason=Reason.CORRUPT, at=path, fix=ANEW)
