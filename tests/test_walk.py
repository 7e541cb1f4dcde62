"""`walk`: the film through samples: its stations, what lies between, and what it cannot do."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

import tiny_runs
from tomogen import formats
from tomogen.cli.walk import command
from tomogen.errors import DataInvalid, RecipeMismatch, TomogenError, UsageFault
from tomogen.formats import pictures
from tomogen.generation import walk as room
from tomogen.generation.knobs import Knobs, Tuned
from tomogen.generation.load import load
from tomogen.generation.sample import sample, volume
from tomogen.generation.walk import arc, walk, way
from tomogen.volume import Volume, affine_of

Maker = Callable[..., Path]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Runs of recipes shrunk to nothing."""
    return lambda name, *more: tiny_runs.drawn(tmp_path_factory.mktemp("runs") / name, name, *more)


@pytest.fixture(scope="module")
def run(make_run: Maker) -> Path:
    return make_run("stylegan2")


def frames_of(path: Path) -> list[np.ndarray]:
    """All frames: Pillow writes one that is as the one before as a longer one."""
    with Image.open(path) as film:
        found = []
        for number in range(film.n_frames):
            film.seek(number)
            page = np.array(film.convert("L"), dtype=int)
            found += [page] * (film.info["duration"] // pictures.FRAME_MS)
    return found


def walked(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> list[np.ndarray]:
    """The HU that a walk draws."""
    seen: list[np.ndarray] = []
    draw = room._drawn
    monkeypatch.setattr(room, "_drawn", lambda volume, window: seen.append(volume.hu) or draw(volume, window))
    walk(*arguments, device="cpu", **options)
    return seen


# ---- the way ----


@pytest.mark.parametrize("stations", [3, 4])
def test_a_walk_is_closed_passes_every_station_and_ends_before_it_began(stations: int) -> None:
    legs = list(way(stations, 5))
    assert len(legs) == 5 * stations
    assert [leg for leg in legs if leg[2] == 0] == [(i, (i + 1) % stations, 0.0) for i in range(stations)]
    assert max(share for *_, share in legs) == 0.8


def test_the_way_between_two_is_there_and_back(run: Path, tmp_path: Path) -> None:
    assert walk(run, tmp_path / "w.gif", seeds=[1, 2], frames=4, device="cpu").frames == 8
    pages = frames_of(tmp_path / "w.gif")
    assert len(pages) == 8
    assert not np.array_equal(pages[0], pages[4])
    for there, back in ((1, 7), (2, 6), (3, 5)):
        assert np.array_equal(pages[there], pages[back])


def test_an_arc_keeps_the_length_and_goes_evenly() -> None:
    """Shoemake 1985: equal angles for equal shares."""
    a, b = torch.randn(2, 1, 500, dtype=torch.float64)
    b *= a.norm() / b.norm()
    points = [arc(a, b, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert torch.equal(points[0], a)
    torch.testing.assert_close(points[-1], b)
    for point in points:
        assert point.norm().item() == pytest.approx(a.norm().item())
    steps = [(x.flatten() @ y.flatten()).item() for x, y in pairwise(points)]
    assert steps == pytest.approx([steps[0]] * 4)
    assert torch.equal(arc(a, a, 0.3), a)


# ---- what lies between ----


@pytest.mark.parametrize("name", ["wgan2d", "vae3d_light", "stylegan2_3d", "stylegan2"])
def test_stations_are_the_samples_of_the_seeds_and_each_step_is_small(
    make_run: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run, seeds, frames = make_run(name), [3, 1, 2], 8
    scans = walked(monkeypatch, run, tmp_path / "w.gif", seeds=seeds, frames=frames)
    loaded = load(run, "cpu")
    stations = [volume(loaded, seed, 1).hu for seed in seeds]
    if name.startswith("stylegan2"):  # noise is the first seed's throughout
        tuned = Tuned(loaded, Knobs())
        unit = [tuned.shown(tuned.style(seed, 1), tuned.noise(seeds[0], 1)) for seed in seeds]
        assert np.array_equal(stations[0], room.placed(loaded, unit[0]).hu)
        stations = [room.placed(loaded, image).hu for image in unit]
    assert len(scans) == frames * len(seeds)
    for number, station in enumerate(stations):
        assert np.array_equal(scans[frames * number], station)
    jumps = [np.abs(a.astype(int) - b).mean() for a, b in zip(scans, [*scans[1:], scans[0]], strict=True)]
    apart = min(np.abs(a.astype(int) - b).mean() for i, a in enumerate(stations) for b in stations[:i])
    assert min(jumps) > 0
    assert max(jumps) < apart


def test_noise_goes_in_an_arc(make_run: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half way along a straight line it would be shorter by the root of 2, which no model has met."""
    seen: list[Tensor] = []
    made = Tuned.made
    monkeypatch.setattr(Tuned, "made", lambda self, noise: seen.append(noise) or made(self, noise))
    walk(make_run("vae3d_light"), tmp_path / "w.gif", seeds=[1, 2], frames=2, device="cpu")
    start, middle, end = (noise.norm().item() for noise in seen)
    assert middle == pytest.approx((start + end) / 2, rel=0.05)


def test_styles_go_straight(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    shown = Tuned.shown
    monkeypatch.setattr(Tuned, "shown", lambda self, w, noise: seen.append(w) or shown(self, w, noise))
    walk(run, tmp_path / "w.gif", seeds=[1, 2, 3], frames=4, device="cpu")
    torch.testing.assert_close(seen[2], (seen[0] + seen[4]) / 2)
    torch.testing.assert_close(seen[5], 0.75 * seen[4] + 0.25 * seen[8])


def test_a_truncated_walk_stays_near_the_mean_and_at_0_stands_still(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = walked(monkeypatch, run, tmp_path / "0.gif", seeds=[1, 2, 3], frames=2, truncation=0.0)
    assert all(np.array_equal(scan, still[0]) for scan in still)
    mean = formats.read(sample(run, tmp_path / "mean", truncation=0.0, device="cpu").files[0]).hu
    assert np.array_equal(still[0], mean)


def test_a_walk_stays_in_its_class(make_run: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("stylegan2", ("fat", "lean"))
    lean = walked(monkeypatch, run, tmp_path / "lean.gif", seeds=[1, 2], frames=2, label="lean")
    loaded = load(run, "cpu")
    assert np.array_equal(lean[0], room.placed(loaded, Tuned(loaded, Knobs(label="lean")).image(1, 1)).hu)


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Two scans of unlike size and place, on the voxels of the runs."""
    found = []
    for number, shape in enumerate([(9, 14, 11), (8, 16, 12)]):
        hu = np.random.default_rng(number).integers(-900, 300, shape).astype(np.int16)
        affine = affine_of(tiny_runs.SPACING)
        affine[:3, 3] = 40 * number, 10, 0
        found.append(formats.write(Volume(hu, affine), tmp_path / f"{number}.nii.gz"))
    return found


def test_a_walk_between_two_scans_begins_with_the_reconstruction_of_the_first(
    make_run: Maker, tmp_path: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("vae3d_light")
    seen = walked(monkeypatch, run, tmp_path / "w.gif", scans=scans, frames=4)
    (first,) = sample(run, tmp_path / "first", around=scans[0], alpha=0.0, device="cpu").files
    assert len(seen) == 5
    assert np.array_equal(seen[0], formats.read(first).hu)
    assert {scan.shape for scan in seen} == {(9, 14, 11)}
    assert not any(np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


# ---- the picture ----


def test_frames_show_a_slice_or_three_planes_in_the_runs_window(make_run: Maker, run: Path, tmp_path: Path) -> None:
    flat = walk(run, tmp_path / "flat.gif", seeds=[1, 2, 3], frames=2, device="cpu")
    solid = walk(make_run("stylegan2_3d"), tmp_path / "solid.gif", seeds=[1, 2, 3], frames=2, device="cpu")
    assert flat.frames == solid.frames == 6
    assert flat.width == round(256 * 1.25 / 1.5)  # true proportions
    assert solid.width > 1.2 * solid.height
    for made in (flat, solid):
        with Image.open(made.out) as film:
            assert film.size == (made.width, made.height)
            assert b"SYNTHETIC" in film.info["comment"]
            assert b"seeds 1, 2, 3" in film.info["comment"]


# ---- what cannot work ----


@pytest.mark.parametrize(
    ("out", "options", "message", "fix"),
    [
        ("w.png", {"seeds": [1, 2]}, "drawn as a GIF", "w.gif"),
        ("w.gif", {}, "two seeds or more, not 0", "--seeds 1 2 3"),
        ("w.gif", {"seeds": [4]}, "two seeds or more, not 1", "--seeds 1 2 3"),
        ("w.gif", {"seeds": [4, -1]}, "seed -1", "--seeds"),
        ("w.gif", {"seeds": [1, 2], "scans": ["a", "b"]}, "not both", "--scans A B"),
        ("w.gif", {"scans": ["a"]}, "has two, not 1", "--scans A B"),
        ("w.gif", {"seeds": [1, 2], "frames": 1}, "1 frames", "--frames 2"),
        ("w.gif", {"seeds": [1, 2], "truncation": 2.0}, "truncation 2", "--truncation 1"),
    ],
)
def test_a_walk_that_cannot_be_says_what_can(
    run: Path, tmp_path: Path, out: str, options: dict[str, Any], message: str, fix: str
) -> None:
    with pytest.raises(UsageFault) as caught:
        walk(run, tmp_path / out, device="cpu", **options)
    assert message in caught.value.what
    assert fix in str(caught.value.fix)
    assert not list(tmp_path.iterdir())


def test_a_film_that_is_there_is_replaced_only_if_asked(run: Path, tmp_path: Path) -> None:
    (tmp_path / "w.gif").write_bytes(b"mine")
    with pytest.raises(UsageFault, match="there already"):
        walk(run, tmp_path / "w.gif", seeds=[1, 2], device="cpu")
    assert (tmp_path / "w.gif").read_bytes() == b"mine"
    walk(run, tmp_path / "w.gif", seeds=[1, 2], frames=2, device="cpu", overwrite=True)
    assert len(frames_of(tmp_path / "w.gif")) == 4


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("wgan2d", {"truncation": 0.5}, RecipeMismatch),
        ("stylegan2", {"label": "x"}, RecipeMismatch),
        ("stylegan2", {"scans": True}, RecipeMismatch),
    ],
)
def test_a_run_that_has_no_such_thing_says_so(
    make_run: Maker, tmp_path: Path, scans: list[Path], name: str, options: dict[str, Any], expected: type[TomogenError]
) -> None:
    options = {"scans": scans} if "scans" in options else {"seeds": [1, 2], **options}
    with pytest.raises(expected):
        walk(make_run(name), tmp_path / "w.gif", device="cpu", **options)
    assert not (tmp_path / "w.gif").exists()


def test_what_is_no_scan_is_refused(make_run: Maker, tmp_path: Path, scans: list[Path]) -> None:
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(DataInvalid):
        walk(make_run("vae3d_light"), tmp_path / "w.gif", scans=[scans[0], tmp_path / "notes.txt"], device="cpu")


# ---- the command ----


def called(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("first", [False, True], ids=["flags last", "flags first"])
def test_the_command_takes_as_many_seeds_as_are_given(run: Path, tmp_path: Path, first: bool) -> None:
    words: list[object] = ["--seeds", 1, 2, 3, "--frames", 2, "--json"]
    place: list[object] = [run, tmp_path / "w.gif"]
    code, said, errors = called(*(words[:4] + place + words[4:] if first else place + words))
    assert code == 0, errors
    assert json.loads(said)["frames"] == 6
    walk(run, tmp_path / "twin.gif", seeds=(1, 2, 3), frames=2, device="cpu")
    assert (tmp_path / "w.gif").read_bytes() == (tmp_path / "twin.gif").read_bytes()
    again = called(*place, "--seeds=1", "--seeds", 2, "--seeds", 3, "--frames", 2, "--overwrite")
    assert again[0] == 0
    assert (tmp_path / "w.gif").read_bytes() == (tmp_path / "twin.gif").read_bytes()


def test_the_command_says_what_is_wrong_on_one_line(run: Path, tmp_path: Path) -> None:
    code, said, errors = called(run, tmp_path / "w.gif", "--seeds", 1)
    assert (code, said) == (2, "")
    assert errors.splitlines()[0] == "error: a walk needs two seeds or more, not 1"
    assert called(run, tmp_path / "w.gif", "--seeds", "a")[0] == 2
    assert called(run, tmp_path / "w.gif", "--seeds")[0] == 2


def test_one_scan_forgotten_is_said(run: Path, tmp_path: Path) -> None:
    for words in (["--frames", 6], []):
        code, _, errors = called(run, tmp_path / "w.gif", "--scans", "a.nii.gz", *words)
        assert code == 2
        assert "--scans" in errors
        assert "extra argument" not in errors
        assert ("two scans are needed, A and B; given: a.nii.gz" if words else "requires 2") in errors
