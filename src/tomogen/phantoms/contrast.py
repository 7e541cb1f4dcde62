"""Contrast agent in a phantom: how much of it reaches the blood of this person, and how blood is told from the rest."""

from dataclasses import replace

import numpy as np

from tomogen.phantoms.anatomy import Anatomy
from tomogen.phantoms.tissue import BLOOD, Tissue, tissue

RESIDUAL = 0.04
"""Standard deviation of what body size does not explain, relative; heart and timing do more in real patients."""
LEAST, MOST = 0.65, 1.45
"""Of the middle-sized person's enhancement."""


def iodine(seed: int, anatomy: Anatomy) -> float:
    """Enhancement of the person of this seed, relative to the middle-sized one.

    Everybody gets the same dose, so enhancement falls as body weight rises (Bae, Radiology 2010;256:32), for which
    the trunk's volume stands here; the rest is drawn. Over persons the spread is about 13 %.
    """
    rng = np.random.default_rng([seed, 7919])
    amount = (1 + RESIDUAL * float(np.clip(rng.standard_normal(), -2.2, 2.2))) / size(anatomy)
    return float(np.clip(amount, LEAST, MOST))


def size(anatomy: Anatomy) -> float:
    """Volume of the trunk, relative to the middle-sized person's: an ellipse of 150 x 100 mm under the fat."""
    outer = (150 + anatomy.fat) * (100 + anatomy.fat) / ((150 + Anatomy.fat) * (100 + Anatomy.fat))
    return anatomy.width * anatomy.depth * anatomy.height * outer


MARK = 1000.0
"""What a mark adds to the HU of blood; painting is linear in HU, so a voxel's change tells its share of blood."""


HALF = 0.499
"""Share of a voxel from which it counts as blood: half, less what float32 loses where two kinds of blood mix."""


def marked(phase: str) -> Tissue:
    """Plain tissue with the mark in the blood that this phase enhances by 60 HU or more in the middle-sized person."""
    plain, full = tissue(None), tissue(phase)
    bright = [name for name in BLOOD if getattr(full, name) - getattr(plain, name) >= 60]
    return replace(plain, **{name: getattr(plain, name) + MARK for name in bright})
