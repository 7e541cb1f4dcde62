"""Generative CT: scans in, trained models, synthetic scans out, in true Hounsfield units.

The public names are imported when they are first used; `import tomogen` itself brings no torch.
"""

import importlib
from typing import Any

from tomogen._version import __version__

_PUBLIC = {
    "Volume": "volume",
    "Acquisition": "volume",
    "Window": "intensity",
    "read": "formats",
    "write": "formats",
    "doctor": "cases.doctor",
    "phantom": "phantoms.cohort",
    "prepare": "cases.prepare",
    "train": "training.launch",
    "sample": "generation.sample",
    "walk": "generation.walk",
    "encode": "generation.encode",
    "reconstruct": "generation.reconstruct",
    "translate": "generation.translate",
    "adopt": "adoption",
    "convert": "conversion",
    "view": "conversion",
    "xray": "exposure",
    "report": "reporting.page",
    "demo": "showcase",
}
"""Public name: the module that defines it."""

_MODULES = ("evaluate",)
"""Public modules: verbs that have several ways, each a function."""

__all__ = ["__version__", *_MODULES, *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"tomogen.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tomogen' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tomogen.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
