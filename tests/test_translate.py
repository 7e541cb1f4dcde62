"""Translation: what of a scan changes and what stays, its grid, its formats, and what is refused before the work."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

import dicoms
import tiny
from tomogen import formats
from tomogen.batch import Batch
from tomogen.cases.steps import find_body
from tomogen.cli.translate import command
from tomogen.errors import DataInvalid, InputMissing, Reason, RecipeMismatch, UsageFault
from tomogen.formats import ReadOptions
from tomogen.generation import translate as module
from tomogen.generation.load import Loaded
from tomogen.generation.translate import TranslateResult, translate, translated
from tomogen.intensity import Window
from tomogen.recipe import Recipe
from tomogen.run import Run
from tomogen.synthesizer import Synthesizer, Turn
from tomogen.volume import Volume, affine_of

SPACING = (4.0, 3.0, 3.0)
RECIPE = """# A pix2pix in three dimensions of a few thousand weights.
extends = "pix2pix3d_light"

[model]
shape = [8, 32, 32]
levels = 2
width = 4
widest = 8
judge_width = 4
"""


class Stub(Synthesizer):
    """What it is given, through a function of HU."""

    players = ()
    conditions = ("source",)

    def __init__(self, change: Callable[[Tensor], Tensor], shape: tuple[int, ...], window: Window) -> None:
        super().__init__()
        self.shape, self.change, self.window = shape, change, window
        self.seen: list[Tensor] = []

    def turns(self, step: int) -> Iterator[Turn]:
        yield from ()

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        return {}

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return count, 0

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        assert noise.shape == (1, 0)
        tile = condition["source"]
        assert tile.shape == (1, 1, *self.shape)
        self.seen.append(self.window.to_hu(tile))
        return self.window.to_unit(self.change(self.window.to_hu(tile)))


def untrained(folder: Path, text: str) -> Path:
    """A run of a recipe that has not learnt anything."""
    recipe = Recipe.load(tiny.recipe(folder, text))
    data = {"spacing": SPACING, "orientation": "SPL", "shape": [8, 32, 32], "cases": {"train": 1}, "patients": 1}
    made = Run.create(folder / "r", recipe, data)
    torch.manual_seed(0)
    save_file(recipe.build().state_dict(), made.path / "weights.safetensors")
    return made.path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("run"), RECIPE)


def stub(run: Path, change: Callable[[Tensor], Tensor] = lambda hu: hu, shape: tuple[int, ...] = (8, 16, 16)) -> Loaded:
    """The run with another network."""
    opened = Run.open(run)
    return Loaded(Stub(change, shape, opened.window), opened, torch.device("cpu"))


@pytest.fixture
def stubbed(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, whose network adds 100 HU wherever `translate` loads it."""
    monkeypatch.setattr(module, "load", lambda path, device: stub(run, lambda hu: hu + 100))
    return run


