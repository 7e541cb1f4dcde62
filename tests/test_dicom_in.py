import io
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from dicoms import AXIAL, chest, enhanced, save, slices, store, stored_of
from tomogen import formats
from tomogen.cases.scan import scan
from tomogen.errors import DataInvalid, DependencyMissing, InputMissing, Reason, TomogenError
from tomogen.formats import ReadOptions
from tomogen.formats.dicom import codecs
from tomogen.intensity import HU_FLOOR


def reason_of(folder: Path, options: ReadOptions = formats.DEFAULT) -> Reason:
    with pytest.raises(DataInvalid) as caught:
        formats.read(folder, options)
    return caught.value.reason


def quietly(folder: Path, options: ReadOptions = formats.DEFAULT) -> formats.Volume:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return formats.read(folder, options)


# ---- geometry


@settings(max_examples=25)
@given(
    turn=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    spacing=st.lists(st.floats(0.2, 8), min_size=3, max_size=3),
    origin=st.lists(st.floats(-500, 500), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_voxels_lie_where_the_slices_say_under_any_rotation_spacing_and_order(
    tmp_path_factory: pytest.TempPathFactory, turn: list[float], spacing: list[float], origin: list[float], seed: int
) -> None:
    axes = Rotation.from_euler("xyz", turn).as_matrix().T
    hu = chest(seed=seed)
    datasets = slices(hu, spacing=spacing, axes=axes, origin=origin)
    order = np.random.default_rng(seed).permutation(len(datasets))
    folder = save(tmp_path_factory.mktemp("turned"), [datasets[i] for i in order])
    volume = formats.read(folder)
    assert np.array_equal(volume.hu, hu)
    for k, j, i in ((0, 0, 0), (4, 11, 9), (2, 0, 9), (3, 7, 1)):
        truth = np.asarray(origin) + k * spacing[0] * axes[2] + j * spacing[1] * axes[1] + i * spacing[2] * axes[0]
        assert np.abs(volume.world((k, j, i)) - truth).max() < 1e-4


def test_pixels_that_are_not_square_keep_row_and_column_spacing_apart(tmp_path: Path) -> None:
    volume = formats.read(save(tmp_path, slices(chest(), spacing=(2, 0.5, 1.5))))
    assert volume.spacing == pytest.approx((2, 0.5, 1.5))
    assert volume.orientation == "SPL"


def test_instance_numbers_and_file_names_do_not_decide_the_order(tmp_path: Path) -> None:
    hu, datasets = chest(), slices(chest())
    for k, d in enumerate(datasets):
        d.InstanceNumber = 99 - k
    volume = formats.read(save(tmp_path, datasets, name=lambda k: f"{9 - k}"))
    assert np.array_equal(volume.hu, hu)


def test_a_missing_slice_is_named_by_its_place_and_interpolated_on_demand(tmp_path: Path) -> None:
    hu, datasets = chest(), slices(chest())
    folder = save(tmp_path, datasets[:2] + datasets[3:])
    with pytest.raises(DataInvalid, match=r"gap 5\.0 mm after 32\.5 mm .*step 2\.50.*1 missing") as caught:
        formats.read(folder)
    assert caught.value.reason == Reason.GAP
    assert caught.value.fix == "--fill-gaps"
    volume = quietly(folder, ReadOptions(fill_gaps=True))
    assert volume.shape == hu.shape
    assert np.array_equal(volume.hu[[0, 1, 3, 4]], hu[[0, 1, 3, 4]])
    assert np.abs(volume.hu[2] - (hu[1].astype(float) + hu[3]) / 2).max() <= 0.5
    assert volume.spacing[0] == pytest.approx(2.5)


def test_of_two_missing_slices_each_lies_nearer_to_its_neighbour(tmp_path: Path) -> None:
    hu = chest((8, 12, 10))
    datasets = slices(hu)
    volume = quietly(save(tmp_path, datasets[:3] + datasets[5:]), ReadOptions(fill_gaps=True))
    before, after = hu[2].astype(float), hu[5].astype(float)
    assert np.abs(volume.hu[3] - (2 * before + after) / 3).max() <= 0.5
    assert np.abs(volume.hu[4] - (before + 2 * after) / 3).max() <= 0.5


def test_slices_at_irregular_places_are_uneven_not_a_gap(tmp_path: Path) -> None:
    datasets = slices(chest())
    datasets[2].ImagePositionPatient[2] += 0.9
    assert reason_of(save(tmp_path, datasets), ReadOptions(fill_gaps=True)) == Reason.UNEVEN


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    datasets = slices(chest((9, 12, 10)), spacing=(0.625, 0.8, 0.7), origin=(0, 0, 0))
    for d in datasets:
        d.ImagePositionPatient = [0, 0, round(float(d.ImagePositionPatient[2]), 1)]
    assert formats.read(save(tmp_path, datasets)).spacing[0] == pytest.approx(0.625, abs=0.01)


@pytest.mark.parametrize("degrees", [-22.5, 15.0])
def test_a_tilted_scan_is_refused_and_resampled_to_where_things_are(tmp_path: Path, degrees: float) -> None:
    # a smooth blob by formula, sampled at the true positions of tilted slices
    shape, spacing, lean = (16, 40, 40), (2.0, 1.5, 1.5), np.tan(np.radians(degrees))

    def blob(world: np.ndarray) -> np.ndarray:
        return 1200 * np.exp(-((world - np.array([30.0, 30.0, 15.0])) ** 2).sum(-1) / 2 / 9**2) - 1000

    k, j, i = np.meshgrid(*map(np.arange, shape), indexing="ij")
    world = np.stack([i * 1.5, j * 1.5 + k * 2.0 * lean, k * 2.0], -1)
    datasets = slices(blob(world).round().astype(np.int16), spacing=spacing, origin=(0, 0, 0))
    for n, d in enumerate(datasets):
        d.ImagePositionPatient = [0, f"{n * 2.0 * lean:.8f}", n * 2.0]
    folder = save(tmp_path, datasets)
    with pytest.raises(DataInvalid, match=rf"tilt of {abs(degrees)}") as caught:
        formats.read(folder)
    assert caught.value.reason == Reason.TILT
    volume = quietly(folder, ReadOptions(untilt=True))
    d = volume.directions
    assert np.abs(d.T @ d - np.eye(3)).max() < 1e-9
    truth = blob(volume.world(np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)))
    inside = volume.hu > -980
    assert inside.sum() > 1000
    assert np.abs(volume.hu - truth)[inside].mean() < 5
    assert np.abs(volume.hu - truth)[inside].max() < 40


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("PixelSpacing", None, Reason.NO_GEOMETRY),
        ("ImagePositionPatient", None, Reason.NO_GEOMETRY),
        ("ImageOrientationPatient", None, Reason.NO_GEOMETRY),
        ("PixelSpacing", [0, 0], Reason.BAD_GEOMETRY),
        ("PixelSpacing", [1], Reason.BAD_GEOMETRY),
        ("PixelSpacing", [-1, 1], Reason.BAD_GEOMETRY),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], Reason.BAD_GEOMETRY),
        ("ImageOrientationPatient", [2, 0, 0, 0, 1, 0], Reason.BAD_GEOMETRY),
        ("ImagePositionPatient", ["1e30", 0, 0], Reason.BAD_GEOMETRY),
    ],
)
def test_geometry_that_is_absent_or_impossible_is_refused(
    tmp_path: Path, field: str, value: list[float] | None, reason: Reason
) -> None:
    datasets = slices(chest())
    for d in datasets:
        if value is None:
            delattr(d, field)
        else:
            setattr(d, field, value)
    assert reason_of(save(tmp_path, datasets)) == reason


