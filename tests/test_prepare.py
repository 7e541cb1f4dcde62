"""prepare: what comes out does not depend on how the work was done, and nothing is lost, leaked or overwritten."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tomogen import formats
from tomogen.cases import prepare as room
from tomogen.cases import work as working
from tomogen.cases.folder import CaseFolder
from tomogen.cases.prepare import PrepareResult, prepare
from tomogen.cases.scan import Finding
from tomogen.cli.__main__ import main
from tomogen.errors import DataInvalid, InputMissing, Interrupted, OutOfSpace, Reason, UsageFault
from tomogen.phantoms.cohort import phantom
from tomogen.volume import Volume, affine_of

SHAPE = (12, 16, 20)


def chest(seed: int) -> Volume:
    """A small oval body with lungs, different for every seed."""
    k, j, i = np.indices((14, 30, 40)) - np.array([6.5, 14.5, 19.5])[:, None, None, None]
    hu = np.full(k.shape, -1000)
    body = (i / (14 + seed % 4)) ** 2 + (j / (10 + seed % 3)) ** 2 < 1
    hu[body] = 40 + seed
    for side in (-1, 1):
        hu[((i - side * 6) / 4) ** 2 + (j / 6) ** 2 + ((k - 2) / 6) ** 2 < 1] = -850
    hu += np.random.default_rng(seed).integers(-9, 10, hu.shape) * body
    return Volume(hu.astype(np.int16), affine_of((10, 8, 8), origin=(-150, -100, 40)))


def scans(folder: Path, seeds: Sequence[int], suffix: str = ".nii.gz") -> Path:
    """A folder with a scan for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        formats.write(chest(seed), folder / f"scan{seed}{suffix}")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scans(tmp_path_factory.mktemp("source"), range(6))


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases of the source, made at a stretch in this process."""
    out = tmp_path_factory.mktemp("whole") / "cases"
    prepare(source, out, shape=SHAPE, workers=1)
    return out


def content(out: Path) -> dict[str, bytes]:
    """Every byte that users of the folder see."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.parent.name != "scans"}


def test_cases_are_the_scans_with_their_place_and_their_split(source: Path, whole: Path) -> None:
    folder = CaseFolder.open(whole)
    folder.verify()
    assert [case.shape for case in folder.cases] == [SHAPE] * 6
    assert sorted(case.patient for case in folder.cases) == [f"patient-{n:04d}" for n in range(1, 7)]
    assert sorted(case.split for case in folder.cases) == ["test"] + ["train"] * 4 + ["val"]
    bodies = sorted(int(np.median(folder.hu(case)[np.asarray(folder.hu(case)) > -100])) for case in folder.cases)
    assert bodies == pytest.approx(range(40, 46), abs=1)
    for case in folder.cases:
        volume = folder.volume(case)
        assert volume.orientation == "SPL"
        assert np.abs(volume.centre - chest(0).centre).max() < max(case.spacing)


def test_the_result_says_what_was_done(source: Path, tmp_path: Path) -> None:
    (source / "note.txt").write_text("no scan")
    try:
        told: list[tuple[int, int | None, str]] = []
        done = prepare(source, tmp_path / "out", shape=SHAPE, workers=1, progress=lambda *now: told.append(now))
    finally:
        (source / "note.txt").unlink()
    assert isinstance(done, PrepareResult)
    assert (done.scans, done.cases, done.patients, done.kept, done.copies) == (6, 6, 6, 0, 0)
    assert done.splits == {"train": 4, "val": 1, "test": 1}
    assert done.complete
    assert [refusal.reason for refusal in done.refused] == ["not_ct_file"]
    assert done.failed == ()
    assert any("6 scans name no patient" in warning for warning in done.warnings)
    assert told[-1][:2] == (6, 6)


def test_the_same_command_again_keeps_everything_and_changes_no_byte(source: Path, whole: Path) -> None:
    before = content(whole)
    again = prepare(source, whole, shape=SHAPE, workers=1)
    assert again.kept == 6
    assert content(whole) == before


class Recording:
    """An executor as little as one can be: tasks travel pickled, as to another machine."""

    def __init__(self) -> None:
        self.count = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Recording._Promise":
        self.count += 1
        return self._Promise(pickle.dumps((function, arguments)))

    class _Promise:
        def __init__(self, parcel: bytes) -> None:
            self.parcel = parcel

        def result(self) -> Any:
            function, arguments = pickle.loads(self.parcel)
            return pickle.loads(pickle.dumps(function(*arguments)))


