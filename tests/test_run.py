"""The run folder: how it begins, what is never removed, and how its log is read after a kill."""

import json
from pathlib import Path

import pytest

import tiny
from tomogen.errors import InputMissing, RecipeMismatch, UsageFault
from tomogen.recipe import Recipe
from tomogen.run import Run

DATA = {"spacing": [4.0, 3.0, 3.0], "digest": "abc"}


def begun(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Recipe.load("wgan3d_tiny"), DATA)


def test_a_new_run_opens_with_its_recipe_window_and_spacing(tmp_path: Path) -> None:
    begun(tmp_path)
    run = Run.open(tmp_path / "run")
    assert run.recipe.values() == Recipe.load("wgan3d_tiny").values()
    assert (run.window.low, run.window.high) == (-1000, 400)
    assert run.spacing == (4.0, 3.0, 3.0)
    assert run.log() == run.events() == []


def test_an_occupied_folder_is_refused_and_overwriting_takes_only_what_a_run_is_made_of(tmp_path: Path) -> None:
    run = begun(tmp_path)
    (run.path / "notes.txt").write_text("mine")
    (run.path / "checkpoints" / "step-000001").mkdir()
    (run.path / "weights.safetensors").write_bytes(b"old")
    with pytest.raises(UsageFault, match="not empty") as refused:
        begun(tmp_path)
    assert refused.value.fix == "--resume or --overwrite"
    Run.create(run.path, Recipe.load("wgan3d_tiny"), DATA, overwrite=True)
    assert (run.path / "notes.txt").read_text() == "mine"
    assert not (run.path / "weights.safetensors").exists()
    assert list((run.path / "checkpoints").iterdir()) == []


def test_a_folder_that_is_no_run_and_a_run_without_weights_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no such run"):
        Run.open(tmp_path / "nowhere")
    begun(tmp_path / "lungs")
    with pytest.raises(InputMissing, match="near names: lungs"):
        Run.open(tmp_path / "lung")
    with pytest.raises(InputMissing, match=r"no recipe\.toml"):
        Run.open(tmp_path)
    with pytest.raises(InputMissing, match="first checkpoint"):
        _ = begun(tmp_path).weights


def test_a_log_line_cut_off_by_a_kill_is_not_read_and_rewinding_removes_it(tmp_path: Path) -> None:
    run = begun(tmp_path)
    lines = [{"step": step, "critic/adversarial": -step / 2} for step in range(1, 6)]
    lines.insert(2, {"step": 2, "event": "preview", "variety": 0.5})
    (run.path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "cri')
    for step in (0, 2, 4):
        (run.path / "previews" / f"step-{step:06d}.png").write_bytes(b"")
    assert [line["step"] for line in run.log()] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in run.events()] == [2]
    run.rewind(3)
    assert [line["step"] for line in run.log()] == [1, 2, 3]
    assert (run.path / "log.jsonl").read_text().endswith("}\n")
    assert sorted(path.name for path in (run.path / "previews").iterdir()) == ["step-000000.png", "step-000002.png"]


def test_the_identifier_is_that_of_the_weights(tmp_path: Path) -> None:
    run = begun(tmp_path)
    (run.path / "weights.safetensors").write_bytes(b"one")
    first = run.identifier
    (run.path / "weights.safetensors").write_bytes(b"two")
    assert len(first) == 16
    assert Run.open(run.path).identifier != first


def test_cases_clipped_to_less_than_the_recipes_window_are_refused(tmp_path: Path) -> None:
    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path)
    catalog = tmp_path / "cases" / "catalog.json"
    record = tmp_path / "cases" / "preparation.json"
    for path in (catalog, record):
        if path.is_file():
            told = json.loads(path.read_text())
            told.get("preparation", told)["window"] = [-160, 240]
            path.write_text(json.dumps(told))
    with pytest.raises(RecipeMismatch, match="clipped to -160 to 240 HU") as caught:
        tiny.trained(tmp_path, "run", set=[], steps=1)
    assert "without --window" in str(caught.value.fix)
    assert not (tmp_path / "run").exists()
