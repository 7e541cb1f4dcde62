"""NIfTI, MetaImage and NRRD: what other libraries say of our files, and why files are refused."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from tomogen import formats
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault
from tomogen.formats import Provenance, ReadOptions
from tomogen.volume import Acquisition, Volume, affine_of

GENERATOR = np.random.default_rng(3)
HU = np.rint(GENERATOR.normal(-400, 500, (5, 6, 7)).clip(-1024, 2000)).astype(np.int16)
SPACING = (2.5, 0.8, 0.7)
OBLIQUE = affine_of(SPACING, (-120.5, 33.25, 400))
OBLIQUE[:3, :3] = (
    np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    @ OBLIQUE[:3, :3]
)
SCAN = Volume(HU, OBLIQUE)
MADE = Provenance(model="wgan3d", run="0123456789abcdef", seed=4, index=2)


def reason_of(path: Path, **options: object) -> Reason:
    with pytest.raises(DataInvalid) as refused:
        formats.read(path, ReadOptions(**options))  # type: ignore[arg-type]
    assert refused.value.at
    return refused.value.reason


def itk_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (k, j, i), and the affine of that order to LPS mm, as SimpleITK sees them."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), affine


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_simpleitk_reads_what_we_write(ending: str, dtype: type, tmp_path: Path) -> None:
    volume = Volume((HU + (0.25 if dtype == np.float32 else 0)).astype(dtype), OBLIQUE)
    formats.write(volume, tmp_path / f"scan{ending}", MADE)
    voxels, affine = itk_volume(tmp_path / f"scan{ending}")
    assert np.array_equal(voxels, volume.hu)
    assert np.allclose(affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("kind", [sitk.sitkInt16, sitk.sitkInt32, sitk.sitkFloat32, sitk.sitkFloat64])
@pytest.mark.parametrize("compressed", [False, True])
def test_we_read_what_simpleitk_writes(ending: str, kind: int, compressed: bool, tmp_path: Path) -> None:
    image = sitk.Cast(sitk.GetImageFromArray(HU), kind)
    image.SetSpacing(SPACING[::-1])
    image.SetDirection(SCAN.directions[:, ::-1].ravel().tolist())
    image.SetOrigin(SCAN.origin.tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{ending}"), useCompression=compressed)
    volume = formats.read(tmp_path / f"scan{ending}")
    assert np.array_equal(volume.hu, HU)
    assert volume.hu.dtype == np.int16
    assert np.allclose(volume.affine, OBLIQUE, atol=1e-4)


def test_nibabel_reads_what_we_write_with_both_forms_set(tmp_path: Path) -> None:
    formats.write(SCAN, tmp_path / "scan.nii.gz")
    image = nib.load(tmp_path / "scan.nii.gz")
    ras = np.diag([-1, -1, 1, 1]) @ OBLIQUE[:, [2, 1, 0, 3]]
    assert np.array_equal(np.asarray(image.dataobj).T, HU)
    for form in (image.get_sform(), image.get_qform()):
        assert np.allclose(form, ras, atol=1e-4)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_scan_too_far_out_for_float32_becomes_nifti_2(tmp_path: Path) -> None:
    far = Volume(HU, affine_of(SPACING, (-54321.123456, 0, 0)))
    formats.write(far, tmp_path / "far.nii")
    assert isinstance(nib.load(tmp_path / "far.nii"), nib.Nifti2Image)
    assert np.abs(formats.read(tmp_path / "far.nii").affine - far.affine).max() < 1e-4


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_synthetic_file_names_model_run_seed_and_index(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"scan{ending}"
    formats.write(Volume(HU, OBLIQUE, Acquisition(synthetic=True)), path, MADE)
    content = gzip.decompress(path.read_bytes()) if ending == ".nii.gz" else path.read_bytes()
    for word in (b"SYNTHETIC", b"wgan3d", b"0123456789ab", b"seed 4"):
        assert word in content[:600]


# NIfTI, made by nibabel and then bent.

RAS = np.diag([-0.7, -0.8, 2.5, 1.0])


def nifti(path: Path, data: np.ndarray, affine: np.ndarray = RAS, *, s: int = 1, q: int = 0, **header: object) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, s)
    image.set_qform(None if q == 0 else affine, q)
    content = bytearray(image.to_bytes())
    for place, packed in header.values():  # type: ignore[misc]
        content[place : place + len(packed)] = packed
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


DATA = HU.T.copy()
F = np.float32


@pytest.mark.parametrize(
    ("name", "data", "bend", "reason"),
    [
        ("two dimensions", DATA[:, :, 0], {}, Reason.DIMENSIONS),
        ("three volumes", np.stack([DATA] * 3, -1), {}, Reason.DIMENSIONS),
        ("five dimensions", np.stack([DATA] * 3, -1)[:, :, :, None], {}, Reason.DIMENSIONS),
        ("complex", DATA.astype(np.complex64), {}, Reason.DIMENSIONS),
        ("colour", np.zeros(DATA.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]), {}, Reason.DIMENSIONS),
        ("no orientation", DATA, {"s": 0}, Reason.NO_GEOMETRY),
        ("sheared", DATA, {"affine": RAS @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])},
         Reason.BAD_GEOMETRY),
        ("vanishing axis", DATA, {"x": (296, struct.pack("<4f", 0, 0, 0, 0))}, Reason.BAD_GEOMETRY),
        ("NaN in the affine", DATA, {"x": (280, struct.pack("<f", np.nan))}, Reason.BAD_GEOMETRY),
        ("metres", DATA, {"x": (123, b"\1")}, Reason.BAD_GEOMETRY),
        ("NaN", np.where(DATA < -900, np.nan, DATA).astype(F), {}, Reason.NOT_FINITE),
        ("all NaN", np.full(DATA.shape, np.nan, F), {}, Reason.NOT_FINITE),
        ("infinity", np.where(DATA > 300, np.inf, DATA).astype(F), {}, Reason.NOT_FINITE),
        ("normalised", ((DATA + 1024) / 3000).astype(F), {}, Reason.HU_RANGE),
        ("standardised", ((DATA - DATA.mean()) / DATA.std()).astype(F), {}, Reason.HU_RANGE),
        ("shifted", (DATA + 1024).astype(np.uint16), {}, Reason.HU_RANGE),
        ("eight bits", (DATA // 16).clip(-128, 127).astype(np.int8), {}, Reason.HU_RANGE),
        ("twice shifted", (DATA - 8192).astype(np.int16), {}, Reason.HU_RANGE),
        ("a mask", (DATA > -300).astype(np.uint8), {}, Reason.MASK),
        ("a mask in HU's type", (DATA > -300).astype(np.int16), {}, Reason.MASK),
        ("labels", (DATA > -300).astype(np.int16) * 3 + (DATA > 150), {}, Reason.MASK),
        ("constant", np.zeros(DATA.shape, np.int16), {}, Reason.CONSTANT),
        ("infinite slope", DATA, {"x": (112, struct.pack("<ff", np.inf, 0))}, Reason.CORRUPT),
        ("unknown type", DATA, {"x": (70, struct.pack("<h", 12345))}, Reason.CORRUPT),
        ("dim[0] = 0", DATA, {"x": (40, struct.pack("<h", 0))}, Reason.CORRUPT),
        ("a negative size", DATA, {"x": (44, struct.pack("<h", -5))}, Reason.CORRUPT),
        ("wrong magic", DATA, {"x": (344, b"XYZ\0")}, Reason.CORRUPT),
        ("absurd size", DATA, {"x": (42, struct.pack("<3h", 32767, 32767, 32767))}, Reason.TOO_LARGE),
        ("pixels past the end", DATA, {"x": (108, struct.pack("<f", 1e9))}, Reason.TRUNCATED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_nifti_that_is_no_scan_is_refused_for_its_reason(
    name: str, data: np.ndarray, bend: dict[str, object], reason: Reason, ending: str, tmp_path: Path
) -> None:
    assert reason_of(nifti(tmp_path / f"x{ending}", data, **bend)) is reason  # type: ignore[arg-type]


def test_nan_is_counted_and_placed(tmp_path: Path) -> None:
    data = DATA.astype(F)
    data[5, 4, 3] = data[6, 5, 4] = np.nan
    with pytest.raises(DataInvalid, match=r"2 of 210 voxels .* \(z, y, x\) = \(3, 4, 5\)"):
        formats.read(nifti(tmp_path / "x.nii", data))


def test_scaling_is_applied_without_loss(tmp_path: Path) -> None:
    stored = ((DATA.astype(int) + 1024) // 2).astype(np.int16)
    even = nifti(tmp_path / "even.nii", stored, x=(112, struct.pack("<ff", 2, -1024)))
    assert np.array_equal(formats.read(even).hu, (stored * 2 - 1024).T)
    assert formats.read(even).hu.dtype == np.int16
    fraction = nifti(tmp_path / "fraction.nii", stored, x=(112, struct.pack("<ff", 1.3, -1024)))
    assert np.array_equal(formats.read(fraction).hu, (stored * float(F(1.3)) - 1024).astype(F).T)


def test_slopes_of_zero_and_nan_mean_none(tmp_path: Path) -> None:
    for slope in (0.0, np.nan):
        path = nifti(tmp_path / "x.nii", DATA, x=(112, struct.pack("<ff", slope, slope)))
        assert np.array_equal(formats.read(path).hu, HU)


def test_one_volume_of_a_series_in_time_is_taken_when_asked_for(tmp_path: Path) -> None:
    path = nifti(tmp_path / "x.nii.gz", np.stack([DATA, DATA + 1, DATA + 2], -1))
    assert np.array_equal(formats.read(path, ReadOptions(volume=2)).hu, HU + 2)
    assert reason_of(path, volume=3) is Reason.DIMENSIONS
    assert np.array_equal(formats.read(nifti(tmp_path / "y.nii", DATA[..., None])).hu, HU)


def test_spacing_and_axes_place_a_file_that_tells_none_and_only_such_a_file(tmp_path: Path) -> None:
    told = ReadOptions(spacing=(3, 2, 1), axes="IAR")
    bare = formats.read(nifti(tmp_path / "x.nii", DATA, s=0), told)
    assert bare.spacing == (3, 2, 1)
    assert bare.orientation == "IAR"
    assert formats.read(nifti(tmp_path / "y.nii", DATA), told).spacing == pytest.approx((2.5, 0.8, 0.7))
    with pytest.raises(UsageFault, match="SPL"):
        formats.read(nifti(tmp_path / "x.nii", DATA, s=0), ReadOptions(spacing=(3, 2, 1), axes="XYZ"))


def test_qform_alone_places_and_forms_that_contradict_are_refused(tmp_path: Path) -> None:
    alone = formats.read(nifti(tmp_path / "q.nii", DATA, s=0, q=1))
    assert np.allclose(alone.affine, np.diag([-1, -1, 1, 1]) @ RAS[:, [2, 1, 0, 3]], atol=1e-5)
    bent = {"x": (280, struct.pack("<4f", 1, 0, 0, 0))}
    assert reason_of(nifti(tmp_path / "both.nii", DATA, q=1, **bent)) is Reason.BAD_GEOMETRY


def test_metres_and_micrometres_become_mm(tmp_path: Path) -> None:
    small = nifti(tmp_path / "m.nii", DATA, np.diag([-0.7e-3, -0.8e-3, 2.5e-3, 1]), x=(123, b"\1"))
    large = nifti(tmp_path / "um.nii", DATA, np.diag([-0.7e3, -0.8e3, 2.5e3, 1]), x=(123, b"\3"))
    for path in (small, large):
        assert formats.read(path).spacing == pytest.approx((2.5, 0.8, 0.7), rel=1e-5)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    head = bytearray(nifti(tmp_path / "x.nii", DATA).read_bytes()[:352])
    head[42:48] = struct.pack("<3h", 900, 900, 900)
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(bytes(head)))
    tracemalloc.start()
    assert reason_of(bomb) is Reason.TRUNCATED
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
    assert reason_of(bomb, max_volume=2**20) is Reason.TOO_LARGE


def test_what_follows_the_pixels_does_not_matter_but_a_cut_stream_does(tmp_path: Path) -> None:
    good = nifti(tmp_path / "x.nii", DATA).read_bytes()
    trailing, cut, holed = tmp_path / "t.nii.gz", tmp_path / "c.nii.gz", tmp_path / "h.nii.gz"
    trailing.write_bytes(gzip.compress(good + b"rubbish" * 99))
    assert np.array_equal(formats.read(trailing).hu, HU)
    packed = gzip.compress(good)
    cut.write_bytes(packed[:-60])
    assert reason_of(cut) is Reason.TRUNCATED
    holed.write_bytes(packed[:200] + packed[260:])
    assert reason_of(holed) in (Reason.TRUNCATED, Reason.CORRUPT)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # within the checksum
    holed.write_bytes(flipped)
    assert reason_of(holed) is Reason.CORRUPT


def test_a_gzip_stream_is_known_by_its_bytes_not_by_its_name(tmp_path: Path) -> None:
    good = nifti(tmp_path / "x.nii", DATA).read_bytes()
    (tmp_path / "a.nii").write_bytes(gzip.compress(good))
    (tmp_path / "b.nii.gz").write_bytes(good)
    for name in ("a.nii", "b.nii.gz"):
        assert np.array_equal(formats.read(tmp_path / name).hu, HU)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"])
def test_no_bytes_noise_and_nothing_are_told_apart(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    with pytest.raises(InputMissing):
        formats.read(path)
    path.write_bytes(b"")
    assert reason_of(path) is Reason.EMPTY
    path.write_bytes(GENERATOR.bytes(3000))
    assert reason_of(path) is Reason.CORRUPT


# MetaImage and NRRD: headers are text.

PIXELS = HU.astype("<i2").tobytes()


def meta(path: Path, pixels: bytes = PIXELS, **fields: str | None) -> Path:
    known: dict[str, str | None] = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "-1 -2 -3", "ElementSpacing": "0.7 0.8 2.5",
        "DimSize": "7 6 5", "ElementType": "MET_SHORT",
    }  # fmt: skip
    data = fields.pop("ElementDataFile", "LOCAL")
    known |= fields
    lines = [f"{key} = {value}\n" for key, value in known.items() if value is not None]
    path.write_bytes("".join([*lines, f"ElementDataFile = {data}\n"]).encode() + pixels)
    return path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"NDims": "4", "DimSize": "7 6 1 5"}, Reason.DIMENSIONS),
        ({"NDims": "2", "DimSize": "7 30"}, Reason.DIMENSIONS),
        ({"ElementNumberOfChannels": "3"}, Reason.DIMENSIONS),
        ({"ElementSpacing": "0 0 0"}, Reason.BAD_GEOMETRY),
        ({"ElementSpacing": "-1 1 1"}, Reason.BAD_GEOMETRY),
        ({"ElementSpacing": "nan 1 1"}, Reason.BAD_GEOMETRY),
        ({"ElementSpacing": "1 1 1e300"}, Reason.BAD_GEOMETRY),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, Reason.BAD_GEOMETRY),
        ({"TransformMatrix": "1 0.4 0 0 1 0 0 0 1"}, Reason.BAD_GEOMETRY),
        ({"ElementSpacing": None}, Reason.NO_GEOMETRY),
        ({"TransformMatrix": None}, Reason.NO_GEOMETRY),
        ({"ElementSpacing": "a b c"}, Reason.CORRUPT),
        ({"DimSize": None}, Reason.CORRUPT),
        ({"DimSize": "7 6 -5"}, Reason.CORRUPT),
        ({"DimSize": "7 6 nan"}, Reason.CORRUPT),
        ({"DimSize": "99999 99999 99999"}, Reason.TOO_LARGE),
        ({"DimSize": "1e300 1e300 1e300"}, Reason.TOO_LARGE),
        ({"DimSize": "7 6 50"}, Reason.TRUNCATED),
        ({"ElementType": "MET_OTHER"}, Reason.CORRUPT),
        ({"ElementDataFile": "nowhere.raw"}, Reason.TRUNCATED),
        ({"ElementDataFile": "../../../etc/hostname"}, Reason.CORRUPT),
        ({"ElementDataFile": "/etc/hostname"}, Reason.CORRUPT),
        ({"ElementDataFile": "LIST"}, Reason.CORRUPT),
        ({"CompressedData": "True"}, Reason.CORRUPT),
    ],
)
def test_a_metaimage_that_is_no_scan_is_refused_for_its_reason(
    fields: dict[str, str | None], reason: Reason, tmp_path: Path
) -> None:
    assert np.array_equal(formats.read(meta(tmp_path / "good.mha")).hu, HU)
    assert reason_of(meta(tmp_path / "x.mha", **fields)) is reason


def test_text_pixels_big_endian_and_a_header_to_skip_are_read(tmp_path: Path) -> None:
    text = meta(tmp_path / "t.mha", " ".join(map(str, HU.ravel())).encode(), BinaryData="False")
    big = meta(tmp_path / "b.mha", HU.astype(">i2").tobytes(), BinaryDataByteOrderMSB="True")
    (tmp_path / "p.raw").write_bytes(b"header of 17 byte" + PIXELS)
    skipped = meta(tmp_path / "s.mhd", b"", ElementDataFile="p.raw", HeaderSize="17")
    counted = meta(tmp_path / "c.mhd", b"", ElementDataFile="p.raw", HeaderSize="-1")
    for path in (text, big, skipped, counted):
        assert np.array_equal(formats.read(path).hu, HU)
    assert reason_of(meta(tmp_path / "x.mha", b"1 2 three" * 99, BinaryData="False")) is Reason.CORRUPT


def nrrd(path: Path, pixels: bytes | None = None, magic: str = "NRRD0005", **fields: str | None) -> Path:
    known: dict[str, str | None] = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "7 6 5",
        "space directions": "(0.7,0,0) (0,0.8,0) (0,0,2.5)", "endian": "little", "encoding": "gzip",
        "space origin": "(-1,-2,-3)",
    }  # fmt: skip
    known |= {key.replace("_", " "): value for key, value in fields.items()}
    lines = [f"{key}: {value}\n" for key, value in known.items() if value is not None]
    body = gzip.compress(PIXELS) if pixels is None else pixels
    path.write_bytes("".join([f"{magic}\n# a comment\n", *lines, "key:=value\n", "\n"]).encode() + body)
    return path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"space": None, "space_directions": None}, Reason.NO_GEOMETRY),
        ({"space": None, "space_directions": None, "spacings": "0.7 0.8 2.5"}, Reason.NO_GEOMETRY),
        ({"space": "scanner-xyz"}, Reason.NO_GEOMETRY),
        ({"space_directions": "(nan,0,0) (0,1,0) (0,0,1)"}, Reason.BAD_GEOMETRY),
        ({"space_directions": "(1,0,0) (0.5,1,0) (0,0,1)"}, Reason.BAD_GEOMETRY),
        ({"space_directions": "(0,0,0) (0,1,0) (0,0,1)"}, Reason.BAD_GEOMETRY),
        ({"dimension": "4", "sizes": "3 7 2 5", "space_directions": "none (1,0,0) (0,1,0) (0,0,1)"}, Reason.DIMENSIONS),
        ({"dimension": "4", "sizes": "7 6 1 5", "space_directions": "(1,0,0) (0,1,0) (0,0,1) none"}, Reason.DIMENSIONS),
        ({"dimension": "2", "sizes": "7 30", "space_directions": None}, Reason.DIMENSIONS),
        ({"type": "block"}, Reason.DIMENSIONS),
        ({"type": "quaternion"}, Reason.CORRUPT),
        ({"encoding": "xz"}, Reason.CORRUPT),
        ({"magic": "NRRD0009"}, Reason.CORRUPT),
        ({"sizes": "7 6 0"}, Reason.CORRUPT),
        ({"sizes": "7 6 x"}, Reason.CORRUPT),
        ({"sizes": "7 6 500"}, Reason.TRUNCATED),
        ({"sizes": "70000 60000 50000"}, Reason.TOO_LARGE),
        ({"encoding": "raw", "sizes": "7 6 500"}, Reason.TRUNCATED),
        ({"data_file": "nowhere.raw"}, Reason.TRUNCATED),
        ({"data_file": "../x.raw"}, Reason.CORRUPT),
        ({"sizes": None}, Reason.TRUNCATED),
    ],
)
def test_a_nrrd_that_is_no_scan_is_refused_for_its_reason(
    fields: dict[str, str | None], reason: Reason, tmp_path: Path
) -> None:
    assert np.array_equal(formats.read(nrrd(tmp_path / "good.nrrd")).hu, HU)
    assert reason_of(nrrd(tmp_path / "x.nrrd", **fields)) is reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1)), ("LPS", (1, 1)), ("right-anterior-superior", (-1, -1)), ("RAS", (-1, -1)),
        ("left-anterior-superior", (1, -1)), ("LAS", (1, -1)),
    ],
)  # fmt: skip
def test_every_anatomical_space_of_nrrd_becomes_lps(space: str, signs: tuple[int, int], tmp_path: Path) -> None:
    volume = formats.read(nrrd(tmp_path / "x.nrrd", space=space))
    x, y = signs
    assert np.allclose(
        volume.affine, np.array([[0, 0, 0.7 * x, -x], [0, 0.8 * y, 0, -2 * y], [2.5, 0, 0, -3], [0, 0, 0, 1]])
    )


def test_text_raw_detached_and_skipped_nrrd_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.raw").write_bytes(b"line one\nline two\nxyz" + PIXELS)
    found = [
        nrrd(tmp_path / "t.nrrd", " ".join(map(str, HU.ravel())).encode(), encoding="ascii"),
        nrrd(tmp_path / "r.nrrd", PIXELS, encoding="raw"),
        nrrd(tmp_path / "big.nrrd", HU.astype(">i2").tobytes(), encoding="raw", endian="big"),
        nrrd(tmp_path / "d.nhdr", b"", encoding="raw", data_file="p.raw", line_skip="2", byte_skip="3"),
        nrrd(tmp_path / "e.nhdr", b"", encoding="raw", data_file="p.raw", byte_skip="-1"),
        nrrd(tmp_path / "g.nrrd", gzip.compress(b"xyz" + PIXELS), byte_skip="3"),
    ]
    for path in found:
        assert np.array_equal(formats.read(path).hu, HU), path.name


@pytest.mark.parametrize("name", ["x.mha", "x.nrrd"])
def test_reading_says_nothing_on_the_terminal(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    path.write_bytes((meta if name == "x.mha" else nrrd)(path).read_bytes()[:-20])
    with pytest.raises(DataInvalid):
        formats.read(path)
    assert capfd.readouterr() == ("", "")