def test_any_executor_with_submit_and_result_gives_the_same_bytes(source: Path, whole: Path, tmp_path: Path) -> None:
    executor = Recording()
    prepare(source, tmp_path / "out", shape=SHAPE, executor=executor)
    assert executor.count == 6
    assert content(tmp_path / "out") == content(whole)


def test_two_processes_give_the_same_bytes(source: Path, whole: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", shape=SHAPE, workers=2)
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_shards_together_are_the_whole(source: Path, whole: Path, tmp_path: Path, count: int) -> None:
    results = [
        prepare(source, tmp_path / "out", shape=SHAPE, workers=1, shard=f"{number}/{count}")
        for number in range(1, count + 1)
    ]
    assert not any(result.complete for result in results[: min(count, 6) - 1])
    assert results[-1].complete
    assert content(tmp_path / "out") == content(whole)


def test_a_call_without_shard_ends_the_work_of_shards(source: Path, whole: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", shape=SHAPE, workers=1, shard="1/2")
    with pytest.raises(DataInvalid, match="half prepared"):
        CaseFolder.open(tmp_path / "out")
    ended = prepare(source, tmp_path / "out", shape=SHAPE, workers=1)
    assert (ended.complete, ended.kept) == (True, 3)
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_is_a_number_of_a_count(source: Path, tmp_path: Path, shard: str) -> None:
    with pytest.raises(UsageFault, match="--shard"):
        prepare(source, tmp_path / "out", shard=shard)


def test_killed_in_the_middle_and_run_again_is_as_unbroken(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        "from tomogen.cases.prepare import prepare\n"
        f"if __name__ == '__main__': prepare({str(source)!r}, {str(out)!r}, shape={SHAPE}, workers=2)"
    )
    (tmp_path / "run.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((out / "scans").glob("*.json") if out.exists() else []):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (out / "catalog.json").exists()
    deadline = time.monotonic() + 10
    while alive(process.pid):  # workers leave with their parent
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (out / "volumes" / "0123.npy.00ff.partial").write_bytes(b"half")
    (out / "volumes" / "orphan.npy").write_bytes(b"without record")
    again = prepare(source, out, shape=SHAPE, workers=1)
    assert 1 <= again.kept < 6
    assert content(out) == content(whole)


def alive(session: int) -> list[int]:
    """Processes of a session that are not dead."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(entry.parent.name))
    return found


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, though a shell may have begun these tests in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_scan_in_hand_and_the_same_call_goes_on(
    source: Path, whole: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    class Stopping(working.Here):
        def submit(self, function: Any, /, *arguments: Any) -> Any:
            return self if arguments[0].key == self.last else super().submit(function, *arguments)

        last = ""

        def result(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(60)  # cut short by the signal

    keys = sorted(room.journal.key_of(finding) for finding in room.scan(source))
    executor = Stopping()
    executor.last = keys[2]
    with pytest.raises(Interrupted, match="2 of 6 scans") as caught:
        prepare(source, tmp_path / "out", shape=SHAPE, executor=executor)
    assert caught.value.exit_code == code
    assert prepare(source, tmp_path / "out", shape=SHAPE, workers=1).kept == 2
    assert content(tmp_path / "out") == content(whole)


def test_the_same_voxels_in_other_formats_and_orientations_count_once(tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", range(3))
    formats.write(chest(0).reorient("RAI"), folder / "again.nii")
    (folder / "deeper").mkdir()
    formats.write(chest(0).reorient("LPS"), folder / "deeper" / "again.nrrd")
    formats.write(replace(chest(1), hu=chest(1).hu.astype(np.float32)), folder / "float.mha")
    alone = prepare(folder, tmp_path / "out", shape=SHAPE, workers=1)
    assert (alone.scans, alone.cases, alone.patients, alone.copies) == (3, 3, 3, 3)
    files = sorted(path.suffix for path in (tmp_path / "out" / "volumes").iterdir())
    assert files == [".json"] * 3 + [".npy"] * 3
    before = content(tmp_path / "out")
    again = prepare(folder, tmp_path / "out", shape=SHAPE, workers=1)
    assert (again.copies, again.kept) == (3, 6)
    assert content(tmp_path / "out") == before


def test_a_copy_takes_over_when_its_double_is_gone(tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", range(2))
    shutil.copy(folder / "scan0.nii.gz", folder / "zcopy.nii.gz")
    prepare(folder, tmp_path / "out", shape=SHAPE, workers=1)
    keys = {finding.path.name: room.journal.key_of(finding) for finding in room.scan(folder)}
    records = {name: json.loads((tmp_path / "out" / "scans" / f"{key}.json").read_text()) for name, key in keys.items()}
    assert [records[name]["status"] for name in sorted(records)] == ["done", "done", "copy"]
    (folder / "scan0.nii.gz").unlink()
    (tmp_path / "out" / "scans" / f"{keys['scan0.nii.gz']}.json").unlink()
    again = prepare(folder, tmp_path / "out", shape=SHAPE, workers=1)
    assert (again.scans, again.kept, again.copies) == (2, 1, 0)
    CaseFolder.open(tmp_path / "out").verify()


def test_scans_of_one_patient_share_pseudonym_and_split_and_equal_voxels_join(tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", range(6))
    shutil.copy(folder / "scan3.nii.gz", folder / "zcopy.nii.gz")
    rows = ["path,patient", "scan0.nii.gz,A", "scan1.nii.gz,A", "scan2.nii.gz,B", "scan3.nii.gz,B", "zcopy.nii.gz,C"]
    (tmp_path / "patients.csv").write_text("\n".join([*rows, "scan4.nii.gz,C", "in/scan5.nii.gz,D"]))
    done = prepare(
        folder, tmp_path / "out", shape=SHAPE, patients=tmp_path / "patients.csv", split=(0.4, 0.3, 0.3), workers=1
    )
    assert (done.cases, done.patients, done.copies) == (6, 3, 1)
    assert not done.warnings
    by_patient: dict[str, set[str]] = {}
    for case in CaseFolder.open(tmp_path / "out").cases:
        by_patient.setdefault(case.patient, set()).add(case.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert sorted(splits.pop() for splits in by_patient.values()) == ["test", "train", "val"]


def test_one_patient_in_two_splits_of_the_csv_is_a_leak(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.csv").write_text("path,patient,split\nscan0.nii.gz,P3,train\nscan1.nii.gz,P3,test\n")
    code, _, said = command([str(source), str(tmp_path / "out"), "--patients", str(tmp_path / "p.csv")], capsys)
    assert not (tmp_path / "out").exists()
    assert code == 4
    assert "leak: one patient in test and train, by lines 2, 3 of the CSV" in said
    assert "P3" not in said


def test_slabs_of_a_scan_stay_with_its_patient(source: Path, tmp_path: Path) -> None:
    done = prepare(source, tmp_path / "out", slab=4, spacing=8, workers=1)
    folder = CaseFolder.open(tmp_path / "out")
    assert done.scans == 6
    assert done.cases == len(folder.cases) > 12
    assert {case.shape[0] for case in folder.cases} == {4}
    for patient in {case.patient for case in folder.cases}:
        own = [case for case in folder.cases if case.patient == patient]
        assert len({case.split for case in own}) == 1
        assert [case.slab for case in own] == list(range(len(own)))


def test_another_preparation_into_the_same_folder_is_refused_until_overwritten(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", shape=SHAPE, workers=1)
    with pytest.raises(UsageFault, match="prepared otherwise: shape: 12 16 20, now 8 8 8; window: none, now -1000 400"):
        prepare(source, tmp_path / "out", shape=(8, 8, 8), window=(-1000, 400), workers=1)
    assert len(CaseFolder.open(tmp_path / "out").cases) == 6
    prepare(source, tmp_path / "out", shape=(8, 8, 8), workers=1, overwrite=True)
    assert CaseFolder.open(tmp_path / "out").cases[0].shape == (8, 8, 8)


def test_a_folder_with_other_things_is_never_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageFault, match=r"other things: thesis\.tex"):
            prepare(source, tmp_path, shape=SHAPE, overwrite=overwrite)
    with pytest.raises(UsageFault, match="is a file"):
        prepare(source, tmp_path / "thesis.tex", shape=SHAPE)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_sources_may_be_added_but_not_forgotten(source: Path, tmp_path: Path) -> None:
    more = scans(tmp_path / "more", [7, 8])
    prepare(source, tmp_path / "out", shape=SHAPE, workers=1)
    both = prepare([source, more], tmp_path / "out", shape=SHAPE, workers=1)
    assert (both.scans, both.kept) == (8, 6)
    with pytest.raises(UsageFault, match="2 scans that are not among the sources"):
        prepare(source, tmp_path / "out", shape=SHAPE, workers=1)


def test_a_scan_that_changed_is_prepared_anew(tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", range(3))
    prepare(folder, tmp_path / "out", shape=SHAPE, workers=1)
    formats.write(chest(9), folder / "scan1.nii.gz")
    again = prepare(folder, tmp_path / "out", shape=SHAPE, workers=1)
    assert again.kept == 2
    found = CaseFolder.open(tmp_path / "out")
    found.verify()
    assert len(list((tmp_path / "out" / "volumes").glob("*.npy"))) == 3
    assert max(int(np.median(found.hu(case)[np.asarray(found.hu(case)) > -100])) for case in found.cases) >= 48


def test_voxels_that_vanished_are_made_again(source: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    next((tmp_path / "out" / "volumes").glob("*.npy")).unlink()
    assert prepare(source, tmp_path / "out", shape=SHAPE, workers=1).kept == 5
    assert content(tmp_path / "out") == content(whole)


def test_an_output_inside_the_source_is_not_scanned(tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", range(2))
    for _ in range(2):
        assert prepare(folder, folder / "cases", shape=SHAPE, workers=1).refused == ()


@pytest.mark.parametrize("out", [".", "..", "../in"])
def test_scans_in_the_output_folder_are_refused_and_left(out: str, tmp_path: Path) -> None:
    folder = scans(tmp_path / "in", range(2))
    with pytest.raises(UsageFault, match="the scans lie in the output folder"):
        prepare(folder, folder / out, shape=SHAPE, workers=1, overwrite=True)
    assert sorted(entry.name for entry in folder.iterdir()) == ["scan0.nii.gz", "scan1.nii.gz"]


class Broken(Finding):
    """A scan whose header promised more than its voxels keep."""

    def read(self) -> Volume:
        if "0" in self.path.name:
            raise DataInvalid("300 of 524288 bytes", reason=Reason.TRUNCATED)
        if "1" in self.path.name:
            raise ValueError("DOE^JOHN is no number")
        if "2" in self.path.name:
            raise MemoryError
        if "3" in self.path.name:
            raise DataInvalid("two values only, as in masks", reason=Reason.MASK)
        return super().read()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_scan = room.scan
    monkeypatch.setattr(room, "scan", lambda *a: [Broken(**vars(finding)) for finding in whole_scan(*a)])


@pytest.mark.usefixtures("broken")
def test_what_fails_is_listed_and_the_rest_is_written(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, said = command([str(source), str(tmp_path / "out"), *SHAPED, "--json"], capsys)
    assert code == 8
    result = json.loads(told)
    assert (result["scans"], len(result["failed"]), len(result["refused"])) == (2, 3, 1)
    assert result["refused"][0]["reason"] == "mask"
    lines = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert [(Path(line["path"]).name, line["reason"]) for line in lines] == [
        ("scan0.nii.gz", "truncated"), ("scan1.nii.gz", "unreadable"), ("scan2.nii.gz", "memory"),
    ]  # fmt: skip
    assert "DOE" not in told + said + (tmp_path / "out" / "failed.jsonl").read_text()
    assert len(CaseFolder.open(tmp_path / "out").cases) == 2


def test_what_failed_is_tried_again(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with monkeypatch.context() as patch:
        own = room.scan
        patch.setattr(room, "scan", lambda *a: [Broken(**vars(finding)) for finding in own(*a)])
        prepare(source, tmp_path / "out", shape=SHAPE, workers=1)
    for path in (tmp_path / "out" / "scans").glob("*.json"):  # the mask is a verdict that stays; drop it here
        if json.loads(path.read_text())["status"] == "refused":
            path.unlink()
    again = prepare(source, tmp_path / "out", shape=SHAPE, workers=1)
    assert (again.kept, again.failed) == (2, ())
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.usefixtures("broken")
def test_if_all_fail_nothing_is_written_as_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scans(tmp_path / "in", [0, 10])
    code, _, said = command([str(folder), str(tmp_path / "out"), *SHAPED], capsys)
    assert code == 4
    assert "none of 2 scans and files gave a case; the last: 300 of 524288 bytes" in said
    assert not (tmp_path / "out" / "catalog.json").exists()


SHAPED = ["--shape", *map(str, SHAPE), "--workers", "1"]


def command(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `tomogen prepare`."""
    with pytest.raises(SystemExit) as left:
        main(["prepare", *arguments])
    told = capsys.readouterr()
    return int(left.value.code or 0), told.out, told.err


def test_the_command_tells_what_came_out(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, said = command([str(source), str(tmp_path / "out"), *SHAPED], capsys)
    assert code == 0
    assert told.splitlines()[:2] == [f"{tmp_path / 'out'}: 6 scans, 6 cases, 6 patients", "train 4, val 1, test 1"]
    assert "warning: 6 scans name no patient" in said


def test_the_command_in_json_is_one_object(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = command([str(source), str(tmp_path / "out"), *SHAPED, "--json"], capsys)
    result = json.loads(told)
    assert code == 0
    assert result["schema"] == 1
    assert result["folder"] == str(tmp_path / "out")
    assert result["splits"] == {"train": 4, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda path: None, 3, "no such file or folder"),
        (lambda path: path.mkdir(), 3, "no CT found in"),
        (lambda path: (path.mkdir(), (path / "a.txt").touch(), (path / "b.txt").touch()), 4, "no CT found in"),
        (lambda path: path.write_text("text"), 4, "no format reads"),
        (lambda path: path.mkdir() or np.save(path / "ct.npy", np.zeros(3)), 4, "no format reads .npy"),
    ],
)
def test_sources_without_ct_are_refused(
    tmp_path: Path, make: Callable[[Path], object], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "in")
    found, told, said = command([str(tmp_path / "in"), str(tmp_path / "out")], capsys)
    assert (found, told) == (code, "")
    assert f"error: {message}" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--spacing", "x"], "is not a length such as 1.5"),
        (["--spacing", "1,2"], "is not a length such as 1.5"),
        (["--shape", "0", "4", "4"], "0 is not in the range x>=1"),
        (["--split", "0.8", "0.3", "0"], "add up to 1"),
        (["--max-volume", "much"], "is not a size such as 8GB"),
        (["--shard", "3/2"], "--shard takes a number and a count"),
        (["--shard", "1/2", "--overwrite"], "would remove the work of another"),
        (["--fit", "stretch"], "--fit stretch scales every axis"),
        (["--patiens", "x"], "did you mean '--patients'?"),
    ],
)
def test_flags_put_wrongly_exit_with_2(
    source: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = command([str(source), str(tmp_path / "out"), *flags], capsys)
    assert code == 2
    assert message in said


@pytest.mark.parametrize("words", ["8", "8mm", "8,8,8"])
def test_a_spacing_is_one_length_or_three(
    source: Path, tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([str(source), str(tmp_path / "out"), "--spacing", words, "--workers", "1"], capsys)[0] == 0
    assert CaseFolder.open(tmp_path / "out").spacing == pytest.approx((8, 8, 8))


def test_a_disk_too_small_is_told_before_the_start(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=30_000)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutOfSpace, match=r"the cases need 0\.0 MB, 0\.0 MB are free"):
        prepare(source, tmp_path / "out", shape=SHAPE, workers=1)
    assert not list((tmp_path / "out" / "scans").iterdir())


def test_a_disk_that_fills_up_stops_the_work_and_the_same_call_goes_on(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: Iterator[int] = iter(range(100))
    own = working.write_volume

    def full(path: Path, hu: Any) -> str:
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return own(path, hu)

    with monkeypatch.context() as patch:
        patch.setattr(working, "write_volume", full)
        code, _, said = command([str(source), str(tmp_path / "out"), *SHAPED], capsys)
    assert code == 6
    assert "the disk is full" in said
    assert prepare(source, tmp_path / "out", shape=SHAPE, workers=1).kept == 3
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, said = command([str(source), str(tmp_path / "locked" / "out"), *SHAPED], capsys)
    assert code == 3
    assert "permission denied" in said


def test_a_scan_without_a_body_is_refused_and_the_rest_goes_on(source: Path, tmp_path: Path) -> None:
    air = Volume(np.random.default_rng(0).integers(-1010, -980, (9, 9, 9)).astype(np.int16), np.eye(4))
    formats.write(air, tmp_path / "air.nii")
    done = prepare([source, tmp_path / "air.nii"], tmp_path / "out", shape=SHAPE, workers=1)
    assert (done.scans, done.failed) == (6, ())
    assert [refusal.reason for refusal in done.refused] == ["hu_range"]


def test_names_of_no_source_are_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        prepare([source, tmp_path / "nothing"], tmp_path / "out")


def test_real_scans_come_out_upright_with_two_lungs(ctdata: Path, tmp_path: Path) -> None:
    sources = [ctdata / "chest" / name for name in ("CIP-ct64", "Lung_Dx-A0002", "Lung_Dx-A0001")]
    done = prepare(sources, tmp_path / "out", shape=(32, 32, 32), patients=ctdata / "patients.csv", workers=1)
    assert (done.scans, done.patients, done.refused, done.failed, done.warnings) == (3, 3, (), (), ())
    folder = CaseFolder.open(tmp_path / "out")
    for case in folder.cases:
        hu = np.asarray(folder.hu(case))
        inside = np.flatnonzero((hu > -500).any(axis=(1, 2)))
        middle = hu[(inside[0] + inside[-1]) // 2]
        lungs = (middle > -1000) & (middle < -600)
        assert 0.05 < lungs[:, :16].mean() < 0.5
        assert 0.05 < lungs[:, 16:].mean() < 0.5
        assert (middle[[0, -1]] < -600).mean() > 0.8  # no table
        spine = hu[inside[0] : inside[-1], :, 10:22].max(axis=(0, 2)) > 250
        assert np.flatnonzero(spine).mean() > 15  # bone at the back


@pytest.mark.slow
def test_all_real_chests_are_prepared(ctdata: Path, tmp_path: Path) -> None:
    done = prepare(ctdata / "chest", tmp_path / "out", shape=(64, 64, 64), patients=ctdata / "patients.csv")
    assert (done.scans, done.cases, done.patients, done.copies) == (7, 7, 7, 0)
    assert done.splits == {"train": 5, "val": 1, "test": 1}
    assert (done.refused, done.failed, done.warnings) == ((), (), ())


@pytest.mark.slow
def test_a_hostile_tree_is_gone_through_to_its_end(ctdata: Path, tmp_path: Path) -> None:
    done = prepare(ctdata / "hostile", tmp_path / "out", shape=(16, 16, 16))
    assert done.complete
    assert all(refusal.detail and refusal.reason for refusal in (*done.refused, *done.failed))
    CaseFolder.open(tmp_path / "out").verify()


def test_radiographs_lie_beside_the_cases_and_the_same_command_goes_on(tmp_path: Path) -> None:
    from PIL import Image

    from tomogen.cases.radiographs import RadiographFolder

    phantom(tmp_path / "scans", n=2, shape=(24, 24, 24), seed=1, format="nii")
    (tmp_path / "films").mkdir()
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    for number in range(3):
        Image.fromarray(np.roll(ramp, 5 * number, axis=1)).save(tmp_path / "films" / f"{number}.png")
    (tmp_path / "films" / "note.dcm").write_text("no radiograph")
    options = {"shape": (8, 8, 8), "split": (1, 0, 0), "workers": 1}
    for _ in range(2):
        done = prepare(tmp_path / "scans", tmp_path / "cases", radiographs=tmp_path / "films", **options)
        assert done.radiographs == 3
        assert [Path(one.path).name for one in done.refused] == ["note.dcm"]
        assert len(RadiographFolder.open(tmp_path / "cases").entries) == 3
    prepare(tmp_path / "scans", tmp_path / "cases", **options)
    assert len(RadiographFolder.open(tmp_path / "cases").entries) == 3, "what is there stays"
    with pytest.raises(InputMissing, match="no such folder of radiographs"):
        prepare(tmp_path / "scans", tmp_path / "other", radiographs=tmp_path / "film", **options)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputMissing, match="no radiographs found"):
        prepare(tmp_path / "scans", tmp_path / "other", radiographs=tmp_path / "none", **options)
    (tmp_path / "none" / "note.dcm").write_text("no radiograph")
    with pytest.raises(DataInvalid, match="no radiograph is usable"):
        prepare(tmp_path / "scans", tmp_path / "other", radiographs=tmp_path / "none", **options)
    assert not (tmp_path / "other").exists(), "no scan is prepared first"
