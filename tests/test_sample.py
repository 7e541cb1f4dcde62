"""`sample`: the same run, seed and number give the same scan in HU, in every format, whole or not at all."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tomogen import formats
from tomogen.errors import DependencyMissing, InputMissing, RecipeMismatch, UsageFault
from tomogen.generation.load import load
from tomogen.generation.sample import images, sample, volumes
from tomogen.recipe import Recipe
from tomogen.run import Run

TINY = {
    "wgan3d_tiny": ["model.shape=[8,16,8]", "data.window=[-800,250]"],
    "wgan2d": ["model.shape=[16,32]"],
}
SMALL = ["model.width=4", "model.widest=8", "model.latent=6"]
SPACING = (5.0, 1.5, 1.25)


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run folder of a recipe shrunk to nothing, with weights as they are drawn."""

    def make(name: str = "wgan3d_tiny") -> Path:
        recipe = Recipe.load(name, TINY[name] + SMALL)
        path = tmp_path_factory.mktemp("runs") / name
        Run.create(path, recipe, {"spacing": SPACING})
        torch.manual_seed(0)
        weights = recipe.build().state_dict()
        weights["generator.image.weight"] *= 5  # so that HU fill the window
        save_file(weights, path / "weights.safetensors")
        return path

    return make


@pytest.fixture(scope="module")
def run(make_run: Callable[[str], Path]) -> Path:
    return make_run("wgan3d_tiny")


def hu_of(path: Path) -> np.ndarray:
    return formats.read(path).hu


def test_samples_are_whole_hu_within_the_runs_window_and_not_all_alike(run: Path, tmp_path: Path) -> None:
    made = sample(run, tmp_path / "out", n=3)
    assert [file.name for file in made.files] == [f"sample-00000{i}.nii.gz" for i in (1, 2, 3)]
    scans = [formats.read(file) for file in made.files]
    for scan in scans:
        assert scan.shape == made.shape == (8, 16, 8)
        assert scan.hu.min() >= -800
        assert scan.hu.max() <= 250
        assert np.ptp(scan.hu) > 500
        assert (scan.hu == np.rint(scan.hu)).all()
    assert not np.array_equal(scans[0].hu, scans[1].hu)


def test_hu_are_rounded_to_the_nearest_not_cut_off(run: Path) -> None:
    loaded = load(run, "cpu")
    exact = loaded.run.window.to_hu(images(loaded, 0, 1)).numpy()
    (volume,) = volumes(loaded, 1, 0)
    assert np.abs(volume.hu - exact).max() <= 0.5
    assert volume.hu.dtype == np.int16


def test_the_grid_has_the_spacing_of_the_training_cases_and_its_middle_at_0(run: Path, tmp_path: Path) -> None:
    scan = formats.read(sample(run, tmp_path / "out").files[0])
    assert scan.spacing == pytest.approx(SPACING, abs=1e-4)
    assert scan.centre == pytest.approx([0, 0, 0], abs=1e-4)
    assert scan.orientation == "SPL"


def test_sample_i_is_the_same_however_many_are_made(run: Path, tmp_path: Path) -> None:
    one, five = (sample(run, tmp_path / str(n), n=n, seed=7).files for n in (1, 5))
    assert np.array_equal(hu_of(one[0]), hu_of(five[0]))
    again = sample(run, tmp_path / "again", n=5, seed=7).files
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(five, again, strict=True))


