"""Defects of the published system (jwc-rad/pix2pix3D-CT), each tried on the whole way here: files in, files out.

Of the parts: labels drawn once a run, windows that nobody uses, clipping (tests/test_pix2pix3d.py), weights of tiles
(tests/test_tiles.py), pairs that are none (tests/test_pairs.py), derived series (tests/test_derived.py).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.uid import RLELossless

import dicoms
from test_translate import RECIPE, SPACING, person, scan, stub, untrained
from tomogen import formats
from tomogen.cases.folder import CaseFolder
from tomogen.cases.prepare import prepare
from tomogen.cases.steps import find_body
from tomogen.errors import DataInvalid
from tomogen.generation import translate as module
from tomogen.generation.translate import translate, translated
from tomogen.intensity import Window
from tomogen.phantoms import chest
from tomogen.training import previews
from tomogen.volume import Volume

GRID, VOXEL = (12, 36, 36), (20.0, 10.0, 10.0)
Change = Callable[[int, Dataset], None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("run"), RECIPE)


def halves(patient: int = 1) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """A phantom without and with contrast, HU."""
    without, arterial = (chest(patient, GRID, contrast=contrast).hu for contrast in (None, "arterial"))
    return without.astype(np.int16), arterial.astype(np.int16)


def pair(folder: Path, patient: int = 1, *, source: Change | None = None, target: Change | None = None) -> Path:
    """A case of the published layout, `CT1/*.dcm` and `CT2/*.dcm`, each slice changed as asked for."""
    names = zip(("CT1", "CT2"), halves(patient), (source, target), strict=True)
    frame = None
    for name, hu, change in names:
        made = dicoms.slices(hu, spacing=VOXEL)
        frame = frame or made[0].FrameOfReferenceUID
        for k, dataset in enumerate(made):
            dataset.FrameOfReferenceUID, dataset.PatientID = frame, f"P{patient}"
            if change is not None:
                change(k, dataset)
        dicoms.save(folder / name, made)
    return folder


def prepared(source: Path, out: Path, **options: object) -> CaseFolder:
    prepare(source, out, pairs="CT1,CT2", shape=(8, 12, 12), workers=1, **options)  # type: ignore[arg-type]
    return CaseFolder.open(out)


def voxels(folder: CaseFolder) -> list[NDArray[np.int16]]:
    """Source and target of the only case."""
    (case,) = folder.cases
    return [np.asarray(folder.source(case)), np.asarray(folder.hu(case))]


def test_some_patients_are_held_back_unasked(tmp_path: Path) -> None:
    """Published: all patients train, none validates."""
    for patient in (1, 2, 3):
        pair(tmp_path / "in" / f"P{patient}", patient)
    folder = prepared(tmp_path / "in", tmp_path / "out")
    assert {case.split for case in folder.cases} == {"train", "val", "test"}


def test_slices_are_paired_by_their_place_not_by_their_rank(tmp_path: Path) -> None:
    """Published: the n-th file of the one goes with the n-th of the other, whatever their numbers and places."""

    def numbered(k: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = 1 if k in (3, 7) else 100 - k  # from the top down, two of one rank

    plain = voxels(prepared(pair(tmp_path / "a" / "P1").parent, tmp_path / "plain"))
    odd = pair(tmp_path / "b" / "P1", target=numbered).parent
    for file in sorted((odd / "P1" / "CT2").iterdir(), reverse=True):
        file.rename(file.with_name(f"slice {999 - int(file.stem)}.dcm"))
    for one, other in zip(plain, voxels(prepared(odd, tmp_path / "odd")), strict=True):
        assert np.array_equal(one, other)


def test_as_many_slices_in_another_place_are_no_pair(tmp_path: Path) -> None:
    def one_higher(k: int, dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + VOXEL[0]]

    with pytest.raises(DataInvalid, match=r"20\.0 mm apart"):
        prepared(pair(tmp_path / "in" / "P1", target=one_higher).parent, tmp_path / "out")


def test_every_file_has_a_rescale_of_its_own_in_both_halves(tmp_path: Path) -> None:
    """Published: the first file's for all."""

    def own(first: int, step: int) -> Change:
        def change(k: int, dataset: Dataset) -> None:
            intercept = first - step * k
            stored = dicoms.stored_of(dataset).astype(int) - 1024
            dicoms.store(dataset, (stored - intercept).astype("<u2"))
            dataset.RescaleIntercept = intercept

        return change

    plain = voxels(prepared(pair(tmp_path / "a" / "P1").parent, tmp_path / "plain"))
    other = pair(tmp_path / "b" / "P1", source=own(-1024, 10), target=own(-3000, 7))
    for one, two in zip(plain, voxels(prepared(other.parent, tmp_path / "own")), strict=True):
        assert np.array_equal(one, two)