def person(shape: tuple[int, int, int] = (19, 45, 51), seed: int = 0) -> NDArray[np.int16]:
    """An elliptic body with noise and some metal, on a table, in air."""
    k, j, i = np.indices(shape)
    _, height, width = shape
    random = np.random.default_rng(seed)
    hu = np.full(shape, -1000) + random.integers(-20, 20, shape)
    body = ((j - height / 2.2) / (height / 3)) ** 2 + ((i - width / 2) / (width / 2.6)) ** 2 < 1
    hu[body] = random.integers(-100, 300, shape)[body] + 5 * k[body]
    hu[:, -3:-1, 5:-5] = -100
    hu[3:5, height // 2 - 2 : height // 2 + 2, width // 2 : width // 2 + 3] = 9000
    return hu.astype(np.int16)


def scan(orientation: str = "SPL", spacing: tuple[float, float, float] = SPACING) -> Volume:
    affine = affine_of(spacing, (-70.123, -65.5, 101.25))
    turn = np.radians(0.5)
    axes = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = axes @ affine[:3, :3]
    return Volume(person(), affine).reorient(orientation)


def series(path: Path, spacing: tuple[float, float, float] = SPACING) -> Path:
    """The person as a scanner writes it."""
    made = dicoms.slices(person(), spacing=spacing)
    for dataset in made:
        dataset.PatientName, dataset.PatientID, dataset.SeriesNumber = "Canary^Kanarienvogel", "CANARY42", 3
        dataset.StudyDescription, dataset.PatientPosition = "CANARY study", "HFS"
    return dicoms.save(path, made)


@pytest.mark.parametrize("orientation", ["SPL", "IAR", "RSP"])
def test_a_network_that_changes_nothing_gives_the_scan_back(run: Path, orientation: str) -> None:
    volume = scan(orientation)
    made = translated(stub(run), volume)
    assert np.array_equal(made.volume.hu, volume.hu)
    assert np.array_equal(made.volume.affine, volume.affine)
    assert made.tiles > 8
    assert made.seam == 0
    assert made.volume.acquisition.synthetic


def test_the_affine_returns_exactly_where_turning_there_and_back_would_round_it(run: Path) -> None:
    volume = Volume(scan("IAR").hu, affine_of((4.1, 3.1, 3.2), (1.1, -65.5, 101.3), "IAR"))
    assert not np.array_equal(volume.reorient("SPL").reorient("IAR").affine, volume.affine)
    assert np.array_equal(translated(stub(run), volume).volume.affine, volume.affine)


@pytest.mark.parametrize("orientation", ["SPL", "IAR", "RSP"])
def test_the_body_changes_and_all_else_stays(run: Path, orientation: str) -> None:
    volume = scan(orientation)
    made = translated(stub(run, lambda hu: hu + 100), volume)
    change = made.volume.hu.astype(int) - volume.hu
    upright = Volume(change.astype(np.int16), volume.affine).reorient("SPL").hu
    body = find_body(volume.reorient("SPL"))
    metal = volume.reorient("SPL").hu > 3071
    assert metal.any()
    assert np.array_equal(upright == 100, body & ~metal)
    assert np.array_equal(upright == 0, ~body | metal)
    assert made.share == pytest.approx((body & ~metal).mean())


def test_the_network_sees_the_body_alone_upright_within_the_window_and_the_floor_around_it(run: Path) -> None:
    loaded = stub(run, shape=(32, 64, 64))
    volume = scan("IAR")
    made = translated(loaded, volume)
    (tile,) = loaded.synthesizer.seen  # type: ignore[union-attr]
    assert (made.tiles, made.seam) == (1, None)
    upright = volume.reorient("SPL")
    body = find_body(upright)
    places = np.argwhere(body)
    low, high = places.min(0), places.max(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    shown = np.where(body[box], upright.hu[box].clip(-1024, 3071), -1024)
    before = [(n - size) // 2 for n, size in zip((32, 64, 64), shown.shape, strict=True)]
    inside = tuple(slice(a, a + n) for a, n in zip(before, shown.shape, strict=True))
    expected = np.full((32, 64, 64), -1024)
    expected[inside] = shown
    assert np.array_equal(tile[0, 0].round().numpy(), expected)


def test_a_run_that_learnt_without_a_body_mask_sees_and_changes_all_of_the_slices_with_a_body(run: Path) -> None:
    volume = scan("IAR")
    volume.hu[:2] = -1000  # in the frame of `IAR` the slices at the head: no body
    loaded = stub(run, lambda hu: hu + 100, shape=(32, 64, 64))
    loaded.run.data["body_mask"] = False
    made = translated(loaded, volume)
    (tile,) = loaded.synthesizer.seen  # type: ignore[union-attr]
    upright = volume.reorient("SPL")
    body = find_body(upright).any(axis=(1, 2))
    assert 0 < body.sum() < len(body)
    change = made.volume.reorient("SPL").hu.astype(int) - upright.hu
    assert (change[~body] == 0).all()
    assert np.array_equal(change[body] == 100, upright.hu[body] <= 3071)
    depth, height, width = int(body.sum()), *upright.shape[1:]
    place = tuple(
        slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip((32, 64, 64), (depth, height, width), strict=True)
    )
    assert np.array_equal(tile[0, 0][place].round().numpy(), upright.hu[body].clip(-1024, 3071))


def test_tiles_that_disagree_are_told_by_their_seam(run: Path) -> None:
    loaded, calls = stub(run), iter(range(1000))
    loaded.synthesizer.change = lambda hu: hu * 0 + 10 * (next(calls) % 2)  # type: ignore[assignment]
    made = translated(loaded, scan())
    assert made.seam is not None
    assert 1 < made.seam <= 10


@pytest.mark.parametrize("spacing", [SPACING, (2.0, 2.2, 2.1), (6.5, 4.0, 4.4)])
def test_on_the_runs_spacing_a_network_that_changes_nothing_gives_the_scan_back(
    run: Path, spacing: tuple[float, float, float]
) -> None:
    volume = scan("IPR", spacing)
    loaded = stub(run)
    made = translated(loaded, volume, resampled=True)
    assert np.array_equal(made.volume.hu, volume.hu)
    assert np.array_equal(made.volume.affine, volume.affine)


@pytest.mark.parametrize("spacing", [(2.0, 2.2, 2.1), (6.5, 4.0, 4.4)])
def test_on_the_runs_spacing_a_change_comes_back_where_it_belongs(
    run: Path, spacing: tuple[float, float, float]
) -> None:
    volume = scan("SPL", spacing)
    made = translated(stub(run, lambda hu: hu + 100), volume, resampled=True)
    body = find_body(volume)
    change = made.volume.hu.astype(int) - volume.hu
    inside = change[body & (volume.hu <= 3071)]
    near = change[3:5][body[3:5]]  # clipped metal gives way to its neighbours
    assert (np.abs(inside - 100) <= 1).mean() > 0.97
    assert near.min() >= -1000
    assert (change[~body] == 0).all()


def test_a_marker_is_found_where_it_was_put_on_another_spacing(run: Path) -> None:
    volume = scan("SPL", (2.0, 1.5, 1.5))
    volume.hu[:] = np.where(volume.hu > -500, 40, -1000)
    volume.hu[8:12, 18:22, 22:28] = 400
    made = translated(stub(run, lambda hu: torch.where(hu > 200, hu + 1000, hu)), volume, resampled=True)
    change = (made.volume.hu - volume.hu).clip(0).astype(float)
    middle = (np.indices(change.shape) * change).reshape(3, -1).sum(1) / change.sum()
    assert middle == pytest.approx((9.5, 19.5, 24.5), abs=0.25)


@pytest.mark.parametrize(
    ("spacing", "warned"), [((4.0, 3.2, 3.0), False), ((2.5, 3.0, 3.0), True), ((4.0, 3.0, 3.5), True)]
)
def test_voxels_unlike_those_of_the_run_are_warned_of(
    run: Path, spacing: tuple[float, float, float], warned: bool
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        translated(stub(run), scan("SPL", spacing))
        translated(stub(run), scan("SPL", spacing), resampled=True)
    assert [("the run learnt from 4 x 3 x 3 mm" in str(one.message)) for one in said] == [True] * warned


def test_dicom_becomes_a_derived_series_slice_upon_slice(stubbed: Path, tmp_path: Path) -> None:
    path = series(tmp_path / "s")
    made = translate(stubbed, path, tmp_path / "d", format="dicom")
    assert made == TranslateResult(
        files=(tmp_path / "d",), run=Run.open(stubbed).identifier, shape=(19, 45, 51), spacing=made.spacing,
        orientation="SPL", hu=made.hu, tiles=made.tiles, seam=0.0, share=made.share, derived=True,
    )  # fmt: skip
    before, after = formats.read(path), formats.read(tmp_path / "d")
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(after.hu, translated(stub(stubbed, lambda hu: hu + 100), before).volume.hu)
    old = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, path.iterdir())}
    for new in map(pydicom.dcmread, (tmp_path / "d").iterdir()):
        its = old[new.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert its.ImagePositionPatient == new.ImagePositionPatient
        assert (its.PatientID, its.StudyInstanceUID) == (new.PatientID, new.StudyInstanceUID)
        assert its.FrameOfReferenceUID == new.FrameOfReferenceUID
        assert new.SeriesNumber == 9003
        assert "made from sha256:" in new.DerivationDescription


def test_several_formats_hold_the_same_scan_and_only_the_derived_series_names_the_patient(
    stubbed: Path, tmp_path: Path
) -> None:
    made = translate(stubbed, series(tmp_path / "s"), tmp_path / "made" / "d", format="dicom,nii,nrrd")
    assert made.files == tuple(tmp_path / "made" / name for name in ("d", "d.nii.gz", "d.nrrd"))
    volumes = [formats.read(path).reorient("SPL") for path in made.files]
    for volume in volumes[1:]:
        assert np.array_equal(volume.hu, volumes[0].hu)
        assert volume.affine == pytest.approx(volumes[0].affine, abs=1e-4)
    assert b"CANARY" in (made.files[0] / "00001.dcm").read_bytes()
    again = translate(stubbed, tmp_path / "s", tmp_path / "x.nii")  # not compressed: what it says can be searched
    assert b"canary" not in again.files[0].read_bytes().lower()
    assert not again.derived


def test_a_scan_that_is_no_dicom_becomes_a_series_of_its_own(stubbed: Path, tmp_path: Path) -> None:
    formats.write(scan(), tmp_path / "s.nii.gz")
    for name in ("d", "one.dcm"):
        made = translate(stubbed, tmp_path / "s.nii.gz", tmp_path / name)
        assert not made.derived
        file = tmp_path / name if name.endswith(".dcm") else tmp_path / name / "00001.dcm"
        dataset = pydicom.dcmread(file)
        assert dataset.PatientID.startswith("TOMOGEN-")
        assert "made from sha256:" in str(dataset.get("DerivationDescription", dataset.ImageComments))
        assert "SourceImageSequence" not in dataset


def test_a_real_network_translates_whole_or_in_tiles_without_a_wrong_grid(run: Path, tmp_path: Path) -> None:
    path = series(tmp_path / "s")
    made = translate(run, path, tmp_path / "d.nii.gz")
    before, after = formats.read(path), formats.read(tmp_path / "d.nii.gz").reorient("SPL")
    body = find_body(before) & (before.hu <= 3071)
    assert np.array_equal(after.hu[~body], before.hu[~body])
    # It makes the difference, and has not learnt any: hardly anything changes.
    change = np.abs(after.hu[body].astype(int) - before.hu[body])
    assert 0 < change.mean() < 20
    assert made.seam is not None
    assert 0 < made.seam < 60
    again = translate(run, path, tmp_path / "e.nii.gz")
    assert np.array_equal(formats.read(again.files[0]).hu, formats.read(tmp_path / "d.nii.gz").hu)


def test_a_local_network_has_no_seam_and_makes_in_tiles_what_it_makes_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = RECIPE.replace("levels = 2", "levels = 1\nresidual = false\ndetail = 4").replace("[8,", "[5,")
    loaded = module.load(untrained(tmp_path, text), "cpu")
    whole = translated(loaded, scan())
    assert (whole.tiles, whole.seam) == (1, None)
    monkeypatch.setattr(module, "LOCAL", (8, 24, 24))
    tiles = translated(loaded, scan())
    assert tiles.tiles > 8
    assert tiles.seam == pytest.approx(0, abs=0.01)
    assert np.abs(tiles.volume.hu.astype(int) - whole.volume.hu).max() <= 1, "rounding to whole HU"
    assert np.abs(whole.volume.hu.astype(int) - scan().hu).max() > 100


def test_progress_is_told_by_tiles(run: Path) -> None:
    told: list[tuple[int, int | None, str]] = []
    made = translated(stub(run), scan(), lambda *step: told.append(step))
    assert told[0] == (0, made.tiles, "tiles")
    assert told[-1] == (made.tiles, made.tiles, "tiles")
    assert [done for done, _, _ in told] == list(range(made.tiles + 1))


def refused(kind: type[Exception], match: str, *arguments: Any, **options: Any) -> Any:
    with pytest.raises(kind, match=match) as caught:
        translate(*arguments, **options)
    return caught.value


def test_a_run_of_another_kind_is_refused(tmp_path: Path) -> None:
    run = untrained(tmp_path, tiny.RECIPE)
    error = refused(RecipeMismatch, "does not translate scans", run, series(tmp_path / "s"), tmp_path / "d")
    assert "pix2pix3d" in error.fix
    assert not (tmp_path / "d").exists()


def test_what_is_missing_or_in_the_way_is_told_before_the_work(run: Path, tmp_path: Path) -> None:
    path = series(tmp_path / "s")
    refused(InputMissing, "no such file or folder", run, tmp_path / "nothing", tmp_path / "d")
    refused(InputMissing, "no such run folder", tmp_path / "none", path, tmp_path / "d")
    refused(UsageFault, "the scan itself", run, path, path, overwrite=True)
    refused(UsageFault, "no such format 'tiff'", run, path, tmp_path / "d", format="dicom,tiff")
    refused(UsageFault, "no format writes", run, path, tmp_path / "d.xyz")
    refused(UsageFault, "a folder of slices", run, path, tmp_path / "d.dcm")
    (tmp_path / "taken.nii.gz").write_bytes(b"x")
    refused(UsageFault, "there already", run, path, tmp_path / "taken", format="dicom,nii")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s", "taken.nii.gz"]


def test_a_scan_that_is_no_hu_holds_no_body_or_one_slice_is_refused(stubbed: Path, tmp_path: Path) -> None:
    made = dicoms.slices(person())
    for dataset in made:
        del dataset.RescaleSlope, dataset.RescaleIntercept
    error = refused(DataInvalid, "values are not HU", stubbed, dicoms.save(tmp_path / "raw", made), tmp_path / "d")
    assert error.reason == Reason.NO_HU
    air = np.random.default_rng(0).integers(-1024, -900, (6, 20, 20)).astype(np.int16)
    formats.write(Volume(air, affine_of(SPACING)), tmp_path / "air.nii.gz")
    error = refused(
        DataInvalid, "no body", stubbed, tmp_path / "air.nii.gz", tmp_path / "d", options=ReadOptions(assume_hu=True)
    )
    assert error.at == str(tmp_path / "air.nii.gz")
    formats.write(scan().crop((5, 0, 0), (1, 45, 51)), tmp_path / "flat.nii.gz")
    error = refused(DataInvalid, "1 slice", stubbed, tmp_path / "flat.nii.gz", tmp_path / "d")
    assert error.reason == Reason.TOO_FEW
    assert not (tmp_path / "d").exists()


@pytest.mark.filterwarnings("ignore:gantry tilt")
def test_a_tilted_scan_is_translated_but_not_into_a_derived_series(stubbed: Path, tmp_path: Path) -> None:
    made = dicoms.slices(person(), spacing=SPACING)
    for k, dataset in enumerate(made):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + k * 1.0, z]
    path = dicoms.save(tmp_path / "s", made)
    options = ReadOptions(untilt=True)
    error = refused(UsageFault, "gantry tilt", stubbed, path, tmp_path / "d", options=options)
    assert error.fix == "--format nii"
    found = translate(stubbed, path, tmp_path / "d", format="nii", options=options)
    assert found.files == (tmp_path / "d.nii.gz",)


def test_a_failure_leaves_nothing_and_what_was_there_before(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = series(tmp_path / "s")
    monkeypatch.setattr(module, "load", lambda *_: stub(run))
    translate(run, path, tmp_path / "d")
    before = {file.name: file.read_bytes() for file in (tmp_path / "d").iterdir()}
    calls = iter(range(1000))

    def fails(hu: Tensor) -> Tensor:
        if next(calls) == 3:
            raise MemoryError("no room")
        return hu

    monkeypatch.setattr(module, "load", lambda *_: stub(run, fails))
    with pytest.raises(MemoryError):
        translate(run, path, tmp_path / "d", overwrite=True)
    calls = iter(range(1000))
    with pytest.raises(MemoryError):
        translate(run, path, tmp_path / "e")
    saved, real = [], module.derived.save

    def full(*arguments: Any) -> None:
        if len(saved) == 4:
            raise OSError(28, "No space left on device")
        saved.append(arguments)
        real(*arguments)

    monkeypatch.setattr(module, "load", lambda *_: stub(run))
    monkeypatch.setattr(module.derived, "save", full)
    with pytest.raises(OSError, match="No space"):
        translate(run, path, tmp_path / "d", overwrite=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "d").iterdir()} == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d", "s"]


def test_the_command_says_what_it_made_and_names_nobody(run: Path, tmp_path: Path) -> None:
    path = series(tmp_path / "s", (2.0, 3.0, 3.0))
    arguments = [str(run), str(path), str(tmp_path / "d")]
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["files"] == [str(tmp_path / "d")]
    assert said["derived"] is True
    assert said["seam"] > 0
    for word in ("seam", "tiles", "--resample", "HU"):
        assert word in done.stderr
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 2
    assert "error: the output is there already" in again.stderr
    assert "canary" not in (done.output + again.output).lower()
