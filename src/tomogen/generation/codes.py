"""Scans and their codes: a run of an autoencoder takes one to the other, around a code, and from one to the next."""

import math
from pathlib import Path

from tomogen.batch import normal, seed_of
from tomogen.errors import UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.generation.latent import Code
from tomogen.generation.load import Loaded
from tomogen.progress import Progress, silent
from tomogen.volume import Volume


def encodes(loaded: Loaded) -> bool:
    """Whether a run's model is an autoencoder: only such have codes of scans."""
    raise NotImplementedError


def code_of(
    loaded: Loaded,
    path: str | Path,
    options: ReadOptions = DEFAULT,
    *,
    like: Code | None = None,
    progress: Progress = silent,
) -> Code:
    """The code at `path`: of a scan in any format, or one that `encode` has written.

    A scan is put on the grid of `like` where that is given, its middle on the other's, so that the two can be mixed.
    """
    raise NotImplementedError


def around(loaded: Loaded, code: Code, alpha: float, seed: int, index: int) -> Volume:
    """Scan `index` (from 1) of a seed around a code, mean + alpha * deviation * noise, in int16 HU on its grid."""
    raise NotImplementedError


def between(loaded: Loaded, first: Code, second: Code, share: float) -> Volume:
    """The scan of the code at `share` (0..1) of the way from the mean of one code to that of another."""
    raise NotImplementedError
