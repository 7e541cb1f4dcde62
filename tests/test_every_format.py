"""Promises that every format of the catalog keeps: what is written is read back, and what is damaged is refused."""

import math
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tomogen import catalog, formats
from tomogen.errors import DataInvalid, Reason, TomogenError
from tomogen.formats import ReadOptions
from tomogen.volume import Acquisition, Volume

LOSSY = set().union(*(getattr(catalog.load("formats", name), "LOSSY", ()) for name in catalog.names("formats")))
ENDINGS = sorted(ending for word, ending in formats.outputs().items() if word not in LOSSY)
OTHERS = [".nii", ".mhd", ".nhdr", ".dcm"]
"""Endings that formats write too when a name asks for them."""
FLOATS = [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"]
"""Endings that keep float32 bit by bit."""
SINGLE = [".nii", *(ending for ending in ENDINGS if ending not in ("", ".slices"))]
"""Endings of formats that are one file and no folder."""

NEAR = 1e-4
"""mm by which a voxel may move."""


def rotation(w: float, x: float, y: float, z: float) -> np.ndarray:
    """The rotation of a quaternion of any length; of none, the identity."""
    q = np.array([w, x, y, z])
    if np.linalg.norm(q) < 1e-3:
        return np.eye(3)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


part = st.floats(-1, 1)
spacing = st.floats(0.3, 5)


@st.composite
def volumes(draw: st.DrawFn, dtype: str | None = None) -> Volume:
    """Small scans, turned, mirrored and placed anywhere: from air to bone, in int16 or float32."""
    shape = draw(st.tuples(st.integers(3, 7), st.integers(2, 9), st.integers(2, 9)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hu = generator.uniform(-1024, 3000, shape)
    hu.flat[:3] = -1024, 3000, 55.5
    kind = dtype or draw(st.sampled_from(["int16", "float32"]))
    hu = np.rint(hu).astype(np.int16) if kind == "int16" else hu.astype(np.float32)
    axes = rotation(*draw(st.tuples(part, part, part, part))) * draw(st.tuples(spacing, spacing, spacing))
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    affine = np.eye(4)
    affine[:3, :3] = axes[:, order] * signs
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Volume(hu, affine, Acquisition(synthetic=draw(st.booleans())))


def returned(volume: Volume, ending: str) -> Volume:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scan{ending}"
        formats.write(volume, path)
        assert not list(Path(folder).glob("*.partial"))
        return formats.read(path)


def differences(before: Volume, after: Volume) -> tuple[float, float]:
    """Largest difference in HU and in mm over all voxels, each sought at its place in the patient."""
    there = before.world(np.moveaxis(np.indices(before.shape), 0, -1))
    index = np.rint(after.index(there)).astype(int)
    assert (index >= 0).all()
    assert (index < np.array(after.shape)).all()
    assert len(np.unique(index.reshape(-1, 3), axis=0)) == before.hu.size == after.hu.size
    hu = np.abs(after.hu[tuple(np.moveaxis(index, -1, 0))].astype(np.float64) - before.hu).max()
    return float(hu), float(np.abs(after.world(index) - there).max())


@pytest.mark.parametrize("ending", [*ENDINGS, *OTHERS])
@given(volume=volumes())
@settings(max_examples=25)
def test_what_is_written_is_read_back_with_every_voxel_at_its_place(ending: str, volume: Volume) -> None:
    after = returned(volume, ending)
    hu, mm = differences(volume, after)
    assert mm < NEAR
    assert hu == 0 if volume.hu.dtype == np.int16 or after.hu.dtype == np.float32 else hu <= 0.5


@pytest.mark.parametrize("ending", FLOATS)
@given(volume=volumes("float32"))
@settings(max_examples=5)
def test_floats_are_kept_bit_by_bit(ending: str, volume: Volume) -> None:
    assert returned(volume, ending).hu.tobytes() == volume.hu.tobytes()


@pytest.mark.parametrize("ending", [*ENDINGS, *OTHERS])
def test_a_synthetic_scan_stays_synthetic_and_a_real_one_real(ending: str) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    for synthetic in (True, False):
        volume = Volume(hu, np.eye(4)[:, [2, 1, 0, 3]], Acquisition(synthetic=synthetic))
        assert returned(volume, ending).acquisition.synthetic is synthetic


@pytest.mark.parametrize("ending", [*ENDINGS, *OTHERS])
def test_values_are_doubted_unless_a_file_says_that_it_is_synthetic(ending: str) -> None:
    """An untrained model makes values about the middle of its window; no scan of a body lies there."""
    hu = np.random.default_rng(0).normal(300, 100, (4, 9, 9)).clip(-100, 900).astype(np.int16)
    volume = Volume(hu, np.eye(4)[:, [2, 1, 0, 3]], Acquisition(synthetic=True))
    assert np.array_equal(np.sort(returned(volume, ending).hu, axis=None), np.sort(hu, axis=None))
    with pytest.raises(DataInvalid, match="is not HU"):
        returned(Volume(hu, volume.affine), ending)
    labels = Volume((hu > 300).astype(np.int16), volume.affine, volume.acquisition)
    with pytest.raises(DataInvalid, match="mask"):
        returned(labels, ending)


@pytest.mark.parametrize("ending", [*ENDINGS, *OTHERS])
def test_the_same_scan_gives_the_same_bytes(ending: str, tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    volume = Volume(hu, np.eye(4)[:, [2, 1, 0, 3]])
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        formats.write(volume, folder / f"scan{ending}")
        contents.append({p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()})
    assert contents[0] == contents[1]
    assert contents[0]


@pytest.mark.parametrize("ending", [*ENDINGS, *OTHERS])
def test_a_failed_write_leaves_nothing_behind(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    volume = Volume(hu, np.eye(4)[:, [2, 1, 0, 3]])

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        formats.write(volume, tmp_path / f"scan{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [n for n in catalog.names("formats") if n != "dicom"])
def test_a_header_tells_shape_and_place_before_the_pixels(name: str, tmp_path: Path) -> None:
    module = catalog.load("formats", name)
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    volume = Volume(hu, np.diag([3.0, 2.0, 1.5, 1.0])[:, [2, 1, 0, 3]])
    for word, ending in module.OUTPUTS.items():
        if word not in LOSSY:
            formats.write(volume, tmp_path / f"scan{ending}")
            header = module.header(tmp_path / f"scan{ending}")
            assert header.shape == volume.shape
            assert header.spacing == pytest.approx(volume.spacing)
            assert np.allclose(header.affine, volume.affine, atol=1e-5)


flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=12)


@pytest.mark.parametrize("ending", SINGLE)
@given(where=flips, early=st.booleans(), cut=st.none() | st.floats(0, 1))
@example(where=[], early=False, cut=0.0)
@settings(max_examples=120)
def test_a_damaged_file_is_refused_or_read_and_takes_no_more_memory_than_it_declares(
    ending: str, where: list[tuple[float, int]], early: bool, cut: float | None
) -> None:
    content = bytearray(damageable(ending))
    for place, bit in where:  # early: within the header
        content[int(place * (min(400, len(content)) if early else len(content)))] ^= 1 << bit
    if cut is not None:
        del content[int(cut * len(content)) :]
    options = ReadOptions(max_volume=2**26)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scan{ending}"
        path.write_bytes(content)
        try:
            shape = formats.format_of(path).header(path, options).shape
        except TomogenError:
            shape = (0, 0, 0)
        refusal = None
        tracemalloc.start()
        try:
            volume = formats.read(path, options)
        except TomogenError as error:
            volume, refusal = None, getattr(error, "reason", None)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert volume is not None or refusal in Reason
        # 8 bytes a voxel is the most that a type takes; 6 MB are buffers.
        assert peak < 4 * 8 * math.prod(shape) + 6 * 2**20
        if volume is not None:
            assert volume.hu.shape == shape
            assert np.isfinite(volume.hu).all()
            assert np.isfinite(volume.affine).all()


_CONTENT: dict[str, bytes] = {}


def damageable(ending: str) -> bytes:
    """A good file, made once."""
    if ending not in _CONTENT:
        generator = np.random.default_rng(5)
        hu = np.rint(generator.normal(-300, 400, (12, 20, 22)).clip(-1024, 2000)).astype(np.int16)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"scan{ending}"
            formats.write(Volume(hu, np.diag([2.0, 1.0, 1.0, 1.0])[:, [2, 1, 0, 3]]), path)
            _CONTENT[ending] = path.read_bytes()
    return _CONTENT[ending]
