"""The scripts of the docs go their whole way, tiny."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tomogen import formats
from tomogen.evaluation.scores import Scores
from tomogen.phantoms import chest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts import one another as they do when they are run."""
    monkeypatch.syspath_prepend(str(DOCS))


def test_two_radiographs_one_and_none_are_compared_on_the_same_patients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOMOGEN_PREPARE_WORKERS", "1")  # to start processes takes longer than the work
    script = importlib.import_module("two_radiographs")
    script.main([str(tmp_path / "out"), "--tiny"])
    told = json.loads((tmp_path / "out" / "two-radiographs.json").read_text())
    figures = told["figures"]
    assert set(figures) == {"biplanar", "single", "mean", "biplanar less single", "single less mean"}
    difference = figures["biplanar less single"]["psnr"]
    assert difference["value"] == pytest.approx(
        figures["biplanar"]["psnr"]["value"] - figures["single"]["psnr"]["value"]
    )
    assert difference["n"] == 3
    assert difference["interval"][0] < difference["value"] < difference["interval"][1]
    assert (tmp_path / "out" / "two-radiographs.png").stat().st_size > 1000
    assert "two radiographs |" in script.page_of(figures)
    assert "Traceback" not in capsys.readouterr().err


def test_a_page_is_filled_at_its_place_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = importlib.import_module("typed")
    monkeypatch.setattr(typed, "DOCS", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- here -->\nold\n<!-- end -->\nafter\n")
    typed.filled("page.md", "<!-- here -->", "new")
    assert page.read_text() == "before\n<!-- here -->\nnew\n<!-- end -->\nafter\n"
    with pytest.raises(ValueError, match="has no place from <!-- there -->"):
        typed.filled("page.md", "<!-- there -->", "new")
    assert "after" in page.read_text()


def test_every_page_that_a_script_fills_has_its_place() -> None:
    ready = 0
    for script in DOCS.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        start = re.search(r'^START = "(.*)"$', text, re.MULTILINE)
        for page in re.findall(r'filled\(\s*"([\w-]+\.md)"', text):
            assert start, script
            _, begun, rest = (DOCS / page).read_text(encoding="utf-8").partition(start[1])
            assert begun, f"{page} has no {start[1]}"
            assert rest.partition("<!--")[2].startswith(" end -->"), f"the next mark of {page} is no end"
            ready += 1
    assert ready >= 3


def test_contrast_is_made_and_held_to_patients_never_seen(tmp_path: Path) -> None:
    script = importlib.import_module("contrast")
    script.main([str(tmp_path / "out"), "--tiny"])
    figures = json.loads((tmp_path / "out" / "contrast.json").read_text())["figures"]
    assert figures["floor: input"]["bias/structure"]["value"] < -50, "vessels without contrast are darker"
    assert figures["made"]["mae"]["definition"]["mask"] == "body"
    assert figures["made"]["mae"]["definition"]["n"] == [2]
    assert (tmp_path / "out" / "contrast.png").stat().st_size > 1000


def test_kernels_are_learnt_from_the_others_and_held_to_the_one_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOMOGEN_PREPARE_WORKERS", "1")
    script = importlib.import_module("kernels")
    random = np.random.default_rng(0)
    for number, pair in enumerate(script.PAIRS, start=1):
        soft = chest(number, (12, 56, 56))
        sharp = replace(soft, hu=(soft.hu + random.normal(0, 60, soft.shape)).clip(-1024).astype(np.int16))
        for series, volume in ((pair.sharp, sharp), (pair.soft, soft)):
            formats.write(volume, tmp_path / "pairs" / pair.patient / series / "ct.nii.gz")
    script.main([str(tmp_path / "pairs"), str(tmp_path / "out"), "--tiny"])
    told = json.loads((tmp_path / "out" / "kernels.json").read_text())
    assert told["figures"]["floor: input"]["mae"]["value"] == pytest.approx(48, abs=8), "of noise of 60 HU"
    assert [len(told["figures"]["made"][metric]["cases"]) for metric in ("mae", "ssim")] == [2, 2]
    for pair in script.PAIRS:
        learnt = (tmp_path / "out" / f"without-{pair.patient}" / "pairs.csv").read_text()
        assert pair.patient not in learnt
        assert sum(other.patient in learnt for other in script.PAIRS) == 1
    page = script.page_of(Scores.read(tmp_path / "out" / "report" / "scores.json"))
    assert page.count("| A000") == 4
    assert (tmp_path / "out" / "kernels.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("script", ["autoencoders", "gans"])
def test_models_are_compared_after_learning_equally_long(script: str, tmp_path: Path) -> None:
    module = importlib.import_module(script)
    module.main([str(tmp_path / "out"), "--tiny"])
    told = json.loads((tmp_path / "out" / f"{script}.json").read_text())
    assert set(told["seconds_of_training"]) <= set(told["figures"])
    assert len(told["seconds_of_training"]) >= 3
    assert (tmp_path / "out" / f"{script}.png").stat().st_size > 1000