# ---- values


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless],
    ids=lambda uid: uid.keyword,
)
def test_every_transfer_syntax_gives_the_same_hu(tmp_path: Path, syntax: str) -> None:
    hu = chest((4, 65, 48))
    datasets = slices(hu)
    for d in datasets:
        if syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
            d.file_meta.TransferSyntaxUID = syntax
        else:
            d.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(formats.read(save(tmp_path, datasets)).hu, hu)


def test_big_endian_gives_the_same_hu(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu)
    for d in datasets:
        d.PixelData = stored_of(d).byteswap().tobytes()
        d.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert np.array_equal(formats.read(save(tmp_path, datasets)).hu, hu)


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_lossless_gives_the_same_hu(tmp_path: Path, signed: bool) -> None:
    gdcm = pytest.importorskip("gdcm")
    hu = chest((3, 32, 32))
    source = save(tmp_path / "plain", slices(hu, intercept=0, dtype="<i2") if signed else slices(hu))
    target = tmp_path / "lossless"
    target.mkdir()
    for file in source.iterdir():
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target / file.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    assert np.array_equal(formats.read(target).hu, hu)


def test_bits_that_are_not_stored_do_not_count(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu)
    for d in datasets:
        d.PixelData = (stored_of(d) | 0xA000).astype("<u2").tobytes()
        d.BitsStored, d.HighBit = 12, 11
    assert np.array_equal(formats.read(save(tmp_path / "above", datasets)).hu, hu)
    datasets = slices(hu)
    for d in datasets:
        d.PixelData = (stored_of(d) << 4 | 5).astype("<u2").tobytes()
        d.BitsStored, d.HighBit = 12, 15
    assert np.array_equal(formats.read(save(tmp_path / "below", datasets)).hu, hu)


