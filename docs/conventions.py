"""What the published conventions say of the same pairs: `conventions.json`, and the tables of `conventions.md`.

    python docs/conventions.py            about a minute

The volumes are defined by a formula: a thorax and a second one with metal and a padding value, in HU, and what may
go wrong with a copy of them. Nothing is drawn at random; noise is an integer hash of the voxel's index.
"""

import json
import re
from pathlib import Path

import numpy as np

from tomogen import catalog
from tomogen.evaluation.pair import Pair

DOCS = Path(__file__).parent
SHAPE = (48, 64, 56)
LARGE = (176, 184, 192)
FOREVER = 1e9
"""A radius that makes an ellipsoid a cylinder."""

# centre, radii, width of the edge, HU, amplitude of its waves, their frequencies (z, y, x), their phase
THORAX = [
    ((0, 0, 0), (FOREVER, 0.80, 0.90), 0.06, 40, 15, (1.0, 1.5, 2.0), 0.3),  # body
    ((0.1, -0.08, -0.40), (0.85, 0.50, 0.30), 0.10, -820, 60, (2.0, 3.0, 2.5), 0.9),  # lung
    ((0.0, -0.08, 0.42), (0.90, 0.52, 0.31), 0.10, -840, 50, (3.0, 2.0, 3.5), 1.7),  # lung
    ((-0.2, -0.12, -0.08), (0.45, 0.30, 0.26), 0.12, 60, 10, (2.0, 2.0, 2.0), 0.0),  # heart
    ((0, 0.55, 0), (FOREVER, 0.16, 0.15), 0.20, 480, 120, (6.0, 1.0, 1.0), 0.5),  # spine
    ((0.1, -0.70, 0), (0.70, 0.06, 0.12), 0.40, 700, 60, (5.0, 1.0, 2.0), 0.2),  # sternum
    ((0.6, -0.02, 0.02), (0.55, 0.09, 0.07), 0.30, -980, 0, (1.0, 1.0, 1.0), 0.0),  # trachea
    ((0.15, -0.05, 0.45), (0.10, 0.10, 0.10), 0.40, 30, 0, (1.0, 1.0, 1.0), 0.0),  # nodule
]
METAL = [
    ((0, 0, 0), (FOREVER, 0.76, 0.92), 0.05, 25, 20, (1.5, 1.0, 1.5), 1.1),  # body
    ((-0.1, -0.05, -0.43), (0.80, 0.46, 0.28), 0.08, -780, 70, (2.5, 2.0, 3.0), 0.4),  # lung
    ((-0.1, -0.05, 0.41), (0.80, 0.48, 0.30), 0.08, -800, 55, (2.0, 3.5, 2.0), 2.0),  # lung
    ((-0.9, 0.05, 0.35), (0.50, 0.45, 0.45), 0.10, 70, 12, (2.0, 3.0, 3.0), 0.7),  # liver
    ((0, 0.50, 0.02), (FOREVER, 0.15, 0.16), 0.18, 620, 200, (5.0, 1.0, 1.0), 0.1),  # spine
    ((0.2, 0.42, 0.22), (0.16, 0.09, 0.09), 0.15, 5200, 0, (1.0, 1.0, 1.0), 0.0),  # metal
]

