"""Pictures: which side is which, true proportions, grey values, and the one way back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tomogen import formats
from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.formats import Provenance, ReadOptions, pictures
from tomogen.intensity import BONE, LUNG, WINDOWS, Window
from tomogen.volume import Acquisition, Volume, affine_of

MADE = Provenance(model="wgan2d", run="0123456789abcdef", seed=4, index=2)


def scan() -> Volume:
    """40 mm cube of water in air; bone at the left, 100 HU at the back, 300 HU at the top."""
    hu = np.full((20, 40, 40), -1000, np.int16)
    hu[5:15, 10:30, 10:30] = 0
    hu[5:15, 10:30, 26:30] = 1200  # left
    hu[5:15, 26:30, 10:26] = 100  # posterior
    hu[12:15, 10:26, 10:26] = 300  # superior
    return Volume(hu, affine_of((4.0, 2.0, 2.0)))


def brightest(image: np.ndarray) -> tuple[float, float]:
    """Where the brightest part lies: rows and columns, as parts of the picture."""
    rows, columns = np.nonzero(image > 0.95 * image.max())
    return rows.mean() / image.shape[0], columns.mean() / image.shape[1]


def planes(volume: Volume, window: Window) -> list[np.ndarray]:
    """The axial, coronal and sagittal tile, without legend and letters."""
    image = np.asarray(pictures.three_planes(volume, window, size=120))
    assert image.shape[1] == 3 * 120 + 2 * pictures.views.GAP
    return [image[:120, n * (120 + pictures.views.GAP) :][:, :120][:, 12:].astype(int) for n in range(3)]


@pytest.mark.parametrize("turned", ["SPL", "LAI", "ARS", "IPR", "PSR"])
def test_left_is_on_the_right_the_back_is_down_and_the_head_is_up(turned: str) -> None:
    volume = scan().reorient(turned)
    axial, coronal, _ = planes(volume, BONE)
    assert brightest(axial)[1] > 0.6  # the bone at the patient's left
    assert brightest(coronal)[1] > 0.6
    _, head, side = planes(volume, Window(200, 301))
    assert brightest(head[:, :60])[0] < 0.45  # the top, right of the bone
    assert brightest(side)[0] < 0.45
    back = planes(volume, Window(50, 101))
    assert brightest(np.where(back[0] > 0, back[0], 0)[:, :70])[0] > 0.6  # the back, in the axial plane
    low = back[2][70:]  # below the slab at the top
    assert brightest(low)[1] > 0.6  # in the sagittal plane the back is on the right


def test_proportions_are_true() -> None:
    flat = Volume(np.pad(scan().hu, ((0, 0), (0, 0), (0, 40)), constant_values=-1000), affine_of((4.0, 1.0, 2.0)))
    # 80 mm up, 40 mm back, 160 mm left: 80 x 160 pixels and so on.
    image = pictures.three_planes(flat, LUNG, size=160)
    assert image.height >= 80
    sheet = pictures.contact_sheet(flat, LUNG, count=1, tile=160)
    assert sheet.width == 160
    assert 40 < sheet.height < 40 + 20  # and the legend


def test_grey_values_are_the_window() -> None:
    hu = np.array([[-2000, -1350, -600, 150, 900]], dtype=np.float32)
    assert pictures.views.grey(hu, LUNG).tolist() == [[0, 0, 128, 255, 255]]


def test_a_strip_has_32_slices_and_a_sheet_as_many_as_there_are() -> None:
    volume = scan()
    for name, image, tiles in (
        ("strip", pictures.strip(volume, tile=40), (16, 2)),
        ("sheet", pictures.contact_sheet(volume, columns=5, tile=40), (5, 4)),
    ):
        gap = pictures.views.GAP
        assert image.width == tiles[0] * (40 + gap) - gap, name
        assert image.height >= tiles[1] * (40 + gap) - gap, name
        assert image.mode == "L"
    ramp = Volume(np.repeat(np.arange(20, dtype=np.int16)[:, None, None] * 50 - 1000, 9, 1).repeat(9, 2), volume.affine)
    for image in (pictures.strip(ramp, tile=40), pictures.contact_sheet(ramp, tile=40)):
        shown = np.asarray(image)
        assert shown[10, 10] > 150  # the uppermost slice comes first
        assert shown[-25, -10] < 30


def test_a_flight_goes_from_head_to_feet_through_every_slice(tmp_path: Path) -> None:
    frames = pictures.fly_through(scan(), Window(200, 301), size=40)
    assert len(frames) == 20
    top = [bool((np.asarray(frame)[:40, :25] > 250).any()) for frame in frames]
    assert top.index(True) == 20 - 15
    # Equal frames would become one that lasts longer.
    pictures.save(
        [frame.point(lambda value, n=n: value | n << 2) for n, frame in enumerate(frames)], tmp_path / "x.gif"
    )
    with Image.open(tmp_path / "x.gif") as film:
        assert (film.n_frames, film.info["loop"]) == (20, 0)


def test_a_grid_shows_slices_pixel_for_pixel() -> None:
    hu = np.stack([np.full((8, 6), value) for value in (-1000, 400, -1000)])
    image = np.asarray(pictures.grid(hu, columns=3))
    assert image.shape == (8, 3 * 6 + 2 * pictures.views.GAP)
    assert (image[:, 8:14] == 255).all()
    assert (image[:, :8] == 0).all()


def test_synthetic_pictures_say_so_in_picture_and_text(tmp_path: Path) -> None:
    real = scan()
    made = Volume(real.hu, real.affine, Acquisition(synthetic=True))
    assert np.asarray(pictures.contact_sheet(real)).tobytes() != np.asarray(pictures.contact_sheet(made)).tobytes()
    for ending in ("png", "jpg", "gif"):
        formats.write(made, tmp_path / f"x.{ending}", MADE)
        content = (tmp_path / f"x.{ending}").read_bytes()
        assert b"SYNTHETIC: tomogen/wgan2d, run 0123456789abcdef, seed 4, sample 2; not for diagnosis" in content


def test_16_bit_slices_return_and_know_when_one_is_missing_twice_or_foreign(tmp_path: Path) -> None:
    volume = scan()
    formats.write(volume, tmp_path / "a.slices")
    files = sorted((tmp_path / "a.slices").iterdir())
    assert len(files) == 20
    one = formats.read(files[13])
    assert np.array_equal(one.hu[0], volume.hu[13])
    assert np.allclose(one.origin, volume.world((13, 0, 0)))
    files[7].rename(tmp_path / "a.slices" / "zzz.png")  # names do not matter
    assert np.array_equal(formats.read(tmp_path / "a.slices").hu, volume.hu)
    twice = tmp_path / "a.slices" / "again.png"
    twice.write_bytes(files[9].read_bytes())
    assert refused(tmp_path / "a.slices") is Reason.DUPLICATE
    twice.unlink()
    files[9].unlink()
    assert refused(tmp_path / "a.slices") is Reason.GAP
    formats.write(Volume(volume.hu, affine_of((4.0, 2.0, 1.0))), tmp_path / "b.slices")
    files[9].write_bytes((tmp_path / "b.slices" / files[9].name).read_bytes())
    assert refused(tmp_path / "a.slices") is Reason.SEVERAL


def refused(path: Path, **options: object) -> Reason:
    with pytest.raises(DataInvalid) as error:
        formats.read(path, ReadOptions(**options))  # type: ignore[arg-type]
    return error.value.reason


@pytest.mark.parametrize("ending", [".slices", ".jpegs"])
def test_8_bit_slices_come_back_only_when_asked_within_half_a_step(ending: str, tmp_path: Path) -> None:
    smooth = np.linspace(-1000, 400, 20 * 40 * 40).reshape(20, 40, 40).astype(np.float32)
    volume = Volume(smooth, scan().affine)
    pictures.draw(volume, tmp_path / f"x{ending}", WINDOWS["full"])
    with pytest.raises(DataInvalid, match=r"0\.\.255 is not HU") as error:
        formats.read(tmp_path / f"x{ending}")
    assert "--window-of -1000" in (error.value.fix or "")
    back = formats.read(tmp_path / f"x{ending}", ReadOptions(window_of=Window(-1000, 400)))
    step = 1400 / 255
    assert np.abs(back.hu - smooth).max() <= step * (0.51 if ending == ".slices" else 2)
    assert np.array_equal(back.affine, volume.affine)


def test_pictures_of_others_need_window_spacing_and_axes(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in (1, 2, 10):
        Image.fromarray(np.full((5, 4), 10 * n, np.uint8)).save(folder / f"slice{n}.png")
    window = Window(-1000, 1550)
    assert refused(folder) is Reason.HU_RANGE
    assert refused(folder, window_of=window) is Reason.NO_GEOMETRY
    volume = formats.read(folder, ReadOptions(window_of=window, spacing=(3, 1, 1), axes="SPL"))
    assert volume.hu[:, 0, 0].tolist() == [-900, -800, 0]  # 2 comes before 10
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(folder / "slice3.png")
    assert refused(folder, window_of=window, spacing=(3, 1, 1), axes="SPL") is Reason.MIXED


@pytest.mark.parametrize(
    ("mode", "name", "reason"),
    [
        ("L", "x.png", Reason.HU_RANGE), ("L", "x.jpg", Reason.HU_RANGE), ("I;16", "x.png", Reason.HU_RANGE),
        ("RGBA", "x.png", Reason.DIMENSIONS), ("RGB", "x.jpg", Reason.DIMENSIONS), ("P", "x.png", Reason.DIMENSIONS),
        ("CMYK", "x.jpg", Reason.DIMENSIONS), ("P", "x.gif", Reason.DIMENSIONS),
    ],
)  # fmt: skip
def test_a_picture_is_no_scan(mode: str, name: str, reason: Reason, tmp_path: Path) -> None:
    Image.new(mode, (9, 8)).save(tmp_path / name)
    assert refused(tmp_path / name) is reason


def test_damaged_pictures_are_refused(tmp_path: Path) -> None:
    formats.write(scan(), tmp_path / "x.slices")
    file = sorted((tmp_path / "x.slices").iterdir())[10]
    content = file.read_bytes()
    generator = np.random.default_rng(1)
    seen = set()
    for n in range(120):
        bent = bytearray(content[: generator.integers(0, len(content))] if n % 3 == 0 else content)
        for _ in range(n % 5):
            if bent:
                bent[generator.integers(len(bent))] ^= 1 << generator.integers(8)
        file.write_bytes(bent)
        try:
            formats.read(tmp_path / "x.slices")
            seen.add("read")
        except DataInvalid as error:
            seen.add(error.reason)
    assert {"read", Reason.CORRUPT, Reason.EMPTY} <= seen | {Reason.EMPTY}


def test_a_picture_larger_than_the_cap_is_refused(tmp_path: Path) -> None:
    formats.write(scan(), tmp_path / "x.slices")
    assert refused(tmp_path / "x.slices", max_volume=1000) is Reason.TOO_LARGE


def test_no_other_ending_is_a_picture(tmp_path: Path) -> None:
    with pytest.raises((DataInvalid, UsageFault)):
        pictures.save(pictures.fly_through(scan()), tmp_path / "x.bmp")