def test_another_seed_gives_other_scans(run: Path, tmp_path: Path) -> None:
    a, b = (hu_of(sample(run, tmp_path / str(seed), seed=seed).files[0]) for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_every_volume_format_holds_the_same_hu_and_geometry(run: Path, tmp_path: Path) -> None:
    words = [word for word in formats.outputs() if word in ("dicom", "nii", "mha", "nrrd")]
    made = sample(run, tmp_path / "out", n=2, format=",".join(words))
    assert len(made.files) == 2 * len(words)
    for start in ("sample-000001", "sample-000002"):
        scans = [formats.read(file) for file in made.files if file.name.startswith(start)]
        for scan in scans[1:]:
            assert np.array_equal(scan.hu, scans[0].hu)
            np.testing.assert_allclose(scan.affine, scans[0].affine, atol=1e-4)


def test_a_2d_run_makes_slices_and_one_picture_of_all(make_run: Callable[[str], Path], tmp_path: Path) -> None:
    from PIL import Image

    made = sample(make_run("wgan2d"), tmp_path / "out", n=5, format="nii,png")
    assert made.shape == (1, 16, 32)
    assert {hu_of(file).shape for file in made.files if file.name.endswith(".nii.gz")} == {(1, 16, 32)}
    grid = tmp_path / "out" / "grid.png"
    assert grid in made.files
    with Image.open(grid) as picture:
        assert picture.width * picture.height >= 5 * 16 * 32


def test_what_is_generated_is_marked_as_such(run: Path) -> None:
    assert all(volume.acquisition.synthetic for volume in volumes(load(run, "cpu"), 2, 0))


def test_generation_uses_the_runs_weights_in_evaluation_mode(run: Path) -> None:
    loaded = load(run, "cpu")
    assert not loaded.synthesizer.training
    stored = load_file(run / "weights.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.synthesizer.state_dict().items())
    assert images(loaded, 0, 1).shape == (8, 16, 8)


# ---- the output ----


def test_a_folder_that_holds_something_is_not_written_to(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageFault, match="not empty"):
        sample(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_no_place_for_samples_even_to_overwrite(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(UsageFault):
        sample(run, mine, overwrite=True)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(("n", "format"), [(0, "nii"), (1, ""), (1, " , ")])
def test_nothing_to_make_is_refused(run: Path, tmp_path: Path, n: int, format: str) -> None:
    with pytest.raises(UsageFault, match="nothing to make"):
        sample(run, tmp_path / "out", n=n, format=format)


def test_overwrite_replaces_earlier_samples_and_nothing_else(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample(run, out, n=3)
    (out / "mine.txt").write_text("mine")
    made = sample(run, out, n=1, seed=5, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["mine.txt", "sample-000001.nii.gz"]
    fresh = sample(run, tmp_path / "fresh", n=1, seed=5)
    assert np.array_equal(hu_of(made.files[0]), hu_of(fresh.files[0]))


def test_a_fault_on_the_way_leaves_no_output(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = formats.write, []

    def write(*arguments: object) -> object:
        if written:
            raise OSError(28, "No space left on device")
        written.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(formats, "write", write)
    with pytest.raises(OSError, match="No space"):
        sample(run, tmp_path / "out", n=3)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused_before_anything_is_made(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="no such format 'docx'"):
        sample(run, tmp_path / "out", format="nii,docx")
    assert not (tmp_path / "out").exists()


# ---- the run ----


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing) as caught:
        load(tmp_path / "nowhere")
    assert caught.value.at == str(tmp_path / "nowhere")
    with pytest.raises(InputMissing, match=r"recipe\.toml"):
        load(tmp_path)


def test_a_run_without_weights_yet_says_so(make_run: Callable[[str], Path]) -> None:
    run = make_run("wgan3d_tiny")
    (run / "weights.safetensors").unlink()
    with pytest.raises(InputMissing, match="no weights yet"):
        load(run)


@pytest.mark.parametrize("damage", ["cut", "empty", "header"])
def test_damaged_weights_are_named(make_run: Callable[[str], Path], damage: str) -> None:
    run = make_run("wgan3d_tiny")
    weights = run / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes({"cut": whole[:-100], "empty": b"", "header": b"\xff" * 8 + whole[8:]}[damage])
    with pytest.raises(RecipeMismatch, match="damaged") as caught:
        load(run)
    assert caught.value.at == str(weights)


def test_weights_of_another_model_are_refused_with_the_difference(make_run: Callable[[str], Path]) -> None:
    run = make_run("wgan3d_tiny")
    weights = load_file(run / "weights.safetensors")
    weights["generator.image.weight"] = torch.zeros(2, 2)
    save_file(weights, run / "weights.safetensors")
    with pytest.raises(RecipeMismatch, match=r"generator\.image\.weight"):
        load(run)


def test_a_pickle_is_never_loaded(make_run: Callable[[str], Path], tmp_path: Path) -> None:
    trap = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trap,)

    run = make_run("wgan3d_tiny")
    (run / "weights.safetensors").write_bytes(pickle.dumps(Trap()))
    torch.save({"a": Trap()}, tmp_path / "model.pt")
    (run.parent / "plain.pt").write_bytes(pickle.dumps(Trap(), protocol=0))
    for path in (run, tmp_path / "model.pt", run.parent / "plain.pt"):
        with pytest.raises(RecipeMismatch, match="never loaded") as caught:
            load(path)
        assert caught.value.fix
    assert not trap.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_weights_whose_first_byte_is_that_of_a_pickle_are_no_pickle(make_run: Callable[[str], Path]) -> None:
    """Safetensors begin with the length of their header, a multiple of 8: one of 32 has 0x80 as its first byte."""
    path = make_run("wgan3d_tiny") / "weights.safetensors"
    weights = load_file(path)
    for count in range(0, 256, 8):
        save_file(weights, path, metadata={"padding": "x" * count})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    load(path.parent, "cpu")


def test_a_device_that_is_not_there_is_refused(run: Path) -> None:
    with pytest.raises(DependencyMissing, match="cuda"):
        load(run, "cuda")


# ---- the command ----


def tomogen(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tomogen", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_the_command_prints_the_folder_or_lists_the_files_as_json(run: Path, tmp_path: Path) -> None:
    done = tomogen("sample", run, tmp_path / "out", "--n", 2, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == 1
    assert found["files"] == [str(tmp_path / "out" / f"sample-00000{i}.nii.gz") for i in (1, 2)]
    again = tomogen("sample", run, tmp_path / "out")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert again.stdout == ""


def test_samples_do_not_go_into_the_run_itself(run: Path) -> None:
    with pytest.raises(UsageFault, match="one folder"):
        sample(run, run, overwrite=True)
