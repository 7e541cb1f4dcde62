"""A user's own feature network: a small Python module for the graph, a safetensors file for the weights.

The module states

    DIMS = 2                       # 2: it sees slices (n, 1, height, width); 3: volumes (n, 1, depth, height, width)
    WINDOW = (-1000, 400)          # HU that become -1..1, clipped
    def build(): ...               # the graph, a torch.nn.Module from such images to rows (n, d)

and instead of `WINDOW`, for another normalisation, `def normalise(images)`: a tensor in HU to what the graph takes, its
docstring's first line saying what it does. `SIZE = 96` states a length of the axes that the graph can take, where 64 is
none. Nothing of the module runs but what the user wrote; no pickle is ever opened.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as safetensors
from torch import Tensor, nn

from tomogen.errors import DataInvalid, Reason, RecipeMismatch
from tomogen.intensity import Window
from tomogen.storage import opened, refuse_pickle

CHUNK = 2**23
"""Voxels given to the graph at once, where one image is not larger."""

STATED = "DIMS (2 or 3), WINDOW (low, high) or normalise(images), and build()"


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """A graph with its weights, in evaluation mode and float32 on the processor."""

    name: str
    """The module's name and the first digits of its SHA-256: it is part of what is computed."""
    sha256: str
    """Of the weights file."""
    dims: int
    width: int
    range: tuple[float, float] | None
    """The module's `WINDOW`; None where it has a `normalise` of its own."""
    preprocessing: str
    graph: nn.Module = field(repr=False)
    normalise: Callable[[Tensor], Tensor] = field(repr=False)
    at: Path = field(repr=False)
    """The module, for messages."""

    def __call__(self, images: "NDArray[Any]") -> NDArray[np.float64]:
        """Rows `(n, width)` of images in HU, `(n, height, width)` or `(n, depth, height, width)`.

        Raises:
            DataInvalid: another number of axes, NaN or infinity among the HU or the features.
            RecipeMismatch: the graph cannot take images of this size, or gives no rows.
        """
        images = np.asarray(images)
        if images.ndim != self.dims + 1:
            raise DataInvalid(
                f"{self.name} takes n images of {self.dims} axes, not {images.shape}", reason=Reason.DIMENSIONS
            )
        step = max(1, CHUNK // max(1, int(np.prod(images.shape[1:]))))
        rows = np.empty((len(images), self.width))
        for start in range(0, len(images), step):
            hu = images[start : start + step].astype(np.float32)
            if not np.isfinite(hu).all():
                raise DataInvalid("NaN or infinity among the HU", reason=Reason.NOT_FINITE)
            found = _rows(self.graph, self.normalise, torch.from_numpy(hu)[:, None], self.at)
            if found.shape[1] != self.width:
                shape = " x ".join(str(size) for size in images.shape[1:])
                raise RecipeMismatch(
                    f"{found.shape[1]} features of images of {shape}, {self.width} of others: a row has one width",
                    at=self.at,
                    fix="pool over space in the graph",
                )
            rows[start : start + step] = found
        if not np.isfinite(rows).all():
            raise DataInvalid(f"NaN or infinity among the features of {self.name}", reason=Reason.NOT_FINITE)
        return rows


def load(module: str | Path, weights: str | Path, sha256: str | None = None) -> OwnNetwork:
    """The network of a user's module and weights; `sha256`, where given, is what the weights must have.

    Raises:
        InputMissing: a file is not there.
        RecipeMismatch: weights of another hash, a pickle, damaged or of another graph; a module that lacks a name,
            fails when it runs, or whose graph gives no rows.
    """
    module, weights = Path(module), Path(weights)
    refuse_pickle(weights, fix="safetensors.torch.save_file(network.state_dict(), FILE) writes what can be loaded")
    content = _bytes(weights)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and sha256.strip().lower() != digest:
        raise RecipeMismatch(
            f"the weights have SHA-256 {digest}, expected is {sha256}",
            at=weights,
            fix="fetch the weights that were meant",
        )
    source = hashlib.sha256(_bytes(module)).hexdigest()
    stated = _executed(module)
    dims, normalise, window, preprocessing = _stated(stated, module)
    graph = _built(stated, module)
    _fill(graph, content, weights, module)
    size = getattr(stated, "SIZE", 64)
    probe = torch.full((1, 1) + (int(size),) * dims, -1000.0)
    width = _rows(graph, normalise, probe, module).shape[1]
    name = f"{module.stem} ({source[:12]})"
    return OwnNetwork(name, digest, dims, width, window, preprocessing, graph, normalise, module)


def _bytes(path: Path) -> bytes:
    """A file, read once: what is hashed is what is loaded."""
    with opened(path) as file:
        return file.read()


def _executed(path: Path) -> ModuleType:
    """The module, run under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"tomogen_features_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeMismatch("no Python module", at=path, fix=f"a .py file that states {STATED}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise RecipeMismatch(f"the module fails: {_told(error)}", at=path) from error
    return module


def _stated(module: ModuleType, path: Path) -> tuple[int, Callable[[Tensor], Tensor], tuple[float, float] | None, str]:
    """Dims, the map from HU, the window where that is all, and a description."""
    window, normalise = getattr(module, "WINDOW", None), getattr(module, "normalise", None)
    names = {"DIMS": hasattr(module, "DIMS"), "build()": callable(getattr(module, "build", None))}
    names["WINDOW or normalise(images)"] = window is not None or callable(normalise)
    missing = [name for name, there in names.items() if not there]
    if missing:
        raise RecipeMismatch(f"the module lacks {', '.join(missing)}", at=path, fix=f"it states {STATED}")
    if module.DIMS not in (2, 3):
        raise RecipeMismatch(f"DIMS is 2 or 3, not {module.DIMS!r}", at=path)
    if window is not None and normalise is not None:
        raise RecipeMismatch("the module states both WINDOW and normalise(images)", at=path, fix="one of them")
    if callable(normalise):
        told = (normalise.__doc__ or "").strip().partition("\n")[0]
        return module.DIMS, normalise, None, f"normalise() of {path.name}" + (f": {told}" if told else "")
    try:
        low, high = window  # type: ignore[misc]
        mapped = Window(float(low), float(high))
    except (TypeError, ValueError) as error:
        raise RecipeMismatch(f"WINDOW is (low, high) in HU, not {window!r}", at=path) from error
    return module.DIMS, mapped.to_unit, (mapped.low, mapped.high), "clipped, on -1..1"


def _built(module: ModuleType, path: Path) -> nn.Module:
    try:
        graph = module.build()
    except Exception as error:
        raise RecipeMismatch(f"build() fails: {_told(error)}", at=path) from error
    if not isinstance(graph, nn.Module):
        raise RecipeMismatch(f"build() gives a torch.nn.Module, not {type(graph).__name__}", at=path)
    return graph.float().eval().requires_grad_(False)


def _fill(graph: nn.Module, content: bytes, weights: Path, module: Path) -> None:
    """The weights into the graph, name by name."""
    try:
        found = safetensors(content)
    except SafetensorError as error:
        raise RecipeMismatch(f"the weights are damaged or no safetensors: {_told(error)}", at=weights) from error
    try:
        graph.load_state_dict(found, strict=True)
    except RuntimeError as error:
        complaint = str(error).splitlines()[-1].strip()
        raise RecipeMismatch(f"the weights are not those of the graph in {module}: {complaint}", at=weights) from error


def _rows(graph: nn.Module, normalise: Callable[[Tensor], Tensor], hu: Tensor, at: Path) -> NDArray[np.float64]:
    """Rows `(n, d)` of images `(n, 1, *space)` in HU."""
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        try:
            out = graph(normalise(hu))
        except Exception as error:
            shape = " x ".join(str(size) for size in hu.shape)
            raise RecipeMismatch(
                f"the graph fails on images {shape}: {_told(error)}",
                at=at,
                fix="let normalise() bring images to what it takes; SIZE states a length of axes to try it with",
            ) from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(hu):
        found = f"a tensor {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise RecipeMismatch(
            f"the graph gives {found} for {len(hu)} images, not rows ({len(hu)}, d)",
            at=at,
            fix="pool over space in the graph",
        )
    rows: NDArray[np.float64] = out.double().numpy()
    return rows


def _told(error: BaseException) -> str:
    """An exception on one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
