"""Scans of nobody: what they measure, how they vary, and what the verb writes."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tomogen import formats
from tomogen.errors import DataInvalid, OutOfSpace, Reason, UsageFault
from tomogen.phantoms import chest, cones, trees
from tomogen.phantoms.anatomy import Anatomy
from tomogen.phantoms.canvas import Canvas
from tomogen.phantoms.cohort import case_seed, phantom
from tomogen.phantoms.contrast import iodine, size
from tomogen.phantoms.grid import Grid
from tomogen.phantoms.render import default_spacing, draw, image
from tomogen.phantoms.scanner import grain
from tomogen.phantoms.shapes import ellipsoid
from tomogen.phantoms.tissue import tissue
from tomogen.volume import Volume

SMALL = (24, 24, 24)
MIDDLE = Anatomy()


def around(anatomy: Anatomy, point: tuple[float, float, float], contrast: str | None = None) -> float:
    """Median HU of the 5 x 5 x 5 mm around a point in own coordinates, drawn on a small fine grid."""
    place = anatomy.place(point)
    z, y, x = (np.linspace(-2, 2, 5) + place[axis] for axis in (2, 1, 0))
    canvas = Canvas(Grid(anatomy, z, y, x, (1.0, 1.0, 1.0)))
    draw(canvas, tissue(contrast))
    return float(np.median(canvas.hu))


PLACES = {
    "trachea": ((-2, 10, 100), -1000, -970),
    "right main bronchus": ((-14, 21, 26), -1000, -970),
    "right lung": ((-95, 20, 30), -900, -800),
    "left lung": ((95, 30, -20), -900, -800),
    "aorta": ((23, 42, -10), 30, 55),
    "left ventricle": ((22, -33, -47), 30, 55),
    "pulmonary trunk": ((18, -30, 17), 30, 55),
    "vertebral body": ((0, 60, -44.5), 120, 320),
    "spinal canal": ((0, 85, -22.5), 10, 60),
    "disc": ((0, 62, -33.5), 60, 120),
    "sternum": ((0, -86, -10), 80, 300),
    "liver": ((-88, -20, -122), 50, 66),
    "spleen": ((86, 44, -138), 40, 56),
    "stomach's air": ((52, -28, -118), -1000, -960),
    "stomach's fluid": ((52, 4, -118), 15, 33),
    "arm's marrow": ((-145, 12, 126), 100, 250),
    "muscle of the back": ((26, 108, -20), 45, 60),
    "room": ((0, -175, -100), -1000, -1000),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_in_the_body_measures_what_its_tissue_does(name: str) -> None:
    point, low, high = PLACES[name]
    assert low <= around(MIDDLE, point) <= high


@pytest.mark.parametrize("seed", range(4))
def test_places_follow_the_anatomy(seed: int) -> None:
    someone = replace(Anatomy.draw(seed), arch=0, unfolding=0)
    for name in ("trachea", "aorta", "vertebral body", "pulmonary trunk"):
        point, low, high = PLACES[name]
        assert low - 0.3 * abs(low) <= around(someone, point) <= high + 0.3 * abs(high), name


def test_contrast_enhances_by_phase() -> None:
    aorta, trunk, liver = PLACES["aorta"][0], PLACES["pulmonary trunk"][0], PLACES["liver"][0]
    assert around(MIDDLE, aorta, "arterial") == pytest.approx(350, abs=5)
    assert around(MIDDLE, trunk, "arterial") == pytest.approx(250, abs=5)
    assert around(MIDDLE, aorta, "venous") == around(MIDDLE, trunk, "venous") == pytest.approx(150, abs=5)
    plain, arterial, venous = (around(MIDDLE, liver, phase) for phase in (None, "arterial", "venous"))
    assert plain < arterial < venous < plain + 80


def test_contrast_changes_vessels_and_organs_and_nothing_else() -> None:
    plain, contrast = (chest(3, (64, 64, 64), contrast=phase).hu.astype(int) for phase in (None, "arterial"))
    change = contrast - plain
    assert change.min() >= -1
    assert (change[plain < -950] <= 8).all(), "air in the room and in the airways"
    fat = (plain < -95) & (plain > -110)
    assert np.percentile(change[fat], 90) <= 2
    assert np.percentile(change[plain > 450], 90) <= 3, "bone"
    assert (change > 100).sum() * np.prod(default_spacing((64, 64, 64))) / 1000 > 300, "ml of blood"


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="arterial or venous"):
        chest(0, SMALL, contrast="delayed")


def lung_labels(volume: Volume) -> tuple[np.ndarray, list[int]]:
    """Components of lung and the voxels of each that is not small, largest first."""
    hu = volume.hu
    lung = (hu < -600) & (hu > -955)
    outside, _ = ndimage.label(hu < -600)
    lung &= outside != outside[0, 0, 0]
    labels, count = ndimage.label(ndimage.binary_opening(lung))
    sizes = ndimage.sum_labels(lung, labels, range(1, count + 1))
    large = [int(label) for label in np.argsort(-sizes) + 1 if sizes[label - 1] > 0.1 * sizes.max()]
    return labels, large


@pytest.mark.parametrize("seed", range(5))
def test_there_are_two_lungs_of_a_persons_size(seed: int) -> None:
    volume = chest(seed, (75, 90, 90), (4.0, 4.0, 4.0))
    labels, large = lung_labels(volume)
    assert len(large) == 2
    litres = [float((labels == label).sum()) * np.prod(volume.spacing) / 1e6 for label in large]
    assert 2.5 < sum(litres) < 6.5
    middles = [volume.world(np.argwhere(labels == label).mean(0))[0] for label in large]
    assert sorted(np.sign(middles)) == [-1, 1]
    right, left = (litres[int(np.argmin(middles))], litres[int(np.argmax(middles))])
    assert right > 0.95 * left, "the heart takes from the left lung"


def test_the_right_dome_of_the_diaphragm_is_the_higher_one() -> None:
    for seed in range(20):
        assert Anatomy.draw(seed).dome_left < 0


def test_the_windpipe_leads_into_both_lungs() -> None:
    # 1.2 mm around the carina and the hila
    z, y, x = np.arange(-60, 120, 1.5), np.arange(-20, 50, 1.2), np.arange(-85, 85, 1.2)
    canvas = Canvas(Grid(MIDDLE, z, y, x, (1.5, 1.2, 1.2)))
    draw(canvas, tissue(None))
    labels, _ = ndimage.label(canvas.hu < -935)
    k, j, i = (int(np.argmin(np.abs(axis - at))) for axis, at in ((z, 100), (y, 10), (x, -2)))
    assert labels[k, j, i] > 0
    at = np.argwhere(labels == labels[k, j, i])
    across, height = x[at[:, 2]], z[at[:, 0]]
    assert across.min() < -55
    assert across.max() > 50
    assert height.min() < -25, "lower lobes"


def test_vessels_keep_murrays_law_and_taper() -> None:
    for name in ("airway", "artery", "vein"):
        tree = trees.template()[name]
        assert (tree.radii[:, 1] <= tree.radii[:, 0] + 1e-9).all()
        mean = [tree.radii[tree.generation == g].mean() for g in range(1, tree.generation.max() + 1)]
        assert mean[0] > 2 * mean[4] > 3 * mean[-1]
        assert len(mean) >= 7
    # r^3 is shared out: the ends of both lungs' trees together have the cube of both roots
    growth = trees.template()["artery"]
    ends = np.isclose(growth.radii[:, 1].min(), growth.radii[:, 1])
    assert ends.sum() == 2 * trees.ENDS
    thickest = growth.radii.max()
    assert trees.ENDS * (growth.radii[ends, 1].mean() / 0.7) ** 3 == pytest.approx(thickest**3, rel=0.6)


def test_every_branch_begins_where_another_ends() -> None:
    for tree in trees.template().values():
        ends = {tuple(point) for point in np.round(tree.ends, 6)}
        roots = {tuple(point) for point in np.round(tree.starts, 6)} - ends
        assert len(roots) in (2, 4), "one root to a lung, or one to each of its veins"


@given(
    radius=st.floats(0.2, 6),
    length=st.floats(20, 40),
    spacing=st.tuples(*[st.floats(0.8, 5)] * 3),
    turn=st.floats(0, 3),
)
def test_a_cone_has_its_volume_whatever_the_voxels(
    radius: float, length: float, spacing: tuple[float, float, float], turn: float
) -> None:
    grid = Grid.centred(MIDDLE, [int(90 / s) for s in spacing], spacing)
    axis = np.array([np.cos(turn), np.sin(turn) * 0.8, np.sin(turn) * 0.6]) * length / 2
    share = cones.shares(grid, -axis[None], axis[None], np.full((1, 2), radius))
    found = float(share.sum(dtype=np.float64)) * np.prod(spacing)
    tube, caps = np.pi * radius**2 * length, 4 / 3 * np.pi * radius**3
    # thin ones have no round ends, thick ones have
    assert 0.7 * tube < found < 1.3 * (tube + caps + np.pi * radius**2 * max(spacing))


@given(radius=st.floats(14, 30), spacing=st.tuples(*[st.floats(0.9, 7)] * 3), shift=st.floats(-3, 3))
def test_an_ellipsoid_covers_its_volume_whatever_the_voxels(
    radius: float, spacing: tuple[float, float, float], shift: float
) -> None:
    grid = Grid.centred(MIDDLE, [int(110 / s) + 2 for s in spacing], spacing)
    canvas = Canvas(grid, 0.0)
    region = grid.whole()
    radii = np.array([1.3, 1.0, 1.1]) * radius
    canvas.paint(region, ellipsoid(region.at, (shift, 2 * shift, -shift), radii), 1.0)
    found = float(canvas.hu.sum(dtype=np.float64)) * np.prod(spacing)
    # a soft edge of width w adds w^2 / 4 R^2 to a ball
    assert found == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.03 + max(spacing) ** 2 / (4 * radius**2))


def test_a_seed_is_a_person_and_no_two_are_the_same() -> None:
    first, again = chest(5, SMALL, noise=9), chest(5, SMALL, noise=9)
    assert np.array_equal(first.hu, again.hu)
    assert first.acquisition.synthetic
    assert first.acquisition.modality == "CT"
    scans = [chest(seed, SMALL).hu.astype(int) for seed in range(6)]
    differences = [np.abs(a - b).mean() for n, a in enumerate(scans) for b in scans[:n]]
    assert min(differences) > 15


def test_cohorts_of_neighbouring_seeds_share_no_phantom() -> None:
    seeds = [case_seed(seed, index) for seed in range(20) for index in range(50)]
    assert len(set(seeds)) == len(seeds)


def test_the_same_person_on_a_finer_grid_averages_to_the_coarse_one() -> None:
    fine = image(Anatomy.draw(5), (128, 128, 128), (2.34375, 2.8125, 2.8125))
    for parts, middle in ((2, 14), (4, 10)):
        n = 128 // parts
        coarse = image(Anatomy.draw(5), (n, n, n), (2.34375 * parts, 2.8125 * parts, 2.8125 * parts))
        mean = fine.reshape(n, parts, n, parts, n, parts).mean((1, 3, 5))
        assert np.abs(coarse - mean).mean() < middle
        assert abs(float((coarse - mean).mean())) < 4


def test_spacing_moves_no_organ() -> None:
    coarse, fine = chest(8, (50, 60, 60), (6, 6, 6)), chest(8, (75, 90, 90), (4, 4, 4))
    bodies = [volume.world(np.argwhere(volume.hu > -500)) for volume in (coarse, fine)]
    for axis in range(3):
        assert bodies[0][:, axis].mean() == pytest.approx(bodies[1][:, axis].mean(), abs=0.6)
    assert np.allclose(coarse.centre, 0)
    assert np.allclose(fine.centre, 0)


def test_a_part_of_the_field_shows_what_the_whole_shows() -> None:
    anatomy = Anatomy.draw(2)
    whole = image(anatomy, (60, 60, 60), (4, 4, 4))
    part = image(anatomy, (20, 30, 30), (4, 4, 4))
    # at its rim a field of view knows slopes from one side only
    rim = (slice(2, -2),) * 3
    assert np.abs(part - whole[20:40, 15:45, 15:45])[rim].max() < 2


def test_anatomy_varies_smoothly() -> None:
    one, other = Anatomy.draw(1), Anatomy.draw(2)
    start = image(one, SMALL, default_spacing(SMALL))
    steps = [np.abs(image(one.mix(other, t), SMALL, default_spacing(SMALL)) - start) for t in (0.01, 0.1, 0.5, 1.0)]
    means = [float(step.mean()) for step in steps]
    assert means == sorted(means)
    assert means[0] < 0.05 * means[-1]
    assert np.percentile(steps[0], 99.9) < 45, "no part appears at once"


@pytest.mark.parametrize("name", [entry.name for entry in fields(Anatomy) if "spread" in entry.metadata])
def test_every_parameter_shows_and_a_little_of_it_changes_little(name: str) -> None:
    entry = next(entry for entry in fields(Anatomy) if entry.name == name)
    spread = entry.metadata["spread"]
    start = image(MIDDLE, SMALL, default_spacing(SMALL))
    moved = [
        np.abs(image(replace(MIDDLE, **{name: entry.default + t * spread}), SMALL, default_spacing(SMALL)) - start)
        for t in (0.02, 1.0)
    ]
    assert moved[1].sum() > 100, "a parameter that changes nothing"
    assert moved[0].mean() < 0.2 * moved[1].mean()


def test_ends_of_the_smooth_way_are_the_two_people() -> None:
    one, other = Anatomy.draw(1), Anatomy.draw(2)
    for entry in fields(Anatomy):
        assert np.array_equal(getattr(one.mix(other, 0), entry.name), getattr(one, entry.name))
        assert np.array_equal(getattr(one.mix(other, 1), entry.name), getattr(other, entry.name))


@pytest.mark.parametrize("seed", range(3))
def test_the_table_lies_apart_from_the_body(seed: int) -> None:
    shape, spacing = (40, 128, 128), (7.5, 2.8, 2.8)
    bare, with_table = chest(seed, shape, spacing), chest(seed, shape, spacing, table=True)
    body = bare.hu > -500
    table = (with_table.hu > -500) & ~body
    assert table.any(axis=(1, 2)).all(), "in every slice"
    assert not (ndimage.binary_dilation(body, iterations=2) & table).any()
    assert np.array_equal(bare.hu[body], with_table.hu[body])


def test_noise_has_its_deviation_and_touches_neighbours() -> None:
    quiet, noisy = chest(1, (16, 96, 96), (4, 0.9, 0.9)), chest(1, (16, 96, 96), (4, 0.9, 0.9), noise=12)
    noise = (noisy.hu - quiet.hu).astype(float)
    assert noise.std() == pytest.approx(12, rel=0.03)
    assert abs(noise.mean()) < 0.3
    grains = grain(np.random.default_rng(0), (8, 128, 128), (1, 0.7, 0.7))
    beside = float((grains[:, :, 1:] * grains[:, :, :-1]).mean())
    above = float((grains[1:] * grains[:-1]).mean())
    assert beside > 0.4
    assert abs(above) < 0.05
    contrast = [
        chest(1, (16, 96, 96), (4, 0.9, 0.9), noise=level, contrast="venous").hu.astype(float) for level in (0, 12)
    ]
    other = contrast[1] - contrast[0]
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.05, "each phase is a scan of its own"
    coarse = grain(np.random.default_rng(0), (8, 64, 64), (5, 5, 5))
    assert abs(float((coarse[:, :, 1:] * coarse[:, :, :-1]).mean())) < 0.05


def test_values_lie_where_those_of_real_chests_do(ctdata: Path) -> None:
    """Peaks of lung, fat and soft tissue, within 45 HU of those of real scans, in the middle of the picture."""

    def peaks(volume: Volume) -> list[float]:
        depth, height, width = volume.shape
        hu = volume.reorient().hu[depth // 3 : -depth // 3, height // 4 : -height // 4, width // 6 : -width // 6]
        found = []
        for low, high in ((-970, -700), (-150, -50), (0, 100)):
            counts, edges = np.histogram(hu[(hu > low) & (hu < high)], bins=24)
            found.append(float(edges[int(np.argmax(ndimage.uniform_filter1d(counts.astype(float), 3)))]))
        return found

    names = ("LIDC-IDRI-0314/CT_D/ct.nii.gz", "Lung_Dx-A0001/series3_soft/ct.nii.gz")
    real = np.array([peaks(formats.read(ctdata / "chest" / name)) for name in names])
    drawn = np.array([peaks(chest(seed, (48, 72, 72), noise=12)) for seed in range(3)])
    assert np.abs(drawn.mean(0) - real.mean(0)).max() < 45


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tomogen", "phantom", *arguments], capture_output=True, text=True, timeout=120
    )


def test_the_verb_writes_every_phantom_in_every_format(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(str(out), "--n", "2", "--shape", "16", "20", "24", "--format", "dicom,nii", "--seed", "4", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [case["case"] for case in told["cases"]] == ["phantom-0001", "phantom-0002"]
    assert sorted(path.name for path in out.iterdir()) == [
        "phantom-0001", "phantom-0001.nii.gz", "phantom-0002", "phantom-0002.nii.gz",
    ]  # fmt: skip
    for case in told["cases"]:
        scans = [formats.read(path) for path in case["paths"]]
        expected = chest(case["seed"], (16, 20, 24), noise=10)
        for scan in scans:
            assert np.array_equal(scan.reorient().hu, expected.hu)
            assert np.allclose(scan.reorient().affine, expected.affine, atol=1e-4)


def test_phantoms_are_different_patients_and_a_pair_is_one(tmp_path: Path) -> None:
    import pydicom

    made = phantom(tmp_path / "out", n=2, shape=(8, 16, 16), pairs=True, format="dicom")
    headers = [[pydicom.dcmread(next(path.iterdir())) for path in case.paths] for case in made.cases]
    for plain, contrast in headers:
        assert plain.PatientID == contrast.PatientID
        assert plain.StudyInstanceUID == contrast.StudyInstanceUID
        assert plain.FrameOfReferenceUID == contrast.FrameOfReferenceUID
        assert plain.SeriesInstanceUID != contrast.SeriesInstanceUID
        assert plain.SOPInstanceUID != contrast.SOPInstanceUID
        assert plain.SyntheticData == "YES"
    assert headers[0][0].PatientID != headers[1][0].PatientID


def test_pairs_lie_on_one_grid_with_contrast_in_the_second(tmp_path: Path) -> None:
    made = phantom(tmp_path / "out", n=1, shape=SMALL, pairs=True, contrast="venous", noise=0, format="nii")
    assert [path.relative_to(made.out).as_posix() for path in made.cases[0].paths] == [
        "phantom-0001/CT1.nii.gz", "phantom-0001/CT2.nii.gz",
    ]  # fmt: skip
    plain, contrast = (formats.read(path) for path in made.cases[0].paths)
    assert np.array_equal(plain.affine, contrast.affine)
    assert (contrast.hu.astype(int) - plain.hu).max() > 60
    seed = made.cases[0].seed
    assert np.array_equal(plain.reorient().hu, chest(seed, SMALL).hu)
    assert np.array_equal(contrast.reorient().hu, chest(seed, SMALL, contrast="venous").hu)


def test_a_pair_has_a_label_of_its_enhanced_blood_that_no_reader_takes_for_a_scan(tmp_path: Path) -> None:
    import nibabel

    made = phantom(tmp_path / "out", n=1, shape=(24, 32, 32), pairs=True, noise=0, format="nii")
    (case,) = made.cases
    assert case.vessels == tmp_path / "out" / "phantom-0001" / "vessels.nii.gz"
    with pytest.raises(DataInvalid) as caught:
        formats.read(case.vessels)
    assert caught.value.reason is Reason.MASK
    label = np.asarray(nibabel.load(case.vessels).dataobj).T.astype(bool)
    assert np.allclose(nibabel.load(case.vessels).affine, nibabel.load(case.paths[0]).affine)
    plain, contrast = (np.asarray(nibabel.load(path).dataobj).T.astype(int) for path in case.paths)
    gain = contrast - plain
    assert label.any()
    assert np.median(gain[label]) > 100
    assert np.percentile(gain[label], 5) > 40
    assert np.percentile(gain[~label], 95) < 60


def test_the_same_dose_enhances_large_people_less_and_everybody_by_another_amount() -> None:
    people = [Anatomy.draw(seed) for seed in range(200)]
    amounts = np.array([iodine(seed, person) for seed, person in enumerate(people)])
    assert amounts.mean() == pytest.approx(1, abs=0.05)
    assert 0.08 < amounts.std() < 0.18
    assert np.corrcoef(amounts, [size(person) for person in people])[0, 1] < -0.8
    assert len(set(amounts.round(3))) > 100
    assert size(MIDDLE) == 1


def test_iodine_scales_what_contrast_adds_and_nothing_else() -> None:
    plain, full, half = tissue(None), tissue("arterial"), tissue("arterial", 0.5)
    assert half.artery - plain.artery == pytest.approx(0.5 * (full.artery - plain.artery))
    assert (half.fat, half.cortex) == (plain.fat, plain.cortex)


def test_workers_write_the_same_files(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        phantom(tmp_path / name, n=3, shape=(8, 16, 16), format="dicom,nii", workers=workers)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 3 * 9
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_an_occupied_folder_is_refused_and_only_phantoms_are_replaced(tmp_path: Path) -> None:
    phantom(tmp_path, n=3, shape=(8, 16, 16), format="nii")
    (tmp_path / "notes.txt").write_text("mine")
    before = (tmp_path / "phantom-0001.nii.gz").read_bytes()
    done = run(str(tmp_path), "--n", "1", "--shape", "8", "16", "16", "--format", "nii")
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert "--overwrite" in done.stderr
    assert (tmp_path / "phantom-0001.nii.gz").read_bytes() == before
    phantom(tmp_path, n=1, shape=(8, 16, 16), format="nii", seed=1, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "phantom-0001.nii.gz"]
    assert (tmp_path / "phantom-0001.nii.gz").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seed", "-1"], "-1 is not in the range x>=0"),
        (["--n", "0"], "range"),
        (["--format", "docx"], "no such format 'docx'"),
        (["--contrast", "late"], "late"),
        (["--spacing", "0", "1", "1"], "range"),
        (["--shape", "4", "64", "64"], "range"),
    ],
)
def test_a_wrong_argument_is_exit_code_2_and_writes_nothing(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = run(str(tmp_path / "out"), *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_cohort_that_the_disk_cannot_hold_is_refused_before_it_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(OutOfSpace, match=r"\d (GB|MB) are free"):
        phantom(tmp_path / "out", n=10**7, shape=(512, 512, 512), format="nii")
    assert not list((tmp_path / "out").iterdir())


def test_a_small_disk_is_told_in_a_small_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(OutOfSpace, match=r"need about 4\.2 MB, 1\.0 MB are free"):
        phantom(tmp_path / "out", n=1, shape=(128, 128, 128))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0}, {"seed": -1}, {"shape": (4, 64, 64)},
        {"spacing": (0, 1, 1)}, {"spacing": (200.0, 1, 1)}, {"spacing": (1, 1, float("nan"))},
        {"contrast": "late"}, {"noise": -1.0}, {"workers": 0}, {"format": "docx"}, {"format": ""},
    ],
)  # fmt: skip
def test_the_python_twin_refuses_the_same(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageFault):
        phantom(tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_chest_of_full_size_has_two_lungs_ribs_and_a_spine() -> None:
    volume = chest(6)
    _, large = lung_labels(volume)
    assert len(large) == 2
    bone = volume.hu > 350
    left_of_spine = bone[:, :, : bone.shape[2] // 4]
    _, count = ndimage.label(ndimage.binary_closing(left_of_spine))
    assert count >= 8, "ribs lie apart"
    assert volume.spacing == pytest.approx(default_spacing(volume.shape))