def test_signed_values_of_twelve_bits_keep_their_sign(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu, intercept=0, dtype="<i2")
    for d in datasets:
        d.PixelData = (stored_of(d).view("<u2") & 0x0FFF).tobytes()
        d.BitsStored, d.HighBit = 12, 11
    assert np.array_equal(formats.read(save(tmp_path, datasets)).hu, hu)


def test_a_compressed_stream_may_hold_more_bits_than_are_stored(tmp_path: Path) -> None:
    hu = chest((4, 64, 48))
    hu[:, 30, 20] = 3090  # 4114 stored: beyond the 12 bits that the header admits
    datasets = slices(hu)
    for d in datasets:
        d.compress(JPEG2000Lossless, generate_instance_uid=False)
        d.BitsStored, d.HighBit = 12, 11
    assert np.array_equal(formats.read(save(tmp_path, datasets)).hu, hu)


def test_eight_and_thirty_two_bits_are_read_too(tmp_path: Path) -> None:
    hu = (chest().astype(int) // 8 * 8).clip(-1024, 1008).astype(np.int16)
    datasets = slices(hu)
    for d, values in zip(datasets, hu, strict=True):
        store(d, ((values + 1024) // 8).astype(np.uint8))
        d.RescaleSlope = 8
    assert np.array_equal(formats.read(save(tmp_path / "8", datasets)).hu, hu)
    datasets = slices(hu)
    for d, values in zip(datasets, hu, strict=True):
        store(d, (values.astype(np.int32) + 70000).astype("<i4"))
        d.RescaleIntercept = -70000
    volume = formats.read(save(tmp_path / "32", datasets))
    assert np.array_equal(volume.hu, hu)


def test_every_slice_has_its_own_rescale(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu)
    for k, (d, values) in enumerate(zip(datasets, hu, strict=True)):
        slope = 0.5 + 0.1 * k
        store(d, np.rint((values + 1024.0) / slope).astype("<u2"))
        d.RescaleSlope, d.RescaleIntercept = f"{slope:.1f}", -1024
    volume = formats.read(save(tmp_path, datasets))
    assert volume.hu.dtype == np.float32
    assert np.abs(volume.hu - hu).max() <= 0.45 + 1e-3  # half of the widest step


def test_whole_rescales_that_differ_stay_int16(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu)
    store(datasets[1], (hu[1].astype(int) + 2000).astype("<u2"))
    datasets[1].RescaleIntercept = -2000
    volume = formats.read(save(tmp_path, datasets))
    assert volume.hu.dtype == np.int16
    assert np.array_equal(volume.hu, hu)


@pytest.mark.parametrize(("padding", "vr"), [(-2000, "SS"), (63536, "US")])
def test_padding_becomes_the_floor_whatever_its_vr(tmp_path: Path, padding: int, vr: str) -> None:
    hu = np.maximum(chest(), -999).astype(np.int16)
    datasets = slices(hu, intercept=1000, dtype="<i2")
    for d in datasets:
        values = stored_of(d)
        values[:, 0] = -2000  # -1000 HU: by its value it could be air
        d.PixelData = values.tobytes()
        d.add_new(0x00280120, vr, padding)
    volume = formats.read(save(tmp_path, datasets))
    assert (volume.hu[:, :, 0] == HU_FLOOR).all()
    assert np.array_equal(volume.hu[:, :, 1:], hu[:, :, 1:])


def test_a_range_of_padding_above_the_floor_becomes_the_floor(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu, intercept=-1000)
    for d in datasets:
        values = stored_of(d).astype(int)
        values[:, 0], values[:, 1] = 4090, 4095
        store(d, values.astype("<u2"))
        d.add_new(0x00280120, "US", 4085)
        d.add_new(0x00280121, "US", 4095)
    volume = formats.read(save(tmp_path, datasets))
    assert (volume.hu[:, :, :2] == HU_FLOOR).all()
    assert np.array_equal(volume.hu[:, :, 2:], hu[:, :, 2:])


def test_padding_among_tissue_is_not_believed(tmp_path: Path) -> None:
    hu = chest()
    hu[:, 5, 4] = 0
    datasets = slices(hu, intercept=0, dtype="<i2")
    for d in datasets:
        d.add_new(0x00280120, "SS", 0)
    assert np.array_equal(formats.read(save(tmp_path, datasets)).hu, hu)


def test_values_that_scanners_write_below_air_become_the_floor(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu, intercept=-1024, dtype="<i2")
    for d in datasets:
        values = stored_of(d)
        values[0], values[1] = -2000, -1024  # -3024 and -2048 HU, as in LIDC-IDRI
        d.PixelData = values.tobytes()
    volume = formats.read(save(tmp_path, datasets))
    assert (volume.hu[:, :2] == HU_FLOOR).all()
    assert np.array_equal(volume.hu[:, 2:], hu[:, 2:])


def test_the_lowest_stored_value_does_not_wrap_round(tmp_path: Path) -> None:
    datasets = slices(chest(), intercept=-1024, dtype="<i2")
    values = stored_of(datasets[0])
    values[0] = -32768
    datasets[0].PixelData = values.tobytes()
    assert (formats.read(save(tmp_path, datasets)).hu[0, 0] == HU_FLOOR).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"RescaleSlope": None}, Reason.NO_HU),
        ({"RescaleIntercept": None}, Reason.NO_HU),
        ({"RescaleSlope": 0}, Reason.NO_HU),
        ({"RescaleType": "US", "RescaleIntercept": 0}, Reason.NO_HU),
        ({"RescaleIntercept": -9000}, Reason.HU_RANGE),
        ({"RescaleIntercept": 30000, "RescaleSlope": 10}, Reason.HU_RANGE),
        ({"PhotometricInterpretation": "MONOCHROME1"}, Reason.NO_HU),
        ({"Modality": "MR"}, Reason.MODALITY),
        ({"BitsAllocated": 12}, Reason.CORRUPT),
        ({"BitsStored": 20}, Reason.CORRUPT),
        ({"Rows": None}, Reason.CORRUPT),
        ({"SamplesPerPixel": 3}, Reason.DIMENSIONS),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, Reason.DERIVED),
        ({"PixelData": None}, Reason.NOT_IMAGE),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Reason.DERIVED),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, Reason.MASK),
    ],
    ids=str,
)
def test_what_is_no_ct_in_hu_is_refused_with_its_reason(
    tmp_path: Path, change: dict[str, object], reason: Reason
) -> None:
    datasets = slices(chest())
    for d in datasets:
        for field, value in change.items():
            if value is None:
                delattr(d, field)
            else:
                setattr(d, field, value)
    assert reason_of(save(tmp_path, datasets)) == reason


