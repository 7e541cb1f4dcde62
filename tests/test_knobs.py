"""The knobs of `sample`: what each does to a scan, its ends, and what is said where a run has no such thing."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from click.testing import CliRunner

import tiny_runs
from tomogen import formats
from tomogen.cli.sample import command
from tomogen.errors import DataInvalid, RecipeMismatch, TomogenError, UsageFault
from tomogen.generation import codes
from tomogen.generation.knobs import Knobs, Tuned
from tomogen.generation.load import load
from tomogen.generation.sample import sample
from tomogen.volume import Volume, affine_of

LAYERS = 6
"""Of the styles of the tiny stylegan2: two for the seed, two for each doubling, the last for the image alone."""


Maker = Callable[..., Path]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Runs of recipes shrunk to nothing."""

    def make(name: str, classes: tuple[str, ...] = ()) -> Path:
        return tiny_runs.drawn(tmp_path_factory.mktemp("runs") / name, name, classes)

    return make


@pytest.fixture(scope="module")
def run(make_run: Maker) -> Path:
    return make_run("stylegan2")


@pytest.fixture(scope="module")
def classed(make_run: Maker) -> Path:
    return make_run("stylegan2", ("fat", "lean", "tall"))


def made(run: Path, out: Path, **options: Any) -> list[np.ndarray]:
    result = sample(run, out, device="cpu", **options)
    return [formats.read(file).hu for file in result.files if file.name.endswith(".nii.gz")]


# ---- truncation ----


def test_truncation_1_changes_nothing_and_0_makes_all_samples_one(run: Path, tmp_path: Path) -> None:
    plain, same, none = (
        made(run, tmp_path / str(value), n=3, truncation=value) for value in (None, 1.0, 0.0)
    )  # fmt: skip
    assert all(np.array_equal(a, b) for a, b in zip(plain, same, strict=True))
    assert not np.array_equal(plain[0], plain[1])
    assert np.array_equal(none[0], none[1])
    assert np.array_equal(none[0], none[2])


def test_truncation_0_is_the_mean_scan_of_another_seed_too(run: Path, tmp_path: Path) -> None:
    (a,), (b,) = (made(run, tmp_path / str(seed), truncation=0.0, seed=seed) for seed in (0, 5))
    assert np.array_equal(a, b)
    loaded = load(run, "cpu")
    model: Any = loaded.synthesizer
    with torch.inference_mode():
        mean = model.synthesise(model.middle({}))[0, 0]
    assert np.array_equal(a[0], loaded.run.window.to_hu(mean).round().numpy())


def test_the_mean_scan_with_noise_differs_from_sample_to_sample(run: Path, tmp_path: Path) -> None:
    a, b = made(run, tmp_path / "out", truncation=0.0, noise="all", n=2)
    assert not np.array_equal(a, b)


def test_samples_are_the_more_alike_the_less_truncation_leaves_of_them(run: Path) -> None:
    loaded = load(run, "cpu")

    def spread(truncation: float) -> float:
        tuned = Tuned(loaded, Knobs(truncation=truncation, noise="none"))
        return torch.stack([tuned.image(0, index) for index in range(1, 9)]).std(0).mean().item()

    spreads = [spread(value) for value in (0.0, 0.3, 0.7, 1.0)]
    assert spreads[0] < 1e-6
    assert all(a < b for a, b in pairwise(spreads))


def test_between_0_and_1_noise_is_as_trained(run: Path) -> None:
    loaded = load(run, "cpu")
    little, loud = (Tuned(loaded, Knobs(truncation=0.01, noise=noise)).image(0, 1) for noise in (None, "all"))
    assert torch.equal(little, loud)


# ---- mixing ----


