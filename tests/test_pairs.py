"""Pairs of scans: which belong together, what is refused and why, what is moved, and what models see of them."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import tiny
from tomogen import formats
from tomogen.cases.doctor import doctor
from tomogen.cases.folder import CaseFolder
from tomogen.cases.paired import Paired
from tomogen.cases.pairs import check
from tomogen.cases.pairs.motion import Motion, motion, moved
from tomogen.cases.prepare import PrepareResult, prepare
from tomogen.cases.steps import cases_of
from tomogen.cases.stream import stream
from tomogen.cli.__main__ import main
from tomogen.cli.doctor import command as doctor_command
from tomogen.cli.prepare import command as prepare_command
from tomogen.errors import DataInvalid, InputMissing, Reason, TomogenError, UsageFault
from tomogen.intensity import HU_FLOOR, Window
from tomogen.phantoms import chest
from tomogen.phantoms.cohort import phantom
from tomogen.volume import Volume

GRID = (30, 36, 36)
WINDOW = Window(-1000, 400)


@lru_cache(maxsize=16)
def scan(seed: int, contrast: str | None = None, noise: float = 10.0) -> Volume:
    return chest(seed, GRID, contrast=contrast, noise=noise)


def turned(volume: Volume, shift: Sequence[float] = (0, 0, 0), degrees: float = 0.0) -> tuple[Volume, np.ndarray]:
    """The scan of a body moved by mm along LPS and turned about z, on the same grid; and that motion, 4x4."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    affine[:3, 3] = volume.centre + shift - affine[:3, :3] @ volume.centre
    return moved(volume, volume, Motion((0, 0, 0), (0, 0, 0), np.linalg.inv(affine))), affine


def placed(volume: Volume, mm: Sequence[float]) -> Volume:
    """The same voxels elsewhere."""
    affine = volume.affine.copy()
    affine[:3, 3] += mm
    return replace(volume, affine=affine)


def put(folder: Path, **scans: Volume | None) -> Path:
    """Write scans under their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in scans.items():
        if volume is not None:
            formats.write(volume, folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients as phantoms are written: CT1, CT2, and a label that is no scan."""
    out = tmp_path_factory.mktemp("pairs") / "phantoms"
    phantom(out, n=3, shape=GRID, pairs=True, format="nii")
    return out