PSNR = [
    ("x2ct2019", "psnr-3d"),
    ("x2ct2019", "PSNR-avg"),
    ("peaks", "clip4024_peak4024"),
    ("peaks", "clip4024_peak4024_in_mask"),
    ("peaks", "unclipped_peak4095"),
    ("peaks", "clip2500_peak2500"),
    ("peaks", "clip2000_peak2000"),
    ("peaks", "window_soft_400_peak400"),
    ("peaks", "unclipped_peak_truth_max"),
    ("synthrad2023", "psnr"),
    ("synthrad2023", "psnr_truth_range_no_clip"),
    ("synthrad2025", "psnr"),
    ("synthrad2025", "psnr_truth_range_pred_clipped"),
    ("scikit_image", "psnr_raw_R4024"),
    ("monai", "psnr_clip4024"),
    ("torchmetrics", "psnr_clip4024"),
]
SSIM = [
    ("wang2003", "ssim_gauss11_valid_clip4024"),
    ("x2ct2019", "SSIM-avg"),
    ("synthrad2023", "ssim"),
    ("synthrad2023", "ssim_no_mask"),
    ("scikit_image", "ssim_uniform7_clip4024"),
    ("scikit_image", "ssim_uniform7_raw_R4024"),
    ("scikit_image", "ssim_gauss1.5_clip4024"),
    ("scikit_image", "ssim_2d_gauss1.5_mean_over_axis0_clip4024"),
    ("monai", "ssim_gauss11_clip4024"),
    ("torchmetrics", "ssim_gauss_clip4024"),
    ("torchmetrics", "ssim_gauss_clip4024_data_range_none"),
    ("torchmetrics", "ssim_gauss_hu_tuple_range"),
]
MS_SSIM = [
    ("wang2003", "gauss11_3scales_clip4024/ms_ssim"),
    ("synthrad2025", "ms_ssim"),
    ("synthrad2025", "ms_ssim_unmasked_by_product"),
    ("braingen3d", "msssim_3d"),
    ("braingen3d", "wang_combination_of_same_scales"),
    ("monai", "ms_ssim_gauss11_3scales_clip4024"),
    ("torchmetrics", "ms_ssim_gauss_3scales_clip4024"),
]


def places(shape):
    """Coordinates (z, y, x) of voxel centres in (-1, 1)."""
    return np.meshgrid(*[(2.0 * np.arange(n) + 1.0) / n - 1.0 for n in shape], indexing="ij")


def scan(parts, shape):
    """Parts laid over air, each blended in at its edge; whole HU."""
    z, y, x = places(shape)
    hu = np.full(shape, -1000.0)
    for centre, radii, edge, base, amplitude, f, phase in parts:
        distance = np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radii, strict=True)))
        share = np.clip((1.0 - distance) / edge + 0.5, 0.0, 1.0)
        waves = np.sin(np.pi * f[0] * z + phase) * np.cos(np.pi * f[1] * y) * np.sin(np.pi * f[2] * x + 2 * phase)
        hu = (1.0 - share) * hu + share * (base + amplitude * waves)
    if parts is METAL:
        hu = np.where(y * y + x * x > 1.21, -2000.0, hu)
    return np.rint(hu)


def body(parts, shape):
    """An ellipse in every axial slice."""
    _, y, x = places(shape)
    _, ry, rx = parts[0][1]
    return (y / ry) ** 2 + (x / rx) ** 2 <= 1.0


def moved(hu, voxels):
    """Shifted along each axis, the edge repeated."""
    for axis, n in enumerate(voxels):
        hu = np.take(hu, np.clip(np.arange(hu.shape[axis]) - n, 0, hu.shape[axis] - 1), axis=axis)
    return hu


def blurred(hu):
    """Binomial [1 4 6 4 1] / 16 along each axis, the edge repeated."""
    for axis in range(3):
        near = (moved(hu, [-o if a == axis else 0 for a in range(3)]) for o in (-2, -1, 0, 1, 2))
        hu = sum(weight * one for weight, one in zip((1, 4, 6, 4, 1), near, strict=True)) / 16.0
    return hu


def waves(shape, amplitude, f, phase):
    """Waves along all axes, in HU."""
    z, y, x = places(shape)
    return amplitude * np.sin(np.pi * f[0] * z + phase) * np.sin(np.pi * f[1] * y + 0.5) * np.cos(np.pi * f[2] * x)