@pytest.mark.parametrize("more", [{}, {"truncation": 0.5}, {"noise": "none"}, {"noise": "0,2"}])
@pytest.mark.parametrize("name", ["stylegan2", "stylegan2_3d"])
def test_the_ends_of_mixing_are_its_two_parents_bit_for_bit(
    make_run: Maker, tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    run = make_run(name)
    layers = load(run, "cpu").synthesizer.style_layers
    assert isinstance(layers, int)
    plain = made(run, tmp_path / "plain", n=8, **more)
    (first,) = made(run, tmp_path / "first", mix=(3, 8), crossover=layers, **more)
    (second,) = made(run, tmp_path / "second", mix=(3, 8), crossover=0, **more)
    assert np.array_equal(first, plain[2])
    assert np.array_equal(second, plain[7])
    children = [made(run, tmp_path / str(i), mix=(3, 8), crossover=i, **more)[0] for i in range(1, layers)]
    for i, child in enumerate([first, *children]):
        assert not any(np.array_equal(child, other) for other in [second, *children[i:]]), i


def test_each_layer_has_the_noise_of_the_sample_that_gives_its_style(run: Path) -> None:
    loaded = load(run, "cpu")
    model: Any = loaded.synthesizer
    tuned = Tuned(loaded, Knobs())
    a, b = (tuned.noise(0, index) for index in (1, 2))
    for crossover in range(LAYERS + 1):
        split = lambda noise: model.generator.noises(noise[:, 8 : 8 + model.generator.voxels])  # noqa: E731
        for layer, (mine, first, second) in enumerate(
            zip(*map(split, (model.crossed(a, b, crossover), a, b)), strict=True)
        ):
            assert torch.equal(mine, first if layer < crossover else second), (crossover, layer)


def test_a_sample_mixed_with_itself_is_itself(run: Path, tmp_path: Path) -> None:
    plain = made(run, tmp_path / "plain", n=2)
    (child,) = made(run, tmp_path / "child", mix=(2, 2), crossover=3)
    assert np.array_equal(child, plain[1])


# ---- noise ----


def test_noise_is_on_and_off_layer_by_layer(run: Path) -> None:
    loaded = load(run, "cpu")
    words = [None, "none", "0", "1", "2", "3", "4", "0,1,2,3"]
    scans = [Tuned(loaded, Knobs(noise=word)).image(0, 1) for word in words]
    assert not any(torch.equal(a, b) for i, a in enumerate(scans) for b in scans[:i])
    assert torch.equal(scans[0], Tuned(loaded, Knobs(noise="all")).image(0, 1))
    assert torch.equal(scans[0], Tuned(loaded, Knobs(noise="4, 3,2,1,0")).image(0, 1))


# ---- classes ----


def test_a_label_makes_its_class_and_without_one_each_sample_picks(classed: Path, tmp_path: Path) -> None:
    free = made(classed, tmp_path / "free", n=6)
    by_name = {name: made(classed, tmp_path / name, n=6, label=name) for name in ("fat", "lean", "tall")}
    picked = [[name for name, scans in by_name.items() if np.array_equal(scans[i], free[i])] for i in range(6)]
    assert all(len(names) == 1 for names in picked)
    assert len({names[0] for names in picked}) > 1


def test_each_class_has_a_mean_scan_and_all_together_have_one(classed: Path, tmp_path: Path) -> None:
    means = [
        made(classed, tmp_path / str(i), n=2, truncation=0.0, label=name)
        for i, name in enumerate((None, "fat", "tall"))
    ]
    assert all(np.array_equal(a, b) for a, b in means)
    assert not np.array_equal(means[1][0], means[2][0])
    assert not np.array_equal(means[0][0], means[1][0])


def test_parents_of_a_mixture_keep_the_classes_that_they_picked(classed: Path, tmp_path: Path) -> None:
    plain = made(classed, tmp_path / "plain", n=6)
    for index in range(1, 6):
        (child,) = made(classed, tmp_path / str(index), mix=(index, 6), crossover=LAYERS)
        assert np.array_equal(child, plain[index - 1])


# ---- around a scan ----


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan of a size and a place of its own, on the voxels of the runs."""
    hu = np.random.default_rng(0).integers(-900, 300, (9, 14, 11)).astype(np.int16)
    affine = affine_of(tiny_runs.SPACING)
    affine[:3, 3] = 40, -70, 12
    return formats.write(Volume(hu, affine), tmp_path / "scan.nii.gz")


def test_around_a_scan_alpha_0_reconstructs_and_more_goes_further(make_run: Maker, scan: Path, tmp_path: Path) -> None:
    run = make_run("vae3d_light")
    loaded = load(run, "cpu")
    mean = codes.decoded(loaded, codes.code_of(loaded, scan))
    a, b = made(run, tmp_path / "0", n=2, around=scan, alpha=0.0)
    assert np.array_equal(a, mean.hu)
    assert np.array_equal(b, mean.hu)
    far = []
    for alpha in (0.5, None, 3.0):
        one, two = made(run, tmp_path / str(alpha), n=2, around=scan, alpha=alpha)
        assert not np.array_equal(one, two)
        far.append(float(np.abs(one - mean.hu).mean()))
    assert far[0] < far[1] < far[2]


def test_what_is_drawn_around_a_scan_lies_where_it_lies(make_run: Maker, scan: Path, tmp_path: Path) -> None:
    result = sample(make_run("vae3d_light"), tmp_path / "out", around=scan, device="cpu", format="nii,dicom")
    assert result.shape == (9, 14, 11)
    for file in result.files:
        np.testing.assert_allclose(formats.read(file).affine, formats.read(scan).affine, atol=1e-4)


def test_no_name_of_the_scan_is_written(make_run: Maker, scan: Path, tmp_path: Path) -> None:
    named = scan.rename(tmp_path / "Erika-Mustermann.nii.gz")
    sample(make_run("vae3d_light"), tmp_path / "out", around=named, device="cpu", format="nrrd,dicom")
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert b"alpha 1" in written
    assert b"Mustermann" not in written


def test_a_scan_that_needs_flags_to_be_read_is_sent_to_encode(make_run: Maker, tmp_path: Path) -> None:
    formats.write(Volume(np.zeros((4, 8, 8), np.int16) + np.arange(8, dtype=np.int16), np.eye(4)), tmp_path / "a.png")
    with pytest.raises(DataInvalid) as caught:
        sample(make_run("vae3d_light"), tmp_path / "out", around=tmp_path / "a.png", device="cpu")
    assert "tomogen encode RUN SCAN CODE, and there --window-of" in str(caught.value.fix)


def test_a_run_that_has_no_codes_goes_around_nothing(run: Path, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeMismatch) as caught:
        sample(run, tmp_path / "out", around=scan, device="cpu")
    assert "vae" in str(caught.value)


# ---- what is written of it ----


def test_knobs_are_told_in_files_and_make_another_identity(run: Path, tmp_path: Path) -> None:
    def headers(out: str, **options: Any) -> pydicom.Dataset:
        result = sample(run, tmp_path / out, format="dicom", device="cpu", **options)
        return pydicom.dcmread(next(result.files[0].iterdir()))

    plain, tuned, again, other = (
        headers(out, **options)
        for out, options in (
            ("plain", {}),
            ("tuned", {"truncation": 0.5}),
            ("again", {"truncation": 0.5}),
            ("other", {"truncation": 0.7}),
        )
    )
    assert "truncation 0.5, seed 0, sample 1" in tuned.DerivationDescription
    assert "truncation" not in plain.DerivationDescription
    assert len({one.SOPInstanceUID for one in (plain, tuned, other)}) == 3
    assert tuned.SOPInstanceUID == again.SOPInstanceUID


def test_the_result_lists_the_knobs(run: Path, tmp_path: Path) -> None:
    result = sample(run, tmp_path / "out", mix=(1, 2), crossover=2, truncation=0.7, device="cpu")
    assert result.knobs == {"truncation": 0.7, "mix": (1, 2), "crossover": 2}


# ---- what cannot work ----


@pytest.mark.parametrize(
    ("knobs", "message", "fix"),
    [
        ({"truncation": 1.2}, "truncation 1.2: from 0", "--truncation 1"),
        ({"truncation": -3.0}, "truncation -3: from 0", "--truncation 0"),
        ({"truncation": float("nan")}, "truncation nan", "--truncation 0"),
        ({"mix": (0, 2), "crossover": 1}, "numbered from 1", "--mix 1 2"),
        ({"mix": (1, 2)}, "--mix needs --crossover: from 0 (all of sample 2) to 6", "--crossover 3"),
        ({"mix": (1, 2), "crossover": 7}, "crossover 7: the run has 6 layers", "--crossover 6"),
        ({"mix": (1, 2), "crossover": -1}, "crossover -1", "--crossover 0"),
        ({"crossover": 2}, "where two samples are mixed", "--mix 1 2 --crossover 2"),
        ({"noise": "some"}, "noise 'some'", "--noise 0,1,2"),
        ({"noise": ""}, "noise ''", "--noise 0,1,2"),
        ({"noise": "1,9,5"}, "noise in layer 9: the run has layers 0 (4 x 4) to 4 (16 x 16)", "--noise 1,4"),
        ({"alpha": 0.5}, "alpha is how far from a scan", "--around SCAN --alpha 0.5"),
        ({"around": "x", "alpha": -1.0}, "alpha -1: 0 (the reconstruction) or more", "--alpha 0"),
        ({"around": "x", "alpha": float("inf")}, "alpha inf", "--alpha 1"),
        ({"mix": (1, 2), "crossover": 2, "n": 3}, "are one scan, not 3", "--n 1"),
    ],
)
def test_a_knob_out_of_range_names_the_nearest_that_works(
    run: Path, tmp_path: Path, knobs: dict[str, Any], message: str, fix: str
) -> None:
    with pytest.raises(UsageFault) as caught:
        sample(run, tmp_path / "out", device="cpu", **knobs)
    assert message in caught.value.what
    assert caught.value.fix == fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("knobs", [{"truncation": 0.7}, {"mix": (1, 2), "crossover": 1}, {"noise": "none"}])
def test_a_run_without_styles_says_which_runs_have_them(make_run: Maker, tmp_path: Path, knobs: dict[str, Any]) -> None:
    for name in ("wgan2d", "vae3d_light"):
        with pytest.raises(RecipeMismatch, match=r"a run of \w+ has no styles") as caught:
            sample(make_run(name), tmp_path / "out", device="cpu", **knobs)
        assert "stylegan2" in str(caught.value.fix)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["wgan2d", "stylegan2"])
def test_a_run_without_classes_says_how_one_comes_to_have_them(make_run: Maker, tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeMismatch, match="has no classes") as caught:
        sample(make_run(name), tmp_path / "out", label="fat", device="cpu")
    assert "data.labels" in str(caught.value.fix)


def test_a_class_that_is_not_there_names_the_nearest(classed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="no class 'leen'; classes: fat, lean, tall") as caught:
        sample(classed, tmp_path / "out", label="leen", device="cpu")
    assert caught.value.fix == "--label lean"


# ---- the command ----


def called(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_takes_the_knobs(run: Path, tmp_path: Path) -> None:
    code, said, _ = called(
        run, tmp_path / "out", "--truncation", 0.7, "--mix", 3, 8, "--crossover", 4, "--noise", "0,1", "--json"
    )
    assert code == 0
    found = json.loads(said)
    assert found["knobs"] == {"truncation": 0.7, "mix": [3, 8], "crossover": 4, "noise": "0,1"}
    (twin,) = made(run, tmp_path / "twin", truncation=0.7, mix=(3, 8), crossover=4, noise="0,1")
    assert np.array_equal(formats.read(Path(found["files"][0])).hu, twin)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("stylegan2", ["--truncation", "1.5"], UsageFault),
        ("stylegan2", ["--crossover", "3"], UsageFault),
        ("wgan2d", ["--truncation", "0.5"], RecipeMismatch),
        ("wgan2d", ["--label", "x"], RecipeMismatch),
    ],
)
def test_the_exit_code_tells_a_wrong_number_from_a_run_that_has_no_such_knob(
    make_run: Maker, tmp_path: Path, name: str, arguments: list[str], expected: type[TomogenError]
) -> None:
    code, said, errors = called(make_run(name), tmp_path / "out", *arguments)
    assert code == expected.exit_code
    assert said == ""
    assert "fix: " in errors