def made(source: Path, out: Path, **options: object) -> PrepareResult:
    return prepare(source, out, **({"pairs": "CT1,CT2", "shape": (16, 20, 20), "workers": 1} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "cases"
    made(source, out)
    return out


def content(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.parent.name != "scans"}


def test_a_pair_is_one_case_with_its_source_on_the_same_grid(source: Path, whole: Path) -> None:
    folder = CaseFolder.open(whole)
    folder.verify()
    assert len(folder.cases) == 3
    assert len({case.patient for case in folder.cases}) == 3
    assert folder.preparation.pairs
    for case in folder.cases:
        target, plain = np.asarray(folder.hu(case)), np.asarray(folder.source(case))
        assert target.shape == plain.shape == (16, 20, 20)
        assert ((target == HU_FLOOR) == (plain == HU_FLOOR)).mean() > 0.99, "one body mask for both"
        gain = target.astype(int) - plain
        assert np.percentile(gain, 99.5) > 100
        assert case.moved is None
        sidecar = folder.sidecar(case)
        assert sidecar["source"] == case.source
        assert len(str(case.source)) == 64


def test_the_geometry_comes_from_the_source_alone(source: Path, whole: Path) -> None:
    folder = CaseFolder.open(whole)
    alone = [
        cases_of(formats.read(path), replace(folder.preparation, pairs=False))[0]
        for path in sorted(source.glob("*/CT1.nii.gz"))
    ]
    for case in folder.cases:
        (same,) = [one for one in alone if np.array_equal(one.hu, folder.source(case))]
        assert np.allclose(same.affine, case.affine)


def test_the_label_beside_a_pair_is_taken_for_no_scan(source: Path, tmp_path: Path) -> None:
    done = made(source, tmp_path / "out")
    assert (done.scans, done.cases, done.failed, done.pairs) == (3, 3, (), True)
    assert [Path(one.path).name for one in done.refused] == ["vessels.nii.gz"] * 3
    single = prepare(source, tmp_path / "single", shape=(8, 8, 8), workers=1)
    assert (single.scans, {one.reason for one in single.refused}) == (6, {"mask"})


def test_the_same_command_again_keeps_all_and_any_way_of_working_gives_the_same_bytes(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    before = content(whole)
    assert made(source, whole).kept == 3
    assert content(whole) == before
    for shard in ("1/2", "2/2"):
        made(source, tmp_path / "out", shard=shard)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("ending", [".npy", ".source.npy"])
def test_a_half_that_vanished_is_made_again(source: Path, whole: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    case = CaseFolder.open(out).cases[0]
    (out / "volumes" / f"{case.id}{ending}").unlink()
    with pytest.raises(DataInvalid, match="not on disk"):
        CaseFolder.open(out)
    assert made(source, out).kept == 2
    assert content(out) == content(whole)


def test_a_source_that_changed_is_found(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    folder = CaseFolder.open(tmp_path / "out")
    path = folder.source_path(folder.cases[0])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match=r"1 of 3 cases changed: .*source"):
        folder.verify()


def test_slabs_are_cut_from_both_halves_alike(source: Path, tmp_path: Path) -> None:
    done = made(source, tmp_path / "out", shape=None, spacing=12.0, slab=8)
    folder = CaseFolder.open(tmp_path / "out")
    assert done.scans == 3 < len(folder.cases)
    for case in folder.cases:
        assert folder.source(case).shape == folder.hu(case).shape


def test_folders_of_single_scans_are_as_they_were(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "cases")
    text = (tmp_path / "cases" / "catalog.json").read_text()
    assert "source" not in text
    assert "moved" not in text
    assert "pairs" not in text
    case = folder.cases[0]
    assert case.source is None
    with pytest.raises(DataInvalid, match="single scans, pairs are needed") as caught:
        folder.source(case)
    assert "prepare SCANS CASES --pairs" in str(caught.value.fix)


# what belongs together


def test_names_may_be_folders_of_patients_or_parallel_folders(
    source: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(source.glob("*/CT?.nii.gz")):
        side = {"CT1.nii.gz": "plain", "CT2.nii.gz": "contrast"}[path.name]
        (tmp_path / side).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / side / f"{path.parent.name}.nii.gz")
    expected = {case.sha256 for case in CaseFolder.open(whole).cases}
    for number, (sources, layout) in enumerate(
        [
            (tmp_path, "plain,contrast"),
            ([tmp_path / "plain", tmp_path / "contrast"], "plain,contrast"),
            ([tmp_path / "plain", tmp_path / "contrast"], f"{tmp_path / 'plain'},{tmp_path / 'contrast'}"),
        ]
    ):
        done = made(sources, tmp_path / f"out{number}", pairs=layout)  # type: ignore[arg-type]
        assert done.cases == 3, layout
        assert {case.sha256 for case in CaseFolder.open(tmp_path / f"out{number}").cases} == expected
    with pytest.raises(SystemExit):
        main(["doctor", str(tmp_path / "plain"), str(tmp_path / "contrast"), "--pairs", "plain,contrast"])
    told = capsys.readouterr().out
    for path in (tmp_path / "plain").iterdir():
        assert f"{path} and {tmp_path / 'contrast' / path.name}" in told, "pairs of parallel folders are told apart"


def test_a_csv_says_who_belongs_to_whom_and_who_is_who(source: Path, whole: Path, tmp_path: Path) -> None:
    rows = [f"phantom-000{n}/CT1.nii.gz,phantom-000{n}/CT2.nii.gz,{'DOE' if n < 3 else 'ROE'}" for n in (1, 2, 3)]
    (tmp_path / "pairs.csv").write_text("\n".join(["source,target,patient", *rows]))
    done = made(source, tmp_path / "out", pairs=tmp_path / "pairs.csv")
    assert (done.cases, done.patients) == (3, 2)
    assert {case.sha256 for case in CaseFolder.open(tmp_path / "out").cases} == {
        case.sha256 for case in CaseFolder.open(whole).cases
    }
    assert not any(b"DOE" in path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("a,b\nx,y\n", DataInvalid, "columns source,target"),
        ("source,target\n", DataInvalid, "columns source,target"),
        ("source,target\nphantom-0001/CT1.nii.gz,\n", DataInvalid, "line 2 lacks a target"),
        ("source,target\nphantom-0001/CT1.nii.gz,nowhere.nii.gz\n", DataInvalid, "line 2 of the CSV: no scan at"),
        ("source,target\nphantom-0001/CT1.nii.gz,phantom-0002\n", DataInvalid, "line 2 of the CSV: 3 scans at its"),
        (None, InputMissing, "no such CSV of pairs"),
    ],
)
def test_a_csv_that_is_wrong_says_where(
    source: Path, tmp_path: Path, text: str | None, kind: type[TomogenError], message: str
) -> None:
    if text is not None:
        (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(kind, match=message):
        made(source, tmp_path / "out", pairs=tmp_path / "pairs.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["cases", "CT1", "CT1,CT1", ",", "a,b,c"])
def test_a_layout_is_two_names(source: Path, tmp_path: Path, layout: str) -> None:
    with pytest.raises(UsageFault, match="--pairs takes the names of source and target"):
        made(source, tmp_path / "out", pairs=layout)


def test_names_that_no_path_has_are_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="lies in NCCT or CECT"):
        made(source, tmp_path / "out", pairs="NCCT,CECT")


def test_a_word_in_the_path_above_the_sources_means_nothing(tmp_path: Path) -> None:
    put(tmp_path / "CT1" / "set" / "P1", CT1=scan(1), CT2=scan(1, "arterial"))
    assert made(tmp_path / "CT1" / "set", tmp_path / "out").cases == 1


def test_register_without_pairs_is_a_fault(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="--register moves the targets of pairs"):
        prepare(source, tmp_path / "out", register=True)


def test_pairs_that_share_a_scan_are_of_one_patient_and_equal_pairs_count_once(tmp_path: Path) -> None:
    put(tmp_path / "in" / "A", CT1=scan(1), CT2=scan(1, "arterial"))
    put(tmp_path / "in" / "B", CT1=scan(1), CT2=scan(1, "venous"))
    put(tmp_path / "in" / "C", CT1=scan(1), CT2=scan(1, "arterial"))
    done = made(tmp_path / "in", tmp_path / "out")
    assert (done.scans, done.patients, done.copies) == (2, 1, 1)
    assert len({case.split for case in CaseFolder.open(tmp_path / "out").cases}) == 1


# what is refused


def slices_less() -> tuple[Volume, Volume]:
    return scan(1), replace(scan(1, "arterial"), hu=scan(1, "arterial").hu[:-2])


def other_spacing() -> tuple[Volume, Volume]:
    return scan(1), replace(scan(1, "arterial"), affine=scan(1).affine @ np.diag([1, 1.1, 1.1, 1]))


def other_matrix() -> tuple[Volume, Volume]:
    return scan(1), replace(scan(1, "arterial"), hu=np.ascontiguousarray(scan(1, "arterial").hu[:, :, 2:]))


def other_axes() -> tuple[Volume, Volume]:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("x", 6, degrees=True).as_matrix()
    return scan(1), replace(scan(1, "arterial"), affine=turn @ scan(1).affine)


FAULTS: dict[str, tuple[Callable[[], tuple[Volume | None, Volume | None]], Reason, str]] = {
    "no target": (lambda: (scan(1), None), Reason.UNPAIRED, "no CT2 to this CT1: its partner is missing"),
    "no source": (lambda: (None, scan(1)), Reason.UNPAIRED, "no CT1 to this CT2: its partner is missing"),
    "slices": (slices_less, Reason.UNPAIRED, "CT1 has 30 slices, CT2 28"),
    "spacing": (other_spacing, Reason.UNPAIRED, "unlike spacing: CT1 has 10 x 10 x 10 mm, CT2 10 x 11 x 11 mm"),
    "matrix": (other_matrix, Reason.UNPAIRED, "unlike slices: CT1 has 36 x 36 voxels, CT2 36 x 34"),
    "axes": (other_axes, Reason.UNPAIRED, "the axes of CT1 and CT2 are 6.0 degrees apart"),
    "place": (lambda: (scan(1), placed(scan(1, "arterial"), (0, 0, 20))), Reason.UNPAIRED,
              "lie 20.0 mm apart; their fields overlap by 93%"),
    "no overlap": (lambda: (scan(1), placed(scan(1, "arterial"), (0, 0, 900))), Reason.UNPAIRED, "overlap by 0%"),
    "swapped": (lambda: (scan(1, "arterial"), scan(1)), Reason.UNPAIRED, "swapped: "),
    "twice": (lambda: (scan(1), scan(1)), Reason.DUPLICATE, "CT1 and CT2 hold the same voxels"),
    "moved": (lambda: (scan(1), turned(scan(1, "arterial"), (9, -12, 0))[0]), Reason.UNPAIRED,
              r"misaligned: the body in CT2 lies 1[45]\.\d mm \(left [89]\.\d, back -1[12]\.\d"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_two_scans_that_are_no_pair_are_refused_with_what_differs(name: str, tmp_path: Path) -> None:
    build, reason, message = FAULTS[name]
    one, other = build()
    put(tmp_path / "in" / "P1", CT1=one, CT2=other)
    with pytest.raises(DataInvalid, match=message) as caught:
        made(tmp_path / "in", tmp_path / "out")
    assert caught.value.reason is reason
    assert caught.value.fix
    assert "P1" in str(caught.value.at)
    assert not (tmp_path / "out" / "catalog.json").exists()


def test_one_bad_pair_is_listed_and_the_others_are_made(tmp_path: Path) -> None:
    put(tmp_path / "in" / "P1", CT1=scan(1), CT2=scan(1, "arterial"))
    put(tmp_path / "in" / "P2", CT1=scan(2))
    put(tmp_path / "in" / "P3", CT1=scan(3, "arterial"), CT2=scan(3))
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--shape", "8", "8", "8", "--workers", "1", "--pairs"]
    done = CliRunner().invoke(prepare_command, arguments)
    assert done.exit_code == 8
    assert "1 pairs, 1 cases" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert [(Path(line["path"]).name, line["reason"]) for line in lines] == [
        ("CT1.nii.gz", "unpaired"), ("P3", "unpaired"),
    ]  # fmt: skip
    found = CliRunner().invoke(doctor_command, [str(tmp_path / "in"), "--pairs"])
    assert found.exit_code == 1
    assert "1 pairs to use, 2 that cannot be used" in found.stdout
    assert "fix: exchange the two" in found.stdout


def test_contrast_may_be_the_source_where_the_user_says_so(tmp_path: Path) -> None:
    put(tmp_path / "in" / "P1", CT1=scan(1), CT2=scan(1, "arterial"))
    done = made(tmp_path / "in", tmp_path / "out", pairs="CT2,CT1")
    assert done.cases == 1
    assert any("are source and target swapped?" in warning for warning in done.warnings)


def test_a_target_without_contrast_is_told(tmp_path: Path) -> None:
    put(tmp_path / "in" / "P1", CT1=scan(1), CT2=scan(1, noise=0))
    done = made(tmp_path / "in", tmp_path / "out")
    assert any("only 0 ml are enhanced in CT2" in warning for warning in done.warnings)


def test_dicom_tells_of_two_patients_and_of_two_frames_of_reference(tmp_path: Path) -> None:
    import pydicom

    phantom(tmp_path / "in", n=1, shape=(12, 24, 24), pairs=True, format="dicom")

    def change(word: str, value: str) -> None:
        for path in (tmp_path / "in" / "phantom-0001" / "CT2").iterdir():
            dataset = pydicom.dcmread(path)
            setattr(dataset, word, value)
            dataset.save_as(path)

    def told() -> tuple[str, str]:
        (pair,) = doctor(tmp_path / "in", pairs="CT1,CT2").pairs
        return pair.verdict, pair.detail

    assert told() == ("use", "")
    change("FrameOfReferenceUID", "1.2.3.4.5")
    assert "two frames of reference" in told()[1]
    assert "1.2.3.4" not in told()[1]
    change("PatientID", "SOMEBODY")
    assert "of two patients" in told()[1]
    assert "SOMEBODY" not in told()[1]


def test_two_persons_are_told_by_their_bodies() -> None:
    assert check.bodies(scan(1), scan(1, "arterial"), ("CT1", "CT2")) == ()
    (note,) = check.bodies(scan(1), scan(2, "arterial"), ("CT1", "CT2"))
    assert "one patient, one breath?" in note
    with pytest.raises(DataInvalid, match="unlike bodies"):
        check.bodies(scan(1), replace(scan(2), hu=scan(2).hu[::-1, ::-1].copy()), ("CT1", "CT2"))


def test_several_scans_in_one_place_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "P1", CT1=scan(1), CT2=scan(1, "arterial"))
    formats.write(scan(2), tmp_path / "in" / "P1" / "CT1.nrrd")
    (pair,) = doctor(tmp_path / "in", pairs="CT1,CT2").pairs
    assert (pair.reason, pair.detail) == ("several", "2 scans in CT1, one expected")


# how far apart, and back


@settings(max_examples=8)
@given(
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.sampled_from([0.0, 3.0, -5.0]),
    st.sampled_from([(2, "venous"), (3, "arterial")]),
)
def test_motions_are_measured_within_half_a_voxel(
    shift: tuple[float, float, float], degrees: float, who: tuple[int, str]
) -> None:
    seed, phase = who
    target, truth = turned(scan(seed, phase), shift, degrees)
    found = motion(scan(seed), target)
    points = scan(seed).centre + np.array([[120, 0, 0], [-120, 0, 0], [0, 80, 0], [0, -80, 0], [0, 0, 90]])
    error = (points @ found.affine[:3, :3].T + found.affine[:3, 3]) - (points @ truth[:3, :3].T + truth[:3, 3])
    assert np.linalg.norm(error, axis=1).max() < 5


def test_a_misaligned_target_is_moved_on_request_and_that_is_recorded(tmp_path: Path) -> None:
    put(tmp_path / "in" / "P1", CT1=scan(1), CT2=turned(scan(1, "arterial"), (9, -12, 0))[0])
    put(tmp_path / "straight" / "P1", CT1=scan(1), CT2=scan(1, "arterial"))
    done = made(tmp_path / "in", tmp_path / "out", register=True)
    assert done.registered == 1
    assert any("was moved onto it" in warning for warning in done.warnings)
    folder = CaseFolder.open(tmp_path / "out")
    (case,) = folder.cases
    assert case.moved is not None
    assert np.abs(np.subtract(case.moved, (9, -12, 0, 0, 0, 0))).max() < 1
    assert folder.sidecar(case)["moved"] == list(case.moved)
    made(tmp_path / "straight", tmp_path / "straight-out")
    straight = CaseFolder.open(tmp_path / "straight-out")
    truth = np.asarray(straight.hu(straight.cases[0])).astype(float)
    body = truth > -900
    assert np.corrcoef(truth[body], np.asarray(folder.hu(case))[body])[0, 1] > 0.97
    assert np.array_equal(folder.source(case), straight.source(straight.cases[0])), "the source stays"


def test_registration_touches_no_pair_that_lies_right_and_does_not_outlive_the_flag(tmp_path: Path) -> None:
    put(tmp_path / "in" / "P1", CT1=scan(1), CT2=scan(1, "arterial"))
    put(tmp_path / "in" / "P2", CT1=scan(2), CT2=turned(scan(2, "arterial"), (15, 0, 0))[0])
    assert len(made(tmp_path / "in", tmp_path / "out").failed) == 1
    asked = made(tmp_path / "in", tmp_path / "out", register=True)
    assert (asked.cases, asked.kept, asked.registered) == (2, 1, 1)
    without = made(tmp_path / "in", tmp_path / "out")
    assert (without.cases, len(without.failed)) == (1, 1)


def test_unlike_grids_are_brought_together_on_request(tmp_path: Path) -> None:
    put(tmp_path / "in" / "P1", CT1=scan(1), CT2=slices_less()[1])
    done = made(tmp_path / "in", tmp_path / "out", register=True)
    assert done.registered == 1
    assert any("resampled onto that of CT1" in warning for warning in done.warnings)


def test_the_measure_is_the_same_every_time() -> None:
    target = turned(scan(1, "arterial"), (5, 3, -8), 2.0)[0]
    assert np.array_equal(motion(scan(1), target).affine, motion(scan(1), target).affine)


@pytest.mark.parametrize(
    "pair",
    [("A0002/B70f", "A0002/B40f"), pytest.param(("A0001/series2", "A0001/series3"), marks=pytest.mark.slow)],
)
def test_two_kernels_of_one_scan_are_a_pair_without_offset(ctdata: Path, pair: tuple[str, str], tmp_path: Path) -> None:
    one, other = (next((ctdata / "pairs" / name).iterdir()) for name in pair)
    (tmp_path / "pairs.csv").write_text(f"source,target\n{one},{other}\n")
    (found,) = doctor(ctdata / "pairs", pairs=tmp_path / "pairs.csv").pairs
    assert (found.verdict, found.warnings) == ("use", ())
    assert found.offset is not None
    assert max(map(abs, found.offset)) < 0.3


# what models see


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> CaseFolder:
    out = tmp_path_factory.mktemp("pairs") / "feed"
    made(source, out, split=(1, 0, 0))
    return CaseFolder.open(out)


def test_both_halves_are_cut_shifted_and_flipped_alike(folder: CaseFolder) -> None:
    feed = Paired(folder, (12, 24, 12), WINDOW, shift=3, flip=0.5)
    flips, corners = set(), set()
    for number in range(24):
        place = feed.place(0, number)
        flips.add(place.flip)
        corners.add(tuple(place.corner))
        target, source = feed.hu(place)
        whole = [np.pad(np.asarray(half), 24, constant_values=HU_FLOOR) for half in
                 (folder.hu(place.case), folder.source(place.case))]  # fmt: skip
        box = tuple(slice(24 + a, 24 + a + n) for a, n in zip(place.corner, (12, 24, 12), strict=True))
        for half, truth in zip((target, source), whole, strict=True):
            cut = truth[box][..., ::-1] if place.flip else truth[box]
            assert np.array_equal(half, cut)
        sample = feed.draw(0, number)
        assert sample.image.shape == sample.condition["source"].shape == (1, 12, 24, 12)
        assert np.allclose(sample.image[0], WINDOW.to_unit(target.astype(np.float32)))
        assert np.allclose(sample.condition["source"][0], WINDOW.to_unit(source.astype(np.float32)))
    assert flips == {True, False}
    assert len(corners) > 12


def test_smaller_cases_are_padded_evenly_and_nothing_moves_unasked(folder: CaseFolder) -> None:
    feed = Paired(folder, (20, 20, 25), WINDOW)
    for number in range(3):
        place = feed.place(1, number)
        assert place.corner.tolist() == [-2, 0, -2]
        assert not place.flip
        target, source = feed.hu(place)
        assert (target[:2] == HU_FLOOR).all()
        assert (target[-2:] == HU_FLOOR).all()
        assert np.array_equal(source[2:18, :, 2:22], folder.source(place.case))


def test_each_pair_comes_once_in_a_pass_and_images_depend_on_seed_and_number_alone(folder: CaseFolder) -> None:
    one, other = (Paired(folder, (12, 12, 12), WINDOW, shift=2, flip=0.5) for _ in range(2))
    assert {one.place(0, number).case.id for number in range(3)} == {case.id for case in folder.cases}
    late = [other.draw(5, number) for number in (7, 2)]
    assert np.array_equal(late[1].image, one.draw(5, 2).image)
    assert not np.array_equal(one.draw(5, 2).image, one.draw(6, 2).image)


def test_batches_hold_targets_and_sources(folder: CaseFolder) -> None:
    batch = next(stream(Paired(folder, (12, 16, 16), WINDOW), batch=3, seed=0))
    assert batch.image.shape == batch.condition["source"].shape == (3, 1, 12, 16, 16)
    with pytest.raises(DataInvalid, match="6 pairs in split 'train', batch 7"):
        Paired(folder, (8, 20, 20), WINDOW).enough(7)


def test_a_folder_without_pairs_is_refused_with_its_fix(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="pairs are needed") as caught:
        Paired(tiny.folder(tmp_path / "cases"), (8, 8, 8), WINDOW)
    assert "prepare" in str(caught.value.fix)
    assert "--pairs" in str(caught.value.fix)
