"""Real and computed radiographs: how they are read, hung and normalised, what is refused, how they are stored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

import tomogen
from tomogen import formats
from tomogen.cases import films
from tomogen.cases.radiographs import RadiographFolder, prepare_radiographs
from tomogen.errors import DataInvalid, InputMissing, Reason, TomogenError, UsageFault
from tomogen.formats.pictures.slices import comment
from tomogen.phantoms import chest
from tomogen.radiography import geometry as stand
from tomogen.radiography.agreement import agree, height_profile, likely, swapped, symmetry
from tomogen.radiography.attenuation import attenuation
from tomogen.radiography.look import Look, pictured
from tomogen.radiography.normal import framed, levelled, normalised, placed, seen, uncollimated
from tomogen.radiography.projector import Projector
from tomogen.radiography.radiograph import Radiograph
from tomogen.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom sees what is planted

CR = "1.2.840.10008.5.1.4.1.1.1"
Pixels = NDArray[Any]


def picture(rows: int = 60, columns: int = 48, seed: int = 0) -> NDArray[np.uint16]:
    """Grey values of 10 bits, no two rows or columns alike: every turn of it is another picture."""
    i, j = np.mgrid[0:rows, 0:columns]
    noise = np.random.default_rng(seed).integers(0, 40, (rows, columns))
    grey: NDArray[np.uint16] = (200 + 6 * i + 9 * j + noise).clip(0, 1023).astype(np.uint16)
    return grey


def cr(path: Path, stored: Pixels, **tags: Any) -> Path:
    """A CR file of a chest, with other tags where a test wants them; None takes one away."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = CR, generate_uid()
    d.SOPClassUID, d.SOPInstanceUID = CR, d.file_meta.MediaStorageSOPInstanceUID
    d.Modality, d.BodyPartExamined, d.ViewPosition, d.PatientID = "CR", "CHEST", "PA", "someone"
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = stored.shape[-2:]
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 10, 9, 0
    d.PixelData = stored.astype("<u2").tobytes()
    d["PixelData"].VR = "OW"
    for name, value in tags.items():
        if value is None:
            del d[name]
        elif name == "compressed":
            d.compress(RLELossless)
        else:
            setattr(d, name, value)
    d.save_as(path, enforce_file_format=True)
    return path


def item(**tags: Any) -> list[Dataset]:
    """A sequence of one item."""
    found = Dataset()
    for name, value in tags.items():
        setattr(found, name, value)
    return [found]


def reason_of(path: Path, view: str | None = None) -> Reason:
    with pytest.raises(DataInvalid) as caught:
        films.read(path, view)
    assert caught.value.at == str(path)
    return caught.value.reason


# ---- grey values ----


def test_what_attenuates_is_bright_in_either_photometric_interpretation(tmp_path: Path) -> None:
    grey = picture()
    plain = films.read(cr(tmp_path / "two.dcm", grey))
    inverted = films.read(cr(tmp_path / "one.dcm", 1023 - grey, PhotometricInterpretation="MONOCHROME1"))
    by_shape = films.read(cr(tmp_path / "lut.dcm", 1023 - grey, PresentationLUTShape="INVERSE"))
    assert np.allclose(plain.pixels, inverted.pixels, atol=1e-6)
    assert np.allclose(plain.pixels, by_shape.pixels, atol=1e-6)
    assert plain.pixels[-1, -1] > plain.pixels[0, 0]
    assert (plain.view, plain.kind, plain.synthetic) == ("pa", "frontal", False)