def test_masks_and_constant_scans_are_refused_by_their_values(tmp_path: Path) -> None:
    assert reason_of(save(tmp_path / "mask", slices((chest() > -300).astype(np.int16)))) == Reason.MASK
    assert reason_of(save(tmp_path / "constant", slices(np.full((4, 8, 8), -50, np.int16)))) == Reason.CONSTANT


def test_without_a_rescale_values_are_hu_only_on_demand(tmp_path: Path) -> None:
    hu = chest()
    datasets = slices(hu, intercept=0, dtype="<i2")
    for d in datasets:
        del d.RescaleSlope, d.RescaleIntercept, d.RescaleType
    folder = save(tmp_path, datasets)
    assert reason_of(folder) == Reason.NO_HU
    assert np.array_equal(formats.read(folder, ReadOptions(assume_hu=True)).hu, hu)


def test_another_modality_is_read_when_any_is_asked_for(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.Modality = "PT"
    folder = save(tmp_path, datasets)
    assert formats.read(folder, ReadOptions(modality="any")).acquisition.modality == "PT"


# ---- several things in one folder


def test_two_series_in_one_folder_are_listed_and_one_can_be_chosen(tmp_path: Path) -> None:
    one, other = chest((3, 12, 10), seed=1), chest((4, 12, 10), seed=2)
    first, second = slices(one), slices(other)
    folder = save(tmp_path, first + second)
    with pytest.raises(DataInvalid, match=r"2 CT series: .*\(3 of 12 x 10\).*\(4 of 12 x 10\)") as caught:
        formats.read(folder)
    assert caught.value.reason == Reason.SEVERAL
    assert "--series" in str(caught.value.fix)
    uid = second[0].SeriesInstanceUID
    assert np.array_equal(formats.read(folder, ReadOptions(series=uid)).hu, other)
    assert np.array_equal(formats.read(folder, ReadOptions(series=uid.rpartition(".")[2])).hu, other)
    assert reason_of(folder, ReadOptions(series="1.2.3")) == Reason.SEVERAL


def test_a_file_twice_counts_once_with_a_warning(tmp_path: Path) -> None:
    datasets = slices(chest())
    folder = save(tmp_path, [*datasets, datasets[2]])
    with pytest.warns(UserWarning, match="counted once"):
        assert formats.read(folder).shape == (5, 12, 10)


def test_two_unlike_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    datasets, others = slices(chest()), slices(chest(seed=5))
    others[2].SeriesInstanceUID = datasets[0].SeriesInstanceUID
    assert reason_of(save(tmp_path, [*datasets, others[2]])) == Reason.DUPLICATE


def test_a_localizer_among_the_slices_is_left_out_with_a_warning(tmp_path: Path) -> None:
    datasets, scout = slices(chest()), slices(chest())[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    scout.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    with pytest.warns(UserWarning, match="localizer"):
        assert formats.read(save(tmp_path, [*datasets, scout])).shape == (5, 12, 10)


@pytest.mark.parametrize("what", ["orientation", "matrix", "spacing", "patient"])
def test_mixed_slices_under_one_uid_are_refused(tmp_path: Path, what: str) -> None:
    datasets = slices(chest())
    odd = datasets[2]
    if what == "orientation":
        odd.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    elif what == "matrix":
        store(odd, stored_of(odd)[::2, ::2])
    elif what == "spacing":
        odd.PixelSpacing = [0.9, 0.7]
    else:
        odd.PatientID = "P2"
    assert reason_of(save(tmp_path, datasets)) == Reason.MIXED


def test_fewer_slices_than_a_volume_needs_are_refused(tmp_path: Path) -> None:
    assert reason_of(save(tmp_path, slices(chest((2, 12, 10))))) == Reason.TOO_FEW


def test_a_folder_without_files_is_missing_input_and_one_of_text_no_dicom(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="0 files"):
        formats.read(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    assert reason_of(tmp_path) == Reason.NOT_DICOM


def test_a_folder_of_another_format_names_the_file_in_it(tmp_path: Path) -> None:
    formats.write(formats.Volume(chest(), formats.affine_of((2, 1, 1))), tmp_path / "ct.nii.gz")
    with pytest.raises(DataInvalid, match="no DICOM among 1 files") as caught:
        formats.read(tmp_path)
    assert caught.value.fix == f"name the file: {tmp_path / 'ct.nii.gz'}"


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_a_radiograph_where_a_ct_belongs_is_told_as_one(tmp_path: Path, modality: str) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.Modality = modality
    with pytest.raises(DataInvalid, match=rf"a radiograph \({modality}\) where a CT belongs") as caught:
        formats.read(save(tmp_path, datasets))
    assert caught.value.reason == Reason.MODALITY
    assert "tomogen reconstruct" in (caught.value.fix or "")
    assert "--modality" not in str(caught.value)


# ---- enhanced files


def test_an_enhanced_file_gives_its_frames_in_order_of_place(tmp_path: Path) -> None:
    hu = chest()
    d = enhanced(hu)
    groups = list(d.PerFrameFunctionalGroupsSequence)
    order = [3, 0, 4, 1, 2]
    d.PerFrameFunctionalGroupsSequence = Items([groups[k] for k in order])
    d.PixelData = (hu[order].astype(int) + 1024).astype("<u2").tobytes()
    volume = formats.read(save(tmp_path, [d]) / "000.dcm")
    assert np.array_equal(volume.hu, hu)
    assert volume.spacing == pytest.approx((2.5, 0.8, 0.7))
    assert volume.origin == pytest.approx((-120, -110, 30))
    assert volume.acquisition.slice_thickness == 2.5 or volume.acquisition.slice_thickness == 3


def test_an_enhanced_file_has_a_rescale_for_every_frame(tmp_path: Path) -> None:
    hu = chest()
    d = enhanced(hu)
    del d.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for k, group in enumerate(d.PerFrameFunctionalGroupsSequence):
        transform = Dataset()
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1, -1024 - k, "HU"
        group.PixelValueTransformationSequence = Items([transform])
    d.PixelData = np.stack([hu[k].astype(int) + 1024 + k for k in range(len(hu))]).astype("<u2").tobytes()
    assert np.array_equal(formats.read(save(tmp_path, [d])).hu, hu)


def test_an_enhanced_file_compressed_frame_by_frame_is_the_same(tmp_path: Path) -> None:
    hu = chest()
    d = enhanced(hu)
    d.compress(RLELossless, generate_instance_uid=False)
    assert np.array_equal(formats.read(save(tmp_path, [d])).hu, hu)


def test_several_stacks_in_one_file_are_refused_and_named(tmp_path: Path) -> None:
    d = enhanced(chest((6, 12, 10)))
    for k, group in enumerate(d.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].StackID = str(k // 3)
        group.PlanePositionSequence[0].ImagePositionPatient = [-120, -110, 30 + 2.5 * (k % 3)]
    assert reason_of(save(tmp_path, [d])) == Reason.SEVERAL


def test_positions_for_another_number_of_frames_are_refused(tmp_path: Path) -> None:
    d = enhanced(chest())
    del d.PerFrameFunctionalGroupsSequence[-1]
    assert reason_of(save(tmp_path, [d])) == Reason.CORRUPT


# ---- damage


def test_a_truncated_slice_at_the_end_is_left_out_and_stops_where_strict(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(chest()))
    data = (folder / "004.dcm").read_bytes()
    (folder / "004.dcm").write_bytes(data[:-100])
    with pytest.warns(UserWarning, match=r"140 of 240 bytes"):
        assert formats.read(folder).shape == (4, 12, 10)
    assert reason_of(folder, ReadOptions(strict=True)) == Reason.TRUNCATED


def test_the_gap_that_a_truncated_slice_leaves_is_told_with_the_file(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(chest()))
    data = (folder / "002.dcm").read_bytes()
    (folder / "002.dcm").write_bytes(data[:-100])
    with pytest.raises(DataInvalid, match=r"002\.dcm: 140 of 240 bytes") as refused:
        formats.read(folder)
    assert refused.value.reason == Reason.GAP


def test_an_undecodable_slice_inside_leaves_a_gap(tmp_path: Path) -> None:
    hu = chest((5, 64, 48))
    datasets = slices(hu)
    for d in datasets:
        d.compress(JPEG2000Lossless, generate_instance_uid=False)
    folder = save(tmp_path, datasets)
    data = bytearray((folder / "002.dcm").read_bytes())
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 60 : start + 160] = bytes(100)
    (folder / "002.dcm").write_bytes(data)
    assert reason_of(folder) == Reason.GAP
    assert reason_of(folder, ReadOptions(strict=True)) == Reason.CORRUPT
    volume = quietly(folder, ReadOptions(fill_gaps=True))
    assert volume.shape == hu.shape
    assert np.array_equal(volume.hu[[0, 1, 3, 4]], hu[[0, 1, 3, 4]])


def test_pixels_left_over_are_a_wrong_size_not_a_smaller_scan(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.Rows = 10
    assert reason_of(save(tmp_path, datasets)) == Reason.CORRUPT


def test_more_pixels_than_there_are_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.Rows = 60000
    assert reason_of(save(tmp_path / "rows", datasets)) == Reason.TOO_LARGE
    d = enhanced(chest())
    d.NumberOfFrames = 2_000_000_000
    assert reason_of(save(tmp_path / "frames", [d])) == Reason.TOO_LARGE


def test_a_scan_above_the_cap_is_refused_by_its_headers(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(chest()))
    with pytest.raises(DataInvalid, match="cap") as caught:
        formats.read(folder, ReadOptions(max_volume=1000))
    assert (caught.value.reason, caught.value.fix) == (Reason.TOO_LARGE, "--max-volume")


def test_a_stream_of_another_size_than_declared_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = slices(np.resize(chest(), (5, 300, 300)))
    for d in large:
        d.compress(JPEG2000Lossless, generate_instance_uid=False)
        d.Rows, d.Columns = 12, 10
    decoded: list[int] = []
    codec = codecs.BY_SYNTAX[JPEG2000Lossless]
    watched = codecs.Codec(codec.name, codec.modules, codec.install, lambda stream, header: decoded.append(1))  # type: ignore[arg-type,func-returns-value]
    monkeypatch.setitem(codecs.BY_SYNTAX, JPEG2000Lossless, watched)
    assert reason_of(save(tmp_path, large)) == Reason.CORRUPT
    assert not decoded


def test_a_deflated_bomb_takes_no_more_memory_than_a_header_may(tmp_path: Path) -> None:
    d = slices(chest())[0]
    d.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    d.save_as(buffer, enforce_file_format=True)
    head = buffer.getvalue()
    start = 132 + 12 + int.from_bytes(head[140:144], "little")
    body = zlib.decompress(head[start:], -zlib.MAX_WBITS)
    bomb = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    with (tmp_path / "bomb.dcm").open("wb") as file:
        file.write(head[:start] + bomb.compress(body))
        for _ in range(600):
            file.write(bomb.compress(bytes(2**20)))
        file.write(bomb.flush())
    code = (
        "import resource, sys; from tomogen import formats; from tomogen.errors import DataInvalid\n"
        "import pydicom.uid; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: formats.read(sys.argv[1])\n"
        "except DataInvalid as error: print(error.reason)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.dcm")], capture_output=True, text=True, timeout=60, check=True
    )
    reason, megabytes = done.stdout.split()
    assert reason == Reason.TOO_LARGE
    assert int(megabytes) < 260


def test_a_missing_decoder_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.compress(RLELossless, generate_instance_uid=False)
    codec = codecs.BY_SYNTAX[RLELossless]
    missing = codecs.Codec(codec.name, ("no_such_module",), codec.install, codec.decode)
    monkeypatch.setitem(codecs.BY_SYNTAX, RLELossless, missing)
    with pytest.raises(DependencyMissing, match="RLE pixels need no_such_module") as caught:
        formats.read(save(tmp_path, datasets))
    assert caught.value.fix == "pip install pylibjpeg pylibjpeg-rle"


def answer(folder: Path) -> formats.Volume | TomogenError:
    """What reading gives: a volume or one of our errors; anything else fails the test."""
    try:
        return quietly(folder)
    except TomogenError as error:
        return error


@settings(max_examples=60)
@given(which=st.integers(0, 4), part=st.floats(0, 0.999))
def test_a_file_cut_anywhere_gives_an_error_or_the_slices_that_are_whole(
    tmp_path_factory: pytest.TempPathFactory, which: int, part: float
) -> None:
    hu = chest()
    folder = save(tmp_path_factory.mktemp("cut"), slices(hu))
    file = folder / f"{which:03d}.dcm"
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])
    found = answer(folder)
    if isinstance(found, TomogenError):
        assert which not in (0, 4)
        assert isinstance(found, DataInvalid)
        assert found.reason == Reason.GAP
    else:
        assert np.array_equal(found.hu, np.delete(hu, which, 0))


