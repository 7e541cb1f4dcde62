"""Who is drawn: named parameters, each with its unit, that vary smoothly and are drawn from a seed.

Shapes are written in the coordinates of one middle-sized person, *own* coordinates: mm, x to the left, y to
posterior, z up, the origin near the eighth thoracic vertebra's level in the middle of the chest. An anatomy
stretches and bends them into a patient's LPS mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NODULES = 6
"""Places for lung nodules; most stay empty."""
MODES = 5
"""Waves per direction that bend the vessels and bronchi."""


def _parameter(mean: float, spread: float, low: float = -np.inf, high: float = np.inf) -> Any:
    return field(default=mean, metadata={"spread": spread, "low": low, "high": high})


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One person's chest; the defaults are the middle-sized person."""

    width: float = _parameter(1.0, 0.045)
    """Stretch left to right."""
    depth: float = _parameter(1.0, 0.055)
    """Stretch front to back."""
    height: float = _parameter(1.0, 0.04)
    """Stretch along the body axis."""
    kyphosis: float = _parameter(0.0, 5.0)
    """Bend of the trunk forward at its ends, mm."""
    scoliosis: float = _parameter(0.0, 2.5)
    """Sideways bend, mm."""
    shift_x: float = _parameter(0.0, 4.0)
    """Place of the patient in the field of view, mm to the left."""
    shift_y: float = _parameter(0.0, 4.0)
    """The same to posterior."""
    fat: float = _parameter(14.0, 6.0, 5.0, 26.0)
    """Thickness of the subcutaneous fat at the flank, mm."""
    muscle: float = _parameter(1.0, 0.18, 0.6, 1.4)
    """Thickness of the trunk's muscles, relative."""
    breast: float = _parameter(0.25, 0.5, 0.0, 1.3)
    """Size of the breasts; 0 is flat."""
    gland: float = _parameter(0.45, 0.25, 0.0, 1.0)
    """Share of the breast that is gland."""
    ribs: float = _parameter(0.0, 5.0)
    """Height of the ribs against the vertebrae, mm."""
    obliquity: float = _parameter(1.0, 0.12)
    """How steeply the ribs fall to the front, relative."""
    bone: float = _parameter(1.0, 0.13, 0.65, 1.4)
    """Density of bone, relative."""
    dome_right: float = _parameter(-70.0, 8.0)
    """Height of the right dome of the diaphragm, mm."""
    dome_left: float = _parameter(-13.0, 4.0, -25.0, -3.0)
    """Height of the left dome over the right one, mm."""
    dome_curve: float = _parameter(1.0, 0.12)
    """How steeply the diaphragm falls to the ribs, relative."""
    heart: float = _parameter(1.0, 0.07)
    """Size of the heart, relative."""
    heart_axis: float = _parameter(0.0, 8.0)
    """Turn of the heart's long axis from the usual, degrees; steeper is positive."""
    aorta: float = _parameter(1.0, 0.09)
    """Calibre of the aorta, relative."""
    arch: float = _parameter(0.0, 4.0)
    """Height of the aortic arch over the usual, mm."""
    unfolding: float = _parameter(0.0, 4.0)
    """How far the descending aorta lies to the left of the usual, mm."""
    pulmonary: float = _parameter(1.0, 0.08)
    """Calibre of the pulmonary vessels, relative."""
    airway: float = _parameter(1.0, 0.08)
    """Calibre of the airways, relative."""
    lung: float = _parameter(-862.0, 16.0)
    """HU of the lung's parenchyma in its middle."""
    gravity: float = _parameter(0.32, 0.12, 0.05, 0.7)
    """Rise of the lung's HU towards the back, HU per mm."""
    liver: float = _parameter(1.0, 0.07)
    """Size of the liver, relative."""
    spleen: float = _parameter(1.0, 0.1)
    """Size of the spleen, relative."""
    stomach: float = _parameter(1.0, 0.12)
    """Size of the stomach, relative."""
    bubble: float = _parameter(0.0, 8.0)
    """Depth of the air level in the stomach against the usual, mm."""
    steatosis: float = _parameter(58.0, 6.0)
    """HU of the plain liver."""
    waves: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, MODES, 2)), repr=False)
    """Bends of vessels and bronchi by direction and wave: an amplitude in standard deviations, a phase in radians."""
    nodules: NDArray[np.float64] = field(default_factory=lambda: np.zeros((NODULES, 5)), repr=False)
    """Lung nodules: x, y, z in own mm, radius in mm (0 is none), and density from 0 (ground glass) to 1 (solid)."""

    @classmethod
    def draw(cls, seed: int) -> "Anatomy":
        """The person of this seed; equal seeds give equal persons, whatever the grid."""
        rng = np.random.default_rng(seed)
        values: dict[str, Any] = {}
        for entry in fields(cls):
            if "spread" in entry.metadata:
                limits = entry.metadata
                value = entry.default + limits["spread"] * np.clip(rng.standard_normal(), -2.2, 2.2)
                values[entry.name] = float(np.clip(value, limits["low"], limits["high"]))
        values["waves"] = rng.standard_normal((3, MODES, 2))
        values["nodules"] = _nodules(rng)
        return cls(**values)

    def mix(self, other: "Anatomy", t: float) -> "Anatomy":
        """The anatomy at `t` on the way from this one (0) to `other` (1)."""
        return Anatomy(**{e.name: (1 - t) * getattr(self, e.name) + t * getattr(other, e.name) for e in fields(self)})

    def own(
        self, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Own coordinates of a grid with LPS axes x, y, z: arrays `(z, 1, x)`, `(z, y, 1)`, `(z, 1, 1)`."""
        upright = z[:, None, None] / self.height
        sideways, forward = self._bend(upright)
        own_x = (x[None, None, :] - sideways) / self.width
        own_y = (y[None, :, None] - forward) / self.depth
        return own_x.astype(np.float32), own_y.astype(np.float32), upright.astype(np.float32)

    def place(self, points: ArrayLike) -> NDArray[np.float64]:
        """LPS mm `(..., 3)` of points in own coordinates."""
        p = np.asarray(points, dtype=np.float64)
        sideways, forward = self._bend(p[..., 2])
        return np.stack(
            [p[..., 0] * self.width + sideways, p[..., 1] * self.depth + forward, p[..., 2] * self.height], axis=-1
        )

    def box(self, low: Sequence[float], high: Sequence[float]) -> tuple[list[float], list[float]]:
        """Corners (x, y, z) in LPS mm of a box that holds the box from `low` to `high` in own coordinates.

        Heights are looked at in steps of 5 mm: the box of a part then lies within the box of the whole.
        """
        sideways, forward = self._bend(np.arange(np.floor(low[2] / 5), np.ceil(high[2] / 5) + 1) * 5)
        return (
            [low[0] * self.width + sideways.min(), low[1] * self.depth + forward.min(), low[2] * self.height],
            [high[0] * self.width + sideways.max(), high[1] * self.depth + forward.max(), high[2] * self.height],
        )

    def _bend(self, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        sideways = self.shift_x + self.scoliosis * np.sin(z / 60)
        forward = self.shift_y - self.kyphosis * (z / 130) ** 2
        return sideways, forward


def _nodules(rng: np.random.Generator) -> NDArray[np.float64]:
    """Nodules in a part of the lungs that every anatomy has: none in half of all people."""
    direction = rng.standard_normal((NODULES, 3))
    direction *= rng.uniform(0.2, 1, (NODULES, 1)) ** (1 / 3) / np.linalg.norm(direction, axis=1, keepdims=True)
    side = rng.choice([-1.0, 1.0], NODULES)
    place = np.stack([side * (80 + 24 * direction[:, 0]), 14 + 52 * direction[:, 1], 18 + 70 * direction[:, 2]], 1)
    present = np.arange(NODULES) < rng.choice(NODULES + 1, p=[0.5, 0.2, 0.12, 0.08, 0.05, 0.03, 0.02])
    solid = rng.random(NODULES) < 0.7
    radius = np.where(solid, rng.uniform(2.5, 9, NODULES), rng.uniform(5, 12, NODULES)) * present
    return np.column_stack([place, radius, solid.astype(np.float64)])