def test_rescale_and_window_are_those_of_the_standard(tmp_path: Path) -> None:
    grey = picture()
    path = cr(
        tmp_path / "w.dcm", grey, RescaleSlope=2, RescaleIntercept=-100, RescaleType="US",
        WindowCenter=1000, WindowWidth=801,
    )  # fmt: skip
    # C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2 = 599.5 to 1399.5
    wanted = ((2.0 * grey - 100 - 599.5) / 800).clip(0, 1)
    assert np.allclose(films.read(path).pixels, wanted, atol=1e-6)
    exact = cr(tmp_path / "e.dcm", grey, WindowCenter=500, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")
    assert np.allclose(films.read(exact).pixels, ((grey - 300.0) / 400).clip(0, 1), atol=1e-6)
    soft = cr(tmp_path / "s.dcm", grey, WindowCenter=500, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert np.allclose(films.read(soft).pixels, 1 / (1 + np.exp(-4 * (grey - 500.0) / 400)), atol=1e-6)
    beside = cr(tmp_path / "b.dcm", grey, WindowCenter=5000, WindowWidth=10)
    assert films.read(beside).pixels.std() > 0.1  # a window that shows nothing is passed over


@pytest.mark.parametrize("packed", [True, False])
def test_tables_map_values_and_hold_at_their_ends(tmp_path: Path, packed: bool) -> None:
    grey = picture()
    entries = (np.arange(512) ** 1.3).astype(np.uint16)
    table = item(LUTDescriptor=[512, 300, 16])
    table[0].add_new(0x00283006, "OW" if packed else "US", entries.astype("<u2").tobytes() if packed else [*entries])
    wanted = entries[(grey.astype(int) - 300).clip(0, 511)] / entries.max()
    read = films.read(cr(tmp_path / "voi.dcm", grey, VOILUTSequence=table))
    assert np.allclose(read.pixels, wanted, atol=1e-6)
    curved = films.read(cr(tmp_path / "mod.dcm", grey, ModalityLUTSequence=table))
    values = wanted * entries.max()
    assert np.allclose(curved.pixels, (values - values.min()) / np.ptp(values), atol=1e-6)


def test_values_of_an_unprocessed_detector_become_attenuation(tmp_path: Path) -> None:
    integrals = np.linspace(0, 3, 60)[:, None] + np.linspace(0, 1, 48)
    counts = np.rint(1000 * np.exp(-integrals)).astype(np.uint16)
    path = cr(
        tmp_path / "raw.dcm", counts, PresentationIntentType="FOR PROCESSING", PixelIntensityRelationship="LIN",
        PixelIntensityRelationshipSign=1,
    )  # fmt: skip
    assert np.allclose(films.read(path).pixels, integrals / 4, atol=0.02)


def test_padding_is_black_and_does_not_widen_the_range(tmp_path: Path) -> None:
    grey = picture()
    padded = grey.copy()
    padded[:5] = 1023
    path = cr(tmp_path / "p.dcm", padded, PixelPaddingValue=1023)
    found = films.read(path).pixels
    assert (found[:5] == 0).all()
    assert found[5:].min() == pytest.approx(0, abs=1e-6)
    assert found[5:].max() == pytest.approx(1)


def test_compressed_and_headless_files_read_alike(tmp_path: Path) -> None:
    grey = picture()
    plain = films.read(cr(tmp_path / "plain.dcm", grey))
    packed = films.read(cr(tmp_path / "rle.dcm", grey, compressed=True))
    assert np.array_equal(plain.pixels, packed.pixels)
    whole = (tmp_path / "plain.dcm").read_bytes()
    body = whole[whole.index(b"\x08\x00\x16\x00UI", 200) :]  # from SOPClassUID on: no preamble, no meta
    (tmp_path / "bare").write_bytes(body)
    assert np.array_equal(films.read(tmp_path / "bare").pixels, plain.pixels)


# ---- hanging ----

SIDES = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}


@pytest.mark.parametrize(
    ("position", "view", "across"), [("PA", "pa", "L"), ("LL", "lateral", "P"), ("RL", "right", "A")]
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("upside", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_however_it_is_stored_it_hangs_as_on_a_viewing_box(
    tmp_path: Path, position: str, view: str, across: str, transposed: bool, upside: bool, mirrored: bool
) -> None:
    hung = picture()
    stored = hung[:: -1 if upside else 1, :: -1 if mirrored else 1]
    directions = [SIDES[across] if mirrored else across, "H" if upside else "F"]
    spacing = [5.0, 4.0]
    if transposed:
        stored, directions, spacing = stored.T, directions[::-1], spacing[::-1]
    path = cr(
        tmp_path / "t.dcm", stored, ViewPosition=position, PatientOrientation=directions, ImagerPixelSpacing=spacing
    )
    found = films.read(path)
    straight = films.read(cr(tmp_path / "s.dcm", hung, ViewPosition=position))
    assert np.array_equal(found.pixels, straight.pixels)
    assert found.view == view
    assert found.spacing == (5.0, 4.0)


def test_the_view_is_said_by_position_code_or_orientation(tmp_path: Path) -> None:
    grey = picture()
    code = item(CodeValue="399173006", CodingSchemeDesignator="SCT", CodeMeaning="left lateral")
    assert films.read(cr(tmp_path / "a", grey, ViewPosition="", ViewCodeSequence=code)).view == "lateral"
    assert films.read(cr(tmp_path / "b", grey, ViewPosition=None, PatientOrientation=["L", "F"])).view == "frontal"
    assert films.read(cr(tmp_path / "c", grey, ViewPosition=None, PatientOrientation=["PR", "F"])).view == "lateral"
    assert films.read(cr(tmp_path / "d", grey, ViewPosition=None)).view is None
    assert films.read(cr(tmp_path / "e", grey, ViewPosition=None), "ap").view == "ap"
    with pytest.raises(UsageFault, match="no such view 'above'; views: pa, ap"):
        films.read(tmp_path / "e", "above")


def test_views_that_are_not_straight_or_contradict_themselves_are_refused(tmp_path: Path) -> None:
    for position in ("RAO", "LLD"):
        assert reason_of(cr(tmp_path / position, picture(), ViewPosition=position)) is Reason.BAD_GEOMETRY
    path = cr(tmp_path / "x", picture(), PatientOrientation=["A", "F"])
    with pytest.raises(DataInvalid, match="a pa view by its name, a lateral one by its PatientOrientation"):
        films.read(path)
    assert reason_of(cr(tmp_path / "y", picture(), PatientOrientation=["L", "P"])) is Reason.BAD_GEOMETRY


def test_spacing_is_that_of_the_detector_and_is_believed_where_a_chest_fits(tmp_path: Path) -> None:
    def spacing(**tags: Any) -> tuple[float, float] | None:
        return films.read(cr(tmp_path / "s.dcm", picture(), **tags)).spacing

    assert spacing() is None
    assert spacing(ImagerPixelSpacing=[5, 4], PixelSpacing=[4, 3.2]) == (5, 4)
    assert spacing(PixelSpacing=[5, 4]) == (5, 4)
    calibrated = {"PixelSpacingCalibrationType": "GEOMETRY", "EstimatedRadiographicMagnificationFactor": "1.25"}
    assert spacing(PixelSpacing=[4, 3.2], **calibrated) == (5, 4)
    assert spacing(PixelSpacing=[0.1, 0.1]) is None  # 6 mm of chest: the picture was made smaller after it was taken
    assert spacing(PixelSpacing=[100, 100]) is None
    assert spacing(PixelSpacing=[-5, 5]) is None


# ---- what is refused ----


@pytest.mark.parametrize(
    ("tags", "reason", "said"),
    [
        ({"Modality": "CT"}, Reason.MODALITY, "a CT given where a radiograph belongs"),
        ({"Modality": "MG"}, Reason.MODALITY, "modality MG, a radiograph"),
        ({"Modality": "Kanarienvogel"}, Reason.MODALITY, "of no known name"),
        ({"BodyPartExamined": "EXTREMITY"}, Reason.NOT_CHEST, "a radiograph of the extremity, a chest expected"),
        ({"BodyPartExamined": "Kanarienvogel"}, Reason.NOT_CHEST, "names no chest"),
        ({"BodyPartExamined": "", "StudyDescription": "left knee"}, Reason.NOT_CHEST, "of the knee"),
        ({"PatientSpeciesDescription": "Felis catus"}, Reason.NOT_CHEST, "of an animal"),
        ({"AcquisitionDeviceProcessingDescription": "CANINE THORAX"}, Reason.NOT_CHEST, "of an animal"),
        ({"PatientBreedDescription": "Kanarienvogel"}, Reason.NOT_CHEST, "of an animal"),
        ({"Modality": "OT", "BodyPartExamined": ""}, Reason.DERIVED, "does not say what it shows"),
        ({"NumberOfFrames": 2, "PixelData": bytes(2 * 2 * 60 * 48)}, Reason.DIMENSIONS, "2 frames, one radiograph"),
        ({"PixelData": bytes(2 * 60 * 48)}, Reason.CONSTANT, "one value"),
        ({"PixelData": bytes(2 * 60 * 20)}, Reason.TOO_LARGE, "declares 60 x 48 pixels"),
        ({"Rows": 60000, "Columns": 60000}, Reason.TOO_LARGE, "declares 60000 x 60000"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.DIMENSIONS, "colour"),
        ({"Rows": 4, "Columns": 48 * 15}, Reason.TOO_SMALL, "32 at least"),
    ],
)
def test_what_is_no_radiograph_of_a_chest_is_refused(
    tmp_path: Path, tags: dict[str, Any], reason: Reason, said: str
) -> None:
    path = cr(tmp_path / "bad.dcm", picture(), **tags)
    assert reason_of(path) is reason
    with pytest.raises(DataInvalid, match=said) as caught:
        films.read(path)
    assert "Kanarienvogel" not in str(caught.value)


def test_a_human_chest_is_taken_however_it_is_said(tmp_path: Path) -> None:
    human = item(CodeValue="337915000", CodingSchemeDesignator="SCT", CodeMeaning="homo sapiens")
    for tags in (
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": "", "SeriesDescription": "Thorax p.a."},
        {"BodyPartExamined": None},
        {"PatientSpeciesDescription": "Homo sapiens", "PatientSpeciesCodeSequence": human},
        {"Modality": "DR"},
        {"Modality": "OT"},
    ):
        assert films.read(cr(tmp_path / "good.dcm", picture(), **tags)).pixels.shape == (60, 48)


def grey8() -> NDArray[np.uint8]:
    return (picture() // 4).astype(np.uint8)


def test_pictures_of_other_kinds_are_refused(tmp_path: Path) -> None:
    ramp = grey8()
    Image.fromarray(np.stack([ramp, ramp // 2, ramp], -1)).save(tmp_path / "colour.png")
    assert reason_of(tmp_path / "colour.png") is Reason.DIMENSIONS
    Image.fromarray(np.full((60, 60), 7, np.uint8)).save(tmp_path / "flat.png")
    assert reason_of(tmp_path / "flat.png") is Reason.CONSTANT
    frames = [Image.fromarray(ramp), Image.fromarray(ramp.T.copy())]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert reason_of(tmp_path / "moving.png") is Reason.DIMENSIONS
    Image.fromarray(ramp).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-400])
    assert reason_of(tmp_path / "cut.png") in (Reason.TRUNCATED, Reason.CORRUPT)
    (tmp_path / "text.png").write_text("a radiograph")
    assert reason_of(tmp_path / "text.png") is Reason.CORRUPT
    (tmp_path / "text.dcm").write_text("a radiograph")
    assert reason_of(tmp_path / "text.dcm") is Reason.NOT_DICOM
    (tmp_path / "notes.txt").write_text("a radiograph")
    assert reason_of(tmp_path / "notes.txt") is Reason.NOT_CT_FILE
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    assert reason_of(tmp_path / "bomb.png") is Reason.TOO_LARGE
    assert reason_of(tmp_path) is Reason.SEVERAL
    with pytest.raises(InputMissing, match=r"no such radiograph; near names: .*whole\.png"):
        films.read(tmp_path / "whale.png")


def test_a_ct_given_for_a_radiograph_is_called_so(tmp_path: Path) -> None:
    scan = chest(0, (12, 16, 16))
    for name in ("ct.nii.gz", "ct.nrrd", "ct.dcm"):
        formats.write(scan, tmp_path / name)
        with pytest.raises(DataInvalid, match="a CT given where a radiograph belongs"):
            films.read(tmp_path / name)
    formats.write(chest(0, (4, 40, 40)), tmp_path / "ct.slices")
    with pytest.raises(DataInvalid, match="a slice of a CT given"):
        films.read(next((tmp_path / "ct.slices").iterdir()))


@pytest.mark.parametrize("ending", ["png", "dcm", "jpg"])
@given(
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=8), cut=st.floats(0.3, 1)
)
def test_a_damaged_file_is_read_or_refused(
    ending: str, places: list[tuple[float, int]], cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"damage-{ending}"
    folder.mkdir(exist_ok=True)
    whole = folder / f"whole.{ending}"
    if not whole.exists():
        cr(whole, picture()) if ending == "dcm" else Image.fromarray(grey8()).save(whole)
    content = bytearray(whole.read_bytes())
    for place, bit in places:
        content[int(place * min(len(content), 600))] ^= 1 << bit
    path = folder / f"damaged.{ending}"
    path.write_bytes(content[: max(1, int(cut * len(content)))])
    try:
        found = films.read(path)
    except TomogenError:
        return
    assert np.isfinite(found.pixels).all()
    assert found.pixels.min() >= 0


# ---- PNG and JPEG ----


def test_grey_is_read_in_every_depth_and_from_colour_that_is_none(tmp_path: Path) -> None:
    ramp = grey8()
    Image.fromarray(ramp).save(tmp_path / "8.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / "rgb.png")
    Image.fromarray(ramp).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / "rgb.jpg", quality=98)
    for name, close in (("8.png", 0), ("16.png", 1e-6), ("rgb.png", 1e-6), ("palette.png", 1e-6), ("rgb.jpg", 0.03)):
        found = films.read(tmp_path / name)
        assert np.abs(found.pixels - ramp / np.float32(255)).max() <= close
        assert (found.view, found.patient, found.spacing) == (None, None, None)


def test_what_is_transparent_is_black_and_exif_turns(tmp_path: Path) -> None:
    ramp = grey8()
    clear = np.full(ramp.shape, 255, np.uint8)
    clear[:10] = 0
    Image.fromarray(np.stack([ramp, clear], -1)).save(tmp_path / "clear.png")
    found = films.read(tmp_path / "clear.png").pixels
    assert (found[:10] == 0).all()
    assert np.allclose(found[10:], ramp[10:] / 255, atol=1e-6)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    Image.fromarray(ramp).save(tmp_path / "turned.jpg", exif=exif, quality=98)
    assert np.allclose(films.read(tmp_path / "turned.jpg").pixels, np.rot90(ramp, -1) / 255, atol=0.05)


# ---- our own ----


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shots")
    formats.write(chest(3, (40, 56, 56)), place / "ct.nii.gz")
    tomogen.xray(
        place / "ct.nii.gz", place / "x", views="pa,lateral,right", size=96, format="png,dicom,npy", geometry="chest"
    )  # fmt: skip
    return place / "x"


def test_what_xray_writes_is_known_again(shots: Path) -> None:
    pitch = stand.load(shots / "geometry.json").pixel[0]
    for view in ("pa", "lateral", "right"):
        drawn, filed = films.read(shots / f"{view}.png"), films.read(shots / f"{view}.dcm")
        assert (drawn.view, filed.view) == (view, view)
        assert drawn.synthetic
        assert filed.synthetic
        assert np.allclose(drawn.pixels, filed.pixels, atol=1e-6)
        assert filed.spacing == pytest.approx((pitch, pitch), rel=1e-3)
        assert drawn.spacing == pytest.approx((pitch, pitch))
        assert (drawn.magnification, filed.magnification) == (pytest.approx(1.2), pytest.approx(1.2))
    assert len({films.read(shots / f"{view}.dcm").patient for view in ("pa", "lateral")}) == 1


def test_a_picture_of_another_size_than_it_says_has_no_scale_and_no_frame(shots: Path, tmp_path: Path) -> None:
    with Image.open(shots / "pa.png") as image:
        wide = np.pad(np.array(image), 16)
        Image.fromarray(wide).save(tmp_path / "wide.png", **comment("PNG", image.info["tomogen"]))
        said = image.info["tomogen"].split("; {")[0]
        Image.fromarray(np.array(image)).save(tmp_path / "bare.png", **comment("PNG", said + "; {" + "[" * 9999))
    own = films.read(shots / "pa.png")
    for name in ("wide", "bare"):
        found = films.read(tmp_path / f"{name}.png")
        assert (found.synthetic, found.view, found.spacing, found.room) == (True, "pa", None, None)
        assert np.allclose(seen(found, 64), normalised(uncollimated(own.pixels), 64), atol=0.02)
    assert not np.allclose(seen(own, 64), seen(found, 64), atol=0.1), "the frame of one whose scale is known is kept"


@pytest.mark.parametrize("ending", ["png", "dcm"])
def test_bone_is_bright_and_a_line_integral_whatever_xray_was_asked_for(
    shots: Path, tmp_path: Path, ending: str
) -> None:
    def read(out: str, **look: Any) -> NDArray[np.float32]:
        more = {"views": "pa", "size": 96, "format": "png,dicom"} | look
        tomogen.xray(shots.parent / "ct.nii.gz", tmp_path / out, **more)
        return films.read(tmp_path / out / f"pa.{ending}").pixels

    plain = read("plain")
    assert np.abs(read("inverted", invert=True) - plain).max() < 0.005
    assert np.abs(normalised(read("film", form="intensity", bits=16), 96) - normalised(plain, 96)).max() < 0.03
    assert (
        np.abs(read("both", form="intensity", bits=16, invert=True) - read("film2", form="intensity", bits=16)).max()
        < 0.01
    )
    with pytest.raises(DataInvalid, match="intensities in 8 bits, too coarse") as caught:
        read("coarse", form="intensity", range=(0.0, 1.0))
    assert "--form log" in str(caught.value.fix)


@pytest.mark.parametrize("ending", ["png", "dcm"])
def test_a_picture_computed_from_an_angle_is_told_by_it(shots: Path, tmp_path: Path, ending: str) -> None:
    tomogen.xray(
        shots.parent / "ct.nii.gz", tmp_path / "x", angle=(45.0, 85.5), views="pa", tilt=2.0, size=64,
        format="png,dicom",
    )  # fmt: skip
    assert films.read(tmp_path / "x" / f"patilt+2.{ending}").view == "pa"
    assert films.read(tmp_path / "x" / f"angle+85.5tilt+2.{ending}").view == "lateral"
    with pytest.raises(DataInvalid, match=r"view angle\+45tilt\+2 was shot at 45 degrees"):
        films.read(tmp_path / "x" / f"angle+45tilt+2.{ending}")


def test_line_integrals_and_their_pictures_are_normalised_alike(shots: Path) -> None:
    for view in ("pa", "lateral"):
        integrals = np.load(shots / f"{view}.npy")
        of_integrals = normalised(integrals, 64)
        assert np.abs(of_integrals - seen(films.read(shots / f"{view}.png"), 64)).max() < 0.02
        assert np.abs(of_integrals - seen(films.read(shots / f"{view}.dcm"), 64)).max() < 0.02


def projected(volume: Volume, preset: str, size: int = 96) -> NDArray[np.float32]:
    geometry = stand.preset(preset, ["pa", "lateral"]).resized(size)
    mu = attenuation(torch.as_tensor(volume.hu))
    found = Projector(geometry, volume.shape, volume.affine)(mu[None])[0]
    return np.asarray(found, dtype=np.float32)


@pytest.mark.parametrize("preset", ["x2ct", "chest"])
@pytest.mark.parametrize("bits", [8, 16])
def test_normalising_a_picture_that_was_cut_off_at_percentiles_cuts_nothing_more(preset: str, bits: Any) -> None:
    for values in projected(chest(14, (40, 56, 56)), preset, 128):
        grey, _ = pictured(values, Look(bits=bits))
        again = normalised(grey.astype(np.float32) / np.float32(2**bits - 1), 128)
        assert np.abs(normalised(values, 128) - again).max() < 0.02


# ---- the normal form ----


def scene(rows: int = 90, columns: int = 70) -> NDArray[np.float32]:
    """A body on air, smooth, with a bright spine."""
    i, j = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = np.sqrt((1 - (i / 0.95) ** 2 - (j / 0.8) ** 2).clip(0))
    return np.asarray(3 * body + 2 * body * (np.abs(j) < 0.1), np.float32)


@given(gain=st.floats(0.01, 1000), offset=st.floats(-10, 10))
def test_gain_and_offset_do_not_matter(gain: float, offset: float) -> None:
    values = scene()
    found = normalised((values * np.float32(gain) + np.float32(gain * offset)).astype(np.float32), 32)
    assert np.abs(found - normalised(values, 32)).max() < 2e-3
    assert found.dtype == np.float32
    assert found.shape == (32, 32)
    assert 0 <= found.min() < found.max() <= 1


def test_black_and_white_are_percentiles_of_the_patient() -> None:
    values = scene()
    patient = values[values > 0]
    low, high = np.percentile(patient, (1, 99.5))
    assert np.allclose(levelled(values), ((values - low) / (high - low)).clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 9.0])
def test_uniform_borders_count_for_nothing_and_are_cut(level: float) -> None:
    values = scene()[15:-15, 12:-12]
    bordered = np.pad(values, ((7, 0), (11, 5)), constant_values=level)
    assert framed(bordered) == (slice(7, 7 + values.shape[0]), slice(11, 11 + values.shape[1]))
    assert np.array_equal(uncollimated(bordered), values)
    within = levelled(bordered)
    assert np.allclose(within[7:, 11:-5], levelled(values), atol=1e-6)
    assert (within[:7] == 0).all()
    real, computed = Radiograph(bordered), Radiograph(bordered, spacing=(2.0, 2.0), synthetic=True)
    assert np.array_equal(seen(real, 32), normalised(values, 32))
    assert np.array_equal(seen(computed, 32), normalised(bordered, 32))


def test_a_letter_in_a_border_does_not_keep_it() -> None:
    bordered = np.pad(scene()[15:-15, 12:-12], ((0, 0), (10, 0)))
    bordered[2, 3:7] = 5
    assert framed(bordered)[1].start == 10


@pytest.mark.parametrize("shape", [(80, 120), (120, 80)])
def test_a_picture_that_is_not_square_is_padded_and_not_stretched(shape: tuple[int, int]) -> None:
    canvas = Image.new("L", shape[::-1], 60)
    ImageDraw.Draw(canvas).ellipse(
        [shape[1] / 2 - 30, shape[0] / 2 - 30, shape[1] / 2 + 30, shape[0] / 2 + 30], fill=200
    )
    found = normalised(np.asarray(canvas, np.float32), 60)
    disc = np.argwhere(found > 0.5)
    assert np.ptp(disc, axis=0) == pytest.approx([30, 30], abs=1)
    assert disc.mean(axis=0) == pytest.approx([29.5, 29.5], abs=0.3)
    bar = found[:, :9] if shape[0] > shape[1] else found[:9]
    assert (bar == 0).all()


def test_a_radiograph_comes_to_its_place_on_a_detector_in_mm() -> None:
    values = np.ones((100, 80), np.float32)
    values[0, 0] = 0  # 1 is not the lowest value
    values[70:80, 20:30] = 3  # its middle 25 rows below, 15 columns to the left of the picture's
    radiograph = Radiograph(values, spacing=(4.0, 5.0))
    found = placed(radiograph, (500.0, 500.0), 250)  # 2 mm a pixel
    place = np.argwhere(found > 0.5)
    assert place.mean(axis=0) == pytest.approx([124.5 + 25 * 4 / 2, 124.5 - 15 * 5 / 2], abs=0.6)
    assert np.ptp(place, axis=0) + 1 == pytest.approx([20, 25], abs=1.5)
    assert (found[:24] == 0).all()  # 400 of 500 mm are the picture's
    near = placed(radiograph, (250.0, 250.0), 250)
    assert np.argwhere(near > 0.5).mean(axis=0)[0] == pytest.approx(124.5 + 25 * 4, abs=0.6)
    assert np.array_equal(seen(radiograph, 250, (500.0, 500.0)), found)
    with pytest.raises(ValueError, match="without spacing"):
        placed(Radiograph(values), (500.0, 500.0), 250)


# ---- two views of one patient ----


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    """Frontal and lateral pictures of three phantoms in two geometries."""
    people = [chest(seed, (48, 64, 64)) for seed in (1, 4, 9)]
    return {
        preset: [
            (normalised(frontal, 96), normalised(lateral, 96))
            for frontal, lateral in (projected(person, preset) for person in people)
        ]
        for preset in ("chest", "x2ct")
    }


@pytest.mark.parametrize("preset", ["chest", "x2ct"])
def test_views_of_one_patient_agree_and_upside_down_ones_are_noticed(pairs: Any, preset: str) -> None:
    for frontal, lateral in pairs[preset]:
        assert agree(frontal, lateral, computed=True).verdict == "agree"
        assert agree(frontal[::-1], lateral, computed=True).verdict == "upside down"
        assert agree(frontal[::-1], lateral, computed=True).view == "frontal"
        assert agree(frontal[::-1], lateral[::-1], computed=True).verdict == "upside down"
        turned = agree(frontal, lateral[::-1], computed=True)
        assert turned.verdict == "upside down" or (preset == "x2ct" and turned.verdict == "doubtful")
        assert turned.says
        assert turned.view == "lateral"


def test_another_patient_is_noticed_where_the_whole_scan_is_seen(pairs: Any) -> None:
    verdicts = [
        agree(one[0], other[1], computed=True).verdict
        for one in pairs["chest"]
        for other in pairs["chest"]
        if one is not other
    ]
    assert "agree" not in verdicts
    assert verdicts.count("other patient") >= len(verdicts) // 3


@pytest.mark.parametrize("preset", ["chest", "x2ct"])
def test_a_swapped_pair_is_noticed_by_symmetry(pairs: Any, preset: str) -> None:
    for frontal, lateral in pairs[preset]:
        assert symmetry(frontal) > symmetry(lateral)
        assert not swapped(frontal, lateral)
        assert swapped(lateral, frontal)
        assert likely(frontal) == "frontal"
        assert likely(lateral) == "lateral"


def test_brightness_and_width_do_not_change_a_height_profile_but_by_a_factor(pairs: Any) -> None:
    frontal = pairs["chest"][0][0]
    narrow = np.pad(frontal[:, 10:-10], ((0, 0), (40, 40)))
    one, other = height_profile(frontal), height_profile(narrow * np.float32(0.5))
    assert np.corrcoef(one, other)[0, 1] > 0.999


# ---- stored beside cases ----


def source(folder: Path, count: int = 6) -> Path:
    """Pictures with an index, two of each patient, in a subfolder; a text file and a CT beside them."""
    (folder / "deep").mkdir(parents=True)
    rows = ["file,view,patient_id"]
    for number in range(count):
        Image.fromarray((picture(seed=number) // 4).astype(np.uint8)).save(
            folder / "deep" / f"Kanarienvogel{number}.png"
        )
        rows.append(f"deep/Kanarienvogel{number}.png,{'L' if number % 2 else 'PA'},Kanarienvogel-{number // 2}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    (folder / "readme.txt").write_text("nothing")
    formats.write(chest(0, (12, 16, 16)), folder / "scan.nii.gz")
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_radiographs_are_stored_read_back_and_split_by_patient(tmp_path: Path) -> None:
    origin = source(tmp_path / "in", 12)
    stored = prepare_radiographs(origin, tmp_path / "out", size=32, split=(0.5, 0.25, 0.25))
    assert [name for name, _ in stored.refused] == ["scan.nii.gz"]
    folder = RadiographFolder.open(tmp_path / "out")
    folder.verify()
    assert folder.digest == stored.digest
    assert len(folder.pictures()) == 12
    assert len(folder.pictures("lateral")) == len(folder.pictures("frontal")) == len(folder.pictures("pa")) == 6
    wanted = {normalised(films.read(file).pixels, 32).tobytes() for file in (origin / "deep").iterdir()}
    for entry in folder.entries:
        found = folder.read(entry)
        assert found.dtype == np.float32
        assert any(np.abs(found - np.frombuffer(one, np.float32).reshape(32, 32)).max() < 1e-4 for one in wanted)
    sides = {entry.patient: {e.split for e in folder.entries if e.patient == entry.patient} for entry in folder.entries}
    assert len(sides) == 6
    assert all(len(side) == 1 for side in sides.values())
    counts = [len(folder.pictures(split=split)) for split in ("train", "val", "test")]
    assert sorted(counts) == [2, 4, 6]
    with pytest.raises(UsageFault, match="no such view"):
        folder.pictures("above")


def test_the_same_pictures_give_the_same_bytes_and_no_name_of_anybody(tmp_path: Path) -> None:
    one = source(tmp_path / "one")
    secret = {"PatientID": "Kanarienvogel", "PatientName": "Kanarienvogel^Hansi", "StudyDescription": "Kanarienvogel"}
    cr(one / "Kanarienvogel.dcm", picture(seed=99), **secret)
    prepare_radiographs(one, tmp_path / "a", size=32)
    two = tmp_path / "two"
    shutil.copytree(one, two)
    for number in range(6):  # other names, in another order
        (two / "deep" / f"Kanarienvogel{number}.png").rename(two / "deep" / f"{9 - number}.png")
    rows = (two / "index.csv").read_text()
    for number in range(6):
        rows = rows.replace(f"Kanarienvogel{number}.png", f"{9 - number}.png")
    (two / "index.csv").write_text(rows)
    prepare_radiographs([two], tmp_path / "b", size=32)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    patient = films.read(one / "Kanarienvogel.dcm").patient
    assert patient is not None
    for name, content in everything(tmp_path / "a").items():
        assert b"kanarienvogel" not in content.lower() + name.encode().lower()
        assert patient.encode() not in content


def test_equal_pictures_are_one_and_join_their_patients(tmp_path: Path) -> None:
    origin = source(tmp_path / "in", 4)  # two patients
    grey = picture(seed=50)
    cr(origin / "a.dcm", grey, PatientID="x", ViewPosition=None, PatientOrientation=["L", "F"])
    cr(origin / "b.dcm", grey, PatientID="y", ViewPosition="AP")
    cr(origin / "c.dcm", picture(seed=51), PatientID="y")
    folder = prepare_radiographs(origin, tmp_path / "out", size=32)
    assert len(folder.entries) == 6
    assert len({entry.patient for entry in folder.entries}) == 3
    assert [entry.view for entry in folder.entries].count("ap") == 1


def test_a_view_that_nobody_states_is_told_by_symmetry(tmp_path: Path, pairs: Any) -> None:
    (tmp_path / "in").mkdir()
    for name, values in zip(("one", "two"), pairs["x2ct"][0], strict=True):
        Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(tmp_path / "in" / f"{name}.png")
    folder = prepare_radiographs(tmp_path / "in", tmp_path / "out", size=96)
    assert sorted(entry.view for entry in folder.entries) == ["frontal", "lateral"]
    assert not any(entry.stated for entry in folder.entries)


def test_radiographs_are_replaced_only_when_asked(tmp_path: Path) -> None:
    origin = source(tmp_path / "in")
    first = prepare_radiographs(origin, tmp_path / "out", size=32)
    with pytest.raises(UsageFault, match="there already"):
        prepare_radiographs(origin, tmp_path / "out", size=16)
    second = prepare_radiographs(origin, tmp_path / "out", size=16, overwrite=True)
    assert (first.size, second.size) == (32, 16)
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == ["radiographs"]


def test_what_cannot_be_stored_or_opened_says_why(tmp_path: Path) -> None:
    origin = source(tmp_path / "in")
    with pytest.raises(InputMissing, match="no radiographs beside these cases"):
        RadiographFolder.open(tmp_path)
    with pytest.raises(InputMissing, match="no such folder of radiographs; near names: in"):
        prepare_radiographs(tmp_path / "inn", tmp_path / "out")
    with pytest.raises(UsageFault, match="at least 16 x 16"):
        prepare_radiographs(origin, tmp_path / "out", size=8)
    with pytest.raises(UsageFault, match="--split"):
        prepare_radiographs(origin, tmp_path / "out", split=(0.5, 0.5, 0.5))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissing, match="no radiographs found"):
        prepare_radiographs(tmp_path / "empty", tmp_path / "out")
    formats.write(chest(0, (12, 16, 16)), tmp_path / "empty" / "scan.nii.gz")
    with pytest.raises(DataInvalid, match="no radiograph is usable: a CT given"):
        prepare_radiographs(tmp_path / "empty", tmp_path / "out")
    (origin / "index.csv").write_text("name,view\na,b\n")
    with pytest.raises(DataInvalid, match="a first line with file"):
        prepare_radiographs(origin, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [_cut_short, _removed])
def test_a_damaged_picture_is_noticed_on_opening(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = prepare_radiographs(source(tmp_path / "in"), tmp_path / "out", size=32)
    damage(folder.path / f"{folder.entries[2].id}.npy")
    with pytest.raises(DataInvalid, match="not on disk"):
        RadiographFolder.open(tmp_path / "out")


def test_a_damaged_catalog_and_changed_pixels_are_noticed(tmp_path: Path) -> None:
    folder = prepare_radiographs(source(tmp_path / "in"), tmp_path / "out", size=32)
    path = folder.path / f"{folder.entries[0].id}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match="a picture has changed"):
        RadiographFolder.open(tmp_path / "out").verify()
    record = json.loads((folder.path / "catalog.json").read_text())
    for broken in ("{", json.dumps(record | {"schema": 9}), json.dumps({**record, "radiographs": [{"id": 1}]}), "[]"):
        (folder.path / "catalog.json").write_text(broken)
        with pytest.raises(DataInvalid, match=r"damaged|schema 9"):
            RadiographFolder.open(tmp_path / "out")


# ---- real ones ----


def test_real_dicom_is_read_or_refused_for_what_it_is(ctdata: Path) -> None:
    found = films.read_folder(ctdata / "radiographs" / "dicom")
    assert [(name, one.view, one.pixels.shape) for name, one in found.radiographs] == [
        ("cr_chest_pa_mono1_implicit.dcm", "pa", (440, 440)),
        ("cr_chest_pa_mono1_nometa.dcm", "pa", (440, 440)),
    ]
    assert [error.what for _, error in found.refused] == [
        "a radiograph of the extremity, a chest expected",
        "a radiograph of an animal",
    ]
    pixels = found.radiographs[0][1].pixels
    assert pixels[100:300, 200:240].mean() > pixels[100:300, 80:140].mean()  # the spine is brighter than a lung


@pytest.mark.slow
def test_real_radiographs_are_told_apart_as_often_as_is_said(ctdata: Path) -> None:
    wrong = {"frontal": 0, "lateral": 0}
    for kind in ("frontal", "lateral"):
        files = sorted((ctdata / "radiographs" / kind).iterdir())
        wrong[kind] = sum(likely(seen(films.read(file), 128)) != kind for file in files)
        assert wrong[kind] <= 0.1 * len(files) + 1


@pytest.mark.slow
def test_nothing_hostile_does_more_than_be_refused(ctdata: Path) -> None:
    taken = []
    for file in sorted((ctdata / "hostile").rglob("*")):
        if file.is_file():
            try:
                taken.append((file.relative_to(ctdata / "hostile").parts[0], films.read(file).pixels.shape))
            except TomogenError:
                continue
    assert taken.count(("dwv", (440, 440))) == 1
    assert {place for place, _ in taken} <= {"dwv", "damaged"}