@settings(max_examples=150)
@given(flips=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=12))
def test_flipped_bits_never_crash_and_never_give_a_wrong_shape(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, float, int]]
) -> None:
    hu = chest()
    folder = save(tmp_path_factory.mktemp("flips"), slices(hu))
    for which, part, bit in flips:
        file = folder / f"{which:03d}.dcm"
        data = bytearray(file.read_bytes())
        data[min(int(part * len(data)), len(data) - 1)] ^= 1 << bit
        file.write_bytes(data)
    found = answer(folder)
    if not isinstance(found, TomogenError):
        assert found.shape[1:] == hu.shape[1:]
        assert found.shape[0] <= hu.shape[0]


@settings(max_examples=300)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
@example(flips=[(-1, 0)])
def test_a_damaged_header_of_an_enhanced_file_never_ends_the_look_at_others(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]]
) -> None:
    path = save(tmp_path_factory.mktemp("enhanced"), [enhanced(chest())]) / "000.dcm"
    data = bytearray(path.read_bytes())
    end = data.index(b"\xe0\x7f\x10\x00")
    unknown = data.index(b"\x28\x00\x53\x10DS") + 5  # the VR of a RescaleSlope inside a functional group
    for part, value in flips:
        data[unknown if part < 0 else 132 + int(part * (end - 132))] = value
    path.write_bytes(data)
    found = answer(path)
    assert not isinstance(found, TomogenError) or isinstance(found, DataInvalid)
    assert {finding.path for finding in scan(path)} == {path}


