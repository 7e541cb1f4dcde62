"""Inter-slice coherence: real scans, then scans made in 3D, then slices that know nothing of one another."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomogen import formats
from tomogen.errors import DataInvalid
from tomogen.evaluation import coherence
from tomogen.phantoms import chest
from tomogen.volume import Volume, affine_of

SHAPE = (28, 32, 32)


def like(volume: Volume, hu: NDArray[np.floating]) -> Volume:
    return Volume(hu.astype(np.float32), volume.affine)


def profiles(volumes: list[Volume]) -> NDArray[np.float64]:
    return np.stack([coherence.profile(volume) for volume in volumes])


@pytest.fixture(scope="module")
def phantoms() -> list[Volume]:
    return [chest(seed, SHAPE, noise=10) for seed in range(8)]


@pytest.fixture(scope="module")
def real(phantoms: list[Volume]) -> NDArray[np.float64]:
    return profiles(phantoms[:4])


def stacks(phantoms: list[Volume]) -> list[Volume]:
    """Slices of different people, one above the other."""
    random = np.random.default_rng(0)
    return [
        like(phantoms[0], np.stack([phantoms[random.integers(4, 8)].hu[k] for k in random.permutation(SHAPE[0])]))
        for _ in range(4)
    ]


def test_real_scans_lie_below_3d_ones_and_those_below_stacks_of_slices(
    phantoms: list[Volume], real: NDArray[np.float64]
) -> None:
    random = np.random.default_rng(1)
    others = phantoms[4:]
    made = [like(one, one.hu + ndimage.gaussian_filter(random.normal(0, 400, SHAPE), 1)) for one in others]
    shuffled = [like(one, one.hu[random.permutation(SHAPE[0])]) for one in others]
    scores = [coherence.incoherence(real, profiles(some)) for some in (others, made, shuffled, stacks(phantoms))]
    assert scores == sorted(scores)
    whole, in_3d, mixed, stacked = scores
    assert whole < 0.1
    assert in_3d > 2 * whole
    assert mixed > 2 * in_3d
    assert stacked > mixed


@pytest.mark.parametrize("sigma", [0.7, 1, 2, 4])
def test_blur_wins_nothing(sigma: float, phantoms: list[Volume], real: NDArray[np.float64]) -> None:
    blurred = [like(one, ndimage.gaussian_filter(one.hu.astype(np.float32), sigma)) for one in phantoms[4:]]
    sharp = coherence.incoherence(real, profiles(phantoms[4:]))
    assert coherence.incoherence(real, profiles(blurred)) > sharp


def test_blurred_slices_are_no_more_coherent_for_it(phantoms: list[Volume], real: NDArray[np.float64]) -> None:
    stacked = stacks(phantoms)
    blurred = [like(one, ndimage.gaussian_filter(one.hu, (0, 1, 1))) for one in stacked]
    assert coherence.incoherence(real, profiles(blurred)) > coherence.incoherence(real, profiles(stacked))


def test_white_noise_is_as_unlike_along_every_axis() -> None:
    noise = np.random.default_rng(0).normal(0, 100, (48, 48, 48))
    np.testing.assert_allclose(coherence.profile(Volume(noise.astype(np.float32), affine_of((1, 1, 1)))), 0, atol=0.02)


def test_a_ramp_has_the_ratio_of_its_slopes() -> None:
    z, y, x = np.meshgrid(*(np.arange(24.0),) * 3, indexing="ij")
    ramp = Volume((3 * z + 8 * y + 4 * x).astype(np.float32), affine_of((2.0, 1.0, 1.0)))
    # 3 HU a slice of 2 mm; 16 and 8 HU along rows and columns over 2 mm: 3 / 12
    np.testing.assert_allclose(coherence.profile(ramp), np.log2(3 / 12), atol=1e-6)


def test_between_pixels_a_straight_line_is_drawn() -> None:
    z, y, x = np.meshgrid(*(np.arange(24.0),) * 3, indexing="ij")
    ramp = Volume((3 * z + 8 * y + 4 * x).astype(np.float32), affine_of((1.0, 2.5, 0.8)))
    np.testing.assert_allclose(coherence.profile(ramp), np.log2(3 / ((8 / 2.5 + 4 / 0.8) / 2)), atol=1e-6)


def test_orientation_and_offset_are_no_matter(phantoms: list[Volume]) -> None:
    one = phantoms[0]
    expected = coherence.profile(one)
    for turned in ("SPL", "IAR", "LPS", "PSR"):
        np.testing.assert_allclose(coherence.profile(one.reorient(turned)), expected, atol=1e-9)
    np.testing.assert_allclose(coherence.profile(like(one, one.hu + 500.0)), expected, atol=1e-5)
    np.testing.assert_allclose(coherence.profile(like(one, one.hu * 2.0)), expected, atol=1e-5)


def test_one_slice_repeated_is_finite() -> None:
    hu = np.repeat(np.random.default_rng(0).normal(0, 100, (1, 24, 24)), 12, axis=0).astype(np.float32)
    assert (coherence.profile(Volume(hu, affine_of((1, 1, 1)))) == -10).all()


def test_no_more_distances_than_slices_and_their_width_allow() -> None:
    assert coherence.distances((1, 64, 64), (1, 1, 1)) == 0
    assert coherence.distances((3, 64, 64), (1, 1, 1)) == 2
    assert coherence.distances((64, 64, 64), (1, 1, 1)) == coherence.DISTANCES
    assert coherence.distances((64, 11, 64), (2, 1, 1)) == 2  # 5 mm of 10
    assert coherence.distances((64, 11, 64), (8, 1, 1)) == 0


def test_a_single_slice_and_blank_slices_are_refused() -> None:
    with pytest.raises(DataInvalid, match="1 x 24 x 24 voxels tell nothing of slices 0 apart"):
        coherence.profile(Volume(np.zeros((1, 24, 24), np.int16), affine_of((1, 1, 1))))
    blank = np.zeros((12, 24, 24), np.int16) + np.arange(12, dtype=np.int16)[:, None, None]
    with pytest.raises(DataInvalid, match="nothing changes within the slices"):
        coherence.profile(Volume(blank, affine_of((1, 1, 1))))


def test_real_scans_are_coherent_and_their_shuffled_slices_are_not(ctdata: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("LIDC-IDRI-0314/CT_D/ct.nii.gz", "Lung_Dx-A0002/B40f/ct.nii.gz", "CIP-ct64/dicom"):
        scan = formats.read(ctdata / "chest" / name).reorient()
        shuffled = like(scan, scan.hu[random.permutation(len(scan.hu))])
        whole, mixed = coherence.profile(scan), coherence.profile(shuffled)
        assert (whole < 0).all()
        assert mixed[0] > 1