def noise(shape, amplitude, seed):
    """Whole HU in [-amplitude, amplitude] from a 32-bit hash of the index."""
    low = np.uint64(0xFFFFFFFF)
    k, j, i = np.meshgrid(*[np.arange(n, dtype=np.uint64) for n in shape], indexing="ij")
    h = (k * np.uint64(73856093)) & low
    h ^= (j * np.uint64(19349663)) & low
    h ^= (i * np.uint64(83492791)) & low
    h ^= (np.uint64(seed) * np.uint64(2654435761)) & low
    for _ in range(2):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h ^= h >> np.uint64(shift)
            h = (h * np.uint64(factor)) & low
        h ^= h >> np.uint64(16)
    return np.floor(h.astype(np.float64) / 2.0**32 * (2 * amplitude + 1)) - amplitude


def pairs():
    """Truth, what was made and the body, by the name of what is wrong."""
    a, b = scan(THORAX, SHAPE), scan(METAL, SHAPE)
    made = {
        "small_error": np.rint(a + waves(SHAPE, 12, (2, 3, 2), 0.4)) + noise(SHAPE, 6, 11),
        "large_error": np.rint(moved(a, (0, 2, -1)) + waves(SHAPE, 150, (1.5, 2, 2.5), 1.0) + 35)
        + noise(SHAPE, 40, 12),
        "constant_shift": a + 100,
        "blurred": np.rint(blurred(a)),
        "identical": a,
        "out_of_range": np.rint(1.06 * b + waves(SHAPE, 60, (2, 2, 3), 0.2) - 20) + noise(SHAPE, 10, 13),
        "translated": moved(a, (0, 0, 1)),
    }
    return {
        name: pair(b if name == "out_of_range" else a, hu, METAL if name == "out_of_range" else THORAX)
        for name, hu in made.items()
    }


def large():
    """A pair of 176 x 184 x 192 voxels, room for five scales under 11 taps."""
    truth = scan(THORAX, LARGE)
    made = np.rint(blurred(truth) + waves(LARGE, 40, (3, 4, 3), 0.4)) + noise(LARGE, 25, 31)
    return pair(truth, made, THORAX)


def pair(truth, made, parts):
    return Pair(truth.astype(np.int16), made.astype(np.int16), body(parts, truth.shape), "body")


def values():
    """Case, convention, metric, value."""
    names = catalog.names("evaluation.conventions")
    return {
        case: {
            name: {
                reading.definition.metric: reading.value
                for reading in catalog.load("evaluation.conventions", name).measure(one)
            }
            for name in names
        }
        for case, one in pairs().items()
    }


def table(found, rows, digits):
    """Markdown: a row for each number, a column for each case but the identical one."""
    cases = [case for case in found if case != "identical"]
    lines = [
        "| convention | number | " + " | ".join(f"`{case}`" for case in cases) + " |",
        "|---|---|" + "--:|" * len(cases),
    ]
    for convention, metric in rows:
        numbers = " | ".join(f"{float(found[case][convention][metric]):.{digits}f}" for case in cases)
        lines.append(f"| `{convention}` | `{metric}` | {numbers} |")
    return "\n".join(lines)


def filled(page, found):
    """The page with its tables set to these values."""
    for name, rows, digits in (("psnr", PSNR, 2), ("ssim", SSIM, 4), ("ms_ssim", MS_SSIM, 4)):
        mark = f"<!-- {name} -->"
        page = re.sub(f"{mark}.*?{mark}", f"{mark}\n{table(found, rows, digits)}\n{mark}", page, flags=re.DOTALL)
    return page


def spelled(found):
    """Values as JSON holds them: twelve digits; not-a-number and infinity as words."""
    return {
        case: {
            name: {
                metric: float(f"{value:.12g}") if np.isfinite(value) else str(value)
                for metric, value in metrics.items()
            }
            for name, metrics in conventions.items()
        }
        for case, conventions in found.items()
    }


def main():
    found = spelled(values())
    (DOCS / "conventions.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = DOCS / "conventions.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