@settings(max_examples=60)
@given(
    kept=st.lists(st.integers(0, 9), min_size=1, max_size=14),
    seed=st.integers(0, 9),
)
def test_dropped_and_doubled_slices_give_the_run_that_is_left_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, kept: list[int], seed: int
) -> None:
    hu = chest((10, 12, 10), seed=seed)
    datasets = slices(hu)
    folder = save(tmp_path_factory.mktemp("dropped"), [datasets[k] for k in kept])
    found, left = answer(folder), sorted(set(kept))
    steps = set(np.diff(left).tolist())
    if len(left) < 3:
        assert isinstance(found, DataInvalid)
        assert found.reason == Reason.TOO_FEW
    elif len(steps) == 1:
        # every second slice is an even scan too, twice as coarse
        assert isinstance(found, formats.Volume)
        assert np.array_equal(found.hu, hu[left])
        assert found.spacing[0] == pytest.approx(2.5 * steps.pop())
    else:
        assert isinstance(found, DataInvalid)
        assert found.reason in (Reason.GAP, Reason.UNEVEN)


@settings(max_examples=100)
@given(
    tag=st.sampled_from(
        [0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120]
    ),
    value=st.integers(0, 65535),
    all_of_them=st.booleans(),
)
def test_absurd_numbers_in_the_header_never_crash_and_never_give_a_wrong_shape(
    tmp_path_factory: pytest.TempPathFactory, tag: int, value: int, all_of_them: bool
) -> None:
    hu = chest()
    datasets = slices(hu)
    for d in datasets if all_of_them else datasets[:1]:
        d.add_new(tag, "US", value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = save(tmp_path_factory.mktemp("absurd"), datasets)
    found = answer(folder)
    if not isinstance(found, TomogenError):
        assert found.shape[1:] == hu.shape[1:]


@settings(max_examples=80)
@given(
    field=st.sampled_from(
        [
            "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
            "SliceThickness", "KVP",
        ]
    ),
    text=st.one_of(st.sampled_from(["nan", "inf", "-inf", "1e400", "", "0", "-1", "abc", "1\\2", "1\\2\\3\\4"]),
                   st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=16)),
)  # fmt: skip
def test_any_text_where_a_number_is_due_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, field: str, text: str
) -> None:
    datasets = slices(chest())
    folder = save(tmp_path_factory.mktemp("text"), datasets)
    for k in range(5):
        file = folder / f"{k:03d}.dcm"
        d = datasets[k]
        old = str(d[field].value).strip("[]").replace(", ", "\\").encode()
        data = file.read_bytes()
        at = data.find(d[field].VR.encode(), data.find(d[field].tag.group.to_bytes(2, "little"), 132))
        assert at > 0
        # replace the value in the bytes: the writer itself would refuse to write it
        raw = text.encode()[: len(old)].ljust(len(old))
        where = data.rfind(old)
        file.write_bytes(data[:where] + raw + data[where + len(old) :] if where > 0 else data)
    answer(folder)


