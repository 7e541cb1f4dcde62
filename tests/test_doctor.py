import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dicoms import chest, save, slices
from tomogen import device
from tomogen.cases.doctor import doctor
from tomogen.cli.doctor import command
from tomogen.errors import DependencyMissing
from tomogen.formats import ReadOptions
from tomogen.formats.dicom import codecs


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(command, [str(argument) for argument in arguments])


def masked(folder: Path) -> Path:
    return save(folder, slices((chest() > -300).astype(np.int16)))


def test_the_machine_is_described_by_checks_each_with_a_fix_where_it_fails() -> None:
    diagnosis = doctor()
    names = [check.name for check in diagnosis.checks]
    assert {"python", "torch", "device", "DICOM RLE", "memory", "working folder"} <= set(names)
    assert diagnosis.healthy == all(check.ok for check in diagnosis.checks)
    assert all(check.fix for check in diagnosis.checks if not check.ok)


def test_a_missing_decoder_is_a_fault_with_its_pip_line(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for syntax, codec in codecs.BY_SYNTAX.items():
        if codec.name == "RLE":
            broken = codecs.Codec(codec.name, ("no_such_module",), codec.install, codec.decode)
            monkeypatch.setitem(codecs.BY_SYNTAX, syntax, broken)
    done = run()
    assert done.exit_code == 1
    assert "FAULT" in done.stdout
    assert "fix: pip install pylibjpeg pylibjpeg-rle" in done.stdout


def test_a_driver_without_a_cuda_build_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def refuse(name: str) -> str:
        raise DependencyMissing("--device cuda: torch 2+cpu is a build without CUDA", fix="pip install torch")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(device, "driver_found", lambda: True)
    monkeypatch.setattr(device, "resolved", refuse)
    check = next(check for check in doctor().checks if check.name == "device")
    assert not check.ok
    assert check.fix == "pip install torch"
    assert "build without CUDA" in check.found


def test_a_folder_of_scans_is_listed_and_counts(run: Callable[..., Result], tmp_path: Path) -> None:
    save(tmp_path / "one", slices(chest()))
    (tmp_path / "readme.txt").write_text("hello")
    done = run(tmp_path)
    assert done.exit_code == 0
    assert "5 x 12 x 10 voxels, 2.5 x 0.8 x 0.7 mm" in done.stdout
    assert "6 files: 1 scans to use, 0 that cannot be used, 1 of other kinds" in done.stdout


def test_strangers_are_no_fault_but_a_ct_that_cannot_be_used_is(run: Callable[..., Result], tmp_path: Path) -> None:
    save(tmp_path / "one", slices(chest()))
    masked(tmp_path / "mask")
    assert run(tmp_path).exit_code == 0
    folder = save(tmp_path / "two", slices(chest()))
    (folder / "002.dcm").unlink()
    done = run(tmp_path)
    assert done.exit_code == 1
    assert "gap: gap 5.0 mm" in done.stdout
    assert "fix: --fill-gaps" in done.stdout
    assert run(tmp_path, "--fill-gaps").exit_code == 0


def test_where_there_is_no_ct_the_exit_code_says_so(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 3
    assert "no CT found" in run(tmp_path).stderr
    (tmp_path / "notes.txt").write_text("hello")
    assert run(tmp_path).exit_code == 3
    assert run(tmp_path / "nowhere").exit_code == 3


def test_json_is_one_object_without_anybody(run: Callable[..., Result], tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.PatientID = d.PatientName = d.InstitutionName = d.AccessionNumber = "CANARY"
    save(tmp_path / "one", datasets)
    done = run(tmp_path, "--json", "-q")
    told = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (told["schema"], told["healthy"], told["used"], told["files"]) == (1, True, 1, 5)
    (scan,) = told["scans"]
    assert (scan["verdict"], scan["shape"], scan["modality"]) == ("use", [5, 12, 10], "CT")
    assert "CANARY" not in done.stdout
    assert str(datasets[0].SeriesInstanceUID) not in done.stdout


def test_every_reading_flag_reaches_the_reader(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.Modality = "MR"
    save(tmp_path, datasets)
    assert doctor(tmp_path).refused == (("modality", 1),)
    assert doctor(tmp_path, options=ReadOptions(modality="any")).healthy


def test_pictures_are_no_fault(run: Callable[..., Result], tmp_path: Path) -> None:
    from PIL import Image

    save(tmp_path / "one", slices(chest()))
    for k in range(9):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / f"{k}.png")
    done = run(tmp_path)
    assert done.exit_code == 0
    assert "6 more" in done.stdout
    assert "8.png" in run(tmp_path, "-v").stdout