def test_dense_bone_and_metal_come_out_as_dense(run: Path) -> None:
    """Published: clipped to +-1000 HU."""
    loaded = module.load(run, "cpu")
    source = scan()
    source.hu[8:12, 15:22, 20:30] = 2600
    source.hu[14, 18, 20:24] = 9000
    made = translated(loaded, source).volume
    assert made.hu[8:12, 15:22, 20:30].mean() == pytest.approx(2600, abs=60), "an untrained network adds little"
    assert (made.hu[14, 18, 20:24] == 9000).all()


@pytest.mark.parametrize("depth", [2, 5, 16, 17])
def test_short_scans_and_the_edges_of_all_are_translated_as_the_middle_is(run: Path, depth: int) -> None:
    """Published: a series of fewer than 16 slices became 0 HU, and the first and last slices had fewer looks."""
    source = Volume(person((depth, 45, 51)), scan().affine)
    made = translated(stub(run, lambda hu: hu + 100, (16, 32, 32)), source).volume
    body = find_body(source) & (source.hu <= 3071)
    assert (body.sum((1, 2)) > 0).all()
    assert np.array_equal(made.hu[body], source.hu[body] + 100)
    assert np.array_equal(made.hu[~body], source.hu[~body])


@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_derived_of_any_stored_type_is_a_series_of_its_own(
    run: Path, dtype: str, compressed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published: the source's SeriesInstanceUID, its SOP UIDs with `.99` behind them (over 64 characters, and not in
    the meta header), int16 whatever PixelRepresentation says, compressed pixels overwritten by plain ones."""
    monkeypatch.setattr(module, "load", lambda path, device: stub(run, lambda hu: hu + 100))
    made = dicoms.slices(person(), spacing=SPACING, dtype=dtype)
    for k, dataset in enumerate(made):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{'3' * 57}.{k + 10}"
        if compressed:
            dataset.compress(RLELossless, generate_instance_uid=False)
    path = dicoms.save(tmp_path / "s", made)
    translate(run, path, tmp_path / "d")
    before, after = formats.read(path), formats.read(tmp_path / "d")
    body = find_body(before) & (before.hu <= 3071)
    assert np.array_equal(after.hu, np.where(body, before.hu + 100, before.hu))
    new = [pydicom.dcmread(file) for file in (tmp_path / "d").iterdir()]
    assert {one.SeriesInstanceUID for one in new}.isdisjoint({one.SeriesInstanceUID for one in made})
    uids = {one.SOPInstanceUID for one in new}
    assert len(uids) == len(made)
    assert uids.isdisjoint({one.SOPInstanceUID for one in made})
    for one in new:
        assert len(one.SOPInstanceUID) <= 64
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
        assert one.file_meta.TransferSyntaxUID.is_compressed is False
        assert len(one.PixelData) == one.Rows * one.Columns * 2
        assert one.PixelRepresentation == 1, "whole HU, air below 0"
        assert (one.pixel_array * one.RescaleSlope + one.RescaleIntercept).min() < -900


def test_previews_show_what_is_made_darker_as_well_as_lighter(tmp_path: Path) -> None:
    """Published: what one saw while it learnt showed gains alone, unlike what was saved."""
    given = torch.zeros(1, 1, 8, 32, 32)
    made = given.clone()
    made[..., :16], made[..., 16:] = -0.2, 0.2
    shown = previews.Shown(made, made, {"source": given})
    previews.write(shown, Window(-1000, 1000), (1.0, 1.0, 1.0), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        colours = {grey for _, grey in image.convert("L").getcolors() or []}
    assert {102, 153} <= colours, "-200 and 200 HU, where the input's 0 HU is 128"