# ---- nobody's name


def test_nothing_that_identifies_leaves_the_reader(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        for field in ("PatientName", "PatientID", "InstitutionName", "StudyDescription", "SeriesDescription",
                      "StationName", "AccessionNumber", "ProtocolName", "ReferringPhysicianName"):  # fmt: skip
            setattr(d, field, "CANARY")
    folder = save(tmp_path / "good", datasets)
    assert "CANARY" not in repr(formats.read(folder))
    for k, d in enumerate(datasets):
        d.PatientID = f"CANARY{k}"
    found = answer(save(tmp_path / "mixed", datasets))
    assert isinstance(found, DataInvalid)
    assert "CANARY" not in str(found)


def test_how_the_scan_was_made_is_kept(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.ContrastBolusAgent = "APPLIED"
    made = formats.read(save(tmp_path, datasets)).acquisition
    assert (made.kernel, made.manufacturer, made.kvp, made.slice_thickness) == ("B40f", "SIEMENS", 120, 3)
    assert made.contrast is True
    assert not made.synthetic


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("GE MEDICAL SYSTEMS", "GE"),
        ("Siemens Healthineers", "SIEMENS"),
        ("Philips", "PHILIPS"),
        ("David Clunie", ""),
        ("GERBER^ANNA", ""),
        ("", ""),
    ],
)
def test_of_a_manufacturer_only_a_makers_name_is_kept(said: str, kept: str, tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.Manufacturer = said
    assert formats.read(save(tmp_path, datasets)).acquisition.manufacturer == kept


@pytest.mark.parametrize("kernel", ["STANDARD", "B31f", "Br40d\\3", "FC41", "FC80", "C", "YB", "B_SOFT_B"])
def test_a_kernel_is_kept_as_makers_name_them(kernel: str, tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.ConvolutionKernel = kernel.split("\\")
    assert formats.read(save(tmp_path, datasets)).acquisition.kernel == kernel


@pytest.mark.parametrize("kernel", ["Kanarienvogel", "B8675309", "12345", "SOFT, J. DOE", "JD"])
def test_a_kernel_that_is_none_is_not_kept(kernel: str, tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.ConvolutionKernel = kernel
    assert formats.read(save(tmp_path, datasets)).acquisition.kernel == ""


# ---- real data


def test_a_real_scan_equals_simpleitk_but_for_padding(ctdata: Path) -> None:
    import SimpleITK

    folder = ctdata / "chest" / "CIP-ct64" / "dicom"
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = formats.read(folder)
    assert np.array_equal(volume.hu, np.maximum(SimpleITK.GetArrayFromImage(image), HU_FLOOR))
    for index in ((0, 0, 0), (78, 63, 63), (40, 10, 20)):
        k, j, i = index
        there = image.TransformIndexToPhysicalPoint((i, j, k))
        assert volume.world(index) == pytest.approx(there, abs=1e-3)


def test_a_really_tilted_scan_is_recognised_and_straightened(ctdata: Path) -> None:
    folder = ctdata / "hostile" / "dicom2nifti-failing" / "gantrytilting"
    assert reason_of(folder) == Reason.TILT
    # these three slices hold nothing but air, and so would be refused for their values
    volume = quietly(folder, ReadOptions(untilt=True, assume_hu=True))
    d = volume.directions
    assert np.abs(d.T @ d - np.eye(3)).max() < 1e-6
    assert volume.spacing[0] == pytest.approx(5 * np.cos(np.radians(14)), abs=0.01)


def test_axes_of_the_tests_are_right_handed() -> None:
    assert np.linalg.det(AXIAL) == 1


def test_many_frames_without_positions_take_no_memory_for_each(tmp_path: Path) -> None:
    d = enhanced(chest())
    del d.PerFrameFunctionalGroupsSequence
    d.Rows = d.Columns = 1
    d.PixelData, d.NumberOfFrames = bytes(2 * 600), 600
    assert reason_of(save(tmp_path, [d])) == Reason.NO_GEOMETRY


def test_a_stack_that_leans_further_than_any_gantry_is_no_tilt(tmp_path: Path) -> None:
    datasets = slices(chest())
    for k, d in enumerate(datasets):
        d.ImagePositionPatient = [0, 9 * k, 2.5 * k]
    assert reason_of(save(tmp_path, datasets), ReadOptions(untilt=True)) == Reason.BAD_GEOMETRY
