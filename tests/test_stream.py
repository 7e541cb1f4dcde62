"""The stream of batches: image n is a function of (seed, n), whoever asks, from wherever it starts."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomogen.batch import Batch
from tomogen.cases import stream as ahead
from tomogen.cases.feed import Sample
from tomogen.cases.folder import Case, CaseFolder, write_catalog, write_json, write_volume
from tomogen.cases.preparation import Preparation
from tomogen.cases.scans import Scans, items_of
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault
from tomogen.intensity import HU_FLOOR, Window
from tomogen.volume import Acquisition, affine_of

WINDOW = Window(-1024, 1000)


def make_folder(path: Path, shapes: Sequence[tuple[int, int, int]], splits: str = "") -> CaseFolder:
    """A prepared folder of random cases; `splits` has a letter of train, val or test for each."""
    (path / "volumes").mkdir(parents=True)
    cases = []
    for number, shape in enumerate(shapes):
        hu = np.random.default_rng(number).integers(-1000, 1000, shape).astype(np.int16)
        name = f"case{number:02d}"
        digest = write_volume(path / "volumes" / f"{name}.npy", hu)
        split = {"t": "train", "v": "val", "e": "test"}[(splits or "t" * len(shapes))[number]]
        cases.append(
            Case(
                id=name, patient=f"patient-{number + 1:04d}", split=split, shape=shape, spacing=(2.0, 1.0, 1.0),
                affine=tuple(map(tuple, affine_of((2, 1, 1)).tolist())), acquisition=Acquisition(), slab=None,
                sha256=digest,
            )
        )  # fmt: skip
        slices = [k for k in range(shape[0]) if k % 3 != 0]
        write_json(path / "volumes" / f"{name}.json", {"schema": 1, "slices": slices})
    return write_catalog(path, Preparation(), cases, {"fractions": [1, 0, 0], "seed": 0})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CaseFolder:
    return make_folder(tmp_path_factory.mktemp("cases") / "whole", [(6, 8, 10)] * 5)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> CaseFolder:
    return make_folder(tmp_path_factory.mktemp("cases") / "large", [(12, 16, 20), (9, 16, 12), (7, 9, 11)])


def stream(folder: CaseFolder, shape: Sequence[int], window: Window, **options: Any) -> Iterator[Batch]:
    """Batches of a folder's scans."""
    of_feed = {name: options.pop(name) for name in ("split", "shift") if name in options}
    return ahead.stream(Scans(folder, shape, window, **of_feed), **options)


def images(count: int, folder: CaseFolder, **options: Any) -> torch.Tensor:
    """The first images of a stream."""
    batch = options.get("batch", 2)
    found = [part.image for part in islice(stream(folder, window=WINDOW, **options), -(-count // batch))]
    return torch.cat(found)[:count]


def test_a_pass_shows_every_volume_once_exact_to_the_hu(folder: CaseFolder) -> None:
    shown = WINDOW.to_hu(images(15, folder, shape=(6, 8, 10), batch=5, seed=3)).round().short().numpy()[:, 0]
    for lap in range(3):
        wanted = {np.array(folder.hu(case)).tobytes() for case in folder.cases}
        assert {image.tobytes() for image in shown[5 * lap : 5 * lap + 5]} == wanted


def test_batches_are_float32_on_minus_one_to_one_without_condition(folder: CaseFolder) -> None:
    batch = next(stream(folder, shape=(6, 8, 10), window=Window(-200, 300), batch=3, seed=0))
    assert batch.image.shape == (3, 1, 6, 8, 10)
    assert batch.image.dtype == torch.float32
    assert (batch.image.min(), batch.image.max()) == (-1, 1)
    assert batch.condition == {}


@given(start=st.integers(0, 40), shift=st.integers(0, 3), seed=st.integers(0, 5), crop=st.booleans())
@settings(max_examples=25)
def test_a_stream_that_starts_later_goes_on_as_if_unbroken(
    large: CaseFolder, start: int, shift: int, seed: int, crop: bool
) -> None:
    shape = (5, 8, 9) if crop else (8, 9)
    whole = images(start + 6, large, shape=shape, batch=2, seed=seed, shift=shift)
    later = images(6, large, shape=shape, batch=3, seed=seed, shift=shift, start=start)
    assert torch.equal(whole[start:], later)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("shape", [(5, 8, 9), (8, 9)])
def test_ranks_side_by_side_see_the_batches_of_one_process(
    large: CaseFolder, ranks: int, shape: tuple[int, ...]
) -> None:
    options = {"shape": shape, "window": WINDOW, "seed": 1, "start": 3, "shift": 1}
    alone = islice(stream(large, batch=4, **options), 5)
    shares = [stream(large, batch=4 // ranks, rank=rank, ranks=ranks, **options) for rank in range(ranks)]
    for wanted in alone:
        assert torch.equal(torch.cat([next(share).image for share in shares]), wanted.image)


def test_seeds_differ_and_passes_differ(folder: CaseFolder) -> None:
    options = {"shape": (6, 8, 10), "batch": 5}
    first, other = (images(10, folder, seed=seed, **options) for seed in (0, 1))
    assert not torch.equal(first, other)
    assert not torch.equal(first[:5], first[5:])


def places(hu: NDArray[np.int16], box: NDArray[np.int16]) -> list[tuple[int, int, int]]:
    """Where a box of voxels occurs in a volume."""
    room = hu[tuple(slice(n - m + 1) for n, m in zip(hu.shape, box.shape, strict=True))]
    corners = [(int(k), int(j), int(i)) for k, j, i in np.argwhere(room == box[0, 0, 0])]
    d, h, w = box.shape
    return [(k, j, i) for k, j, i in corners if np.array_equal(hu[k : k + d, j : j + h, i : i + w], box)]


def test_crops_lie_anywhere_in_the_volume_and_hold_its_values(large: CaseFolder) -> None:
    shown = WINDOW.to_hu(images(120, large, shape=(7, 9, 11), batch=1, seed=0)).round().short().numpy()[:, 0]
    (small,) = (case for case in large.cases if case.shape == (7, 9, 11))
    corners = set()
    for image in shown:
        hits = [(case.id, *place) for case in large.cases for place in places(large.hu(case), image)]
        assert len(hits) == 1
        corners.add(hits[0])
    assert (small.id, 0, 0, 0) in corners
    first = np.array([corner[1:] for corner in corners if corner[0] == "case00"])
    assert (first.min(axis=0) == 0).all()
    assert (first.max(axis=0) == (5, 7, 9)).all()


def test_a_shift_moves_within_its_bounds_and_fills_with_the_floor(folder: CaseFolder) -> None:
    shown = WINDOW.to_hu(images(60, folder, shape=(6, 8, 10), batch=1, seed=0, shift=2)).round().numpy()[:, 0]
    others = ((1, 2), (0, 2), (0, 1))
    sizes = [[np.flatnonzero((image != HU_FLOOR).any(axis=axes)).size for axes in others] for image in shown]
    for axis, n in enumerate((6, 8, 10)):
        assert {size[axis] for size in sizes} == {n - 2, n - 1, n}


def test_slices_are_those_that_hold_a_body(large: CaseFolder) -> None:
    items = items_of(large, (9, 11))
    assert len(items) == sum(len(large.sidecar(case)["slices"]) for case in large.cases)
    assert all(item.slice is not None and item.slice % 3 for item in items)
    image = images(1, large, shape=(9, 11), batch=1, seed=0)
    assert image.shape == (1, 1, 9, 11)


def test_all_slices_share_one_grey_scale(large: CaseFolder) -> None:
    # The published chain gave every slice a scale of its own, from its own minimum and maximum.
    window = Window(-1000, 400)
    known = {int(value) for case in large.cases for value in np.unique(large.hu(case).clip(-1000, 400))}
    shown = torch.cat([part.image for part in islice(stream(large, shape=(9, 11), window=window, batch=4, seed=0), 5)])
    assert {round(float(value)) for value in window.to_hu(shown).unique()} <= known
    assert len(shown.amin(dim=(1, 2, 3)).unique()) > 5


def test_the_next_batches_are_made_before_they_are_asked_for(
    folder: CaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = Scans.draw

    def draw(feed: Scans, seed: int, number: int) -> Sample:
        made.append(number)
        return real(feed, seed, number)

    monkeypatch.setattr(Scans, "draw", draw)
    kept = stream(folder, shape=(6, 8, 10), window=WINDOW, batch=5, seed=0, start=100)
    next(kept)
    deadline = time.monotonic() + 30
    while not set(range(100, 100 + 5 * (1 + ahead.AHEAD))) <= set(made) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(range(100, 100 + 5 * (1 + ahead.AHEAD))) <= set(made)


def test_a_stream_left_behind_ends_its_thread(folder: CaseFolder) -> None:
    import threading

    before = set(threading.enumerate())
    batches = stream(folder, shape=(6, 8, 10), window=WINDOW, batch=1, seed=0)
    next(batches)
    own = set(threading.enumerate()) - before
    assert own
    batches.close()  # type: ignore[attr-defined]
    for thread in own:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in own), "a thread goes on"


@pytest.mark.parametrize(
    ("options", "message", "fix"),
    [
        ({"shape": (6, 8, 12)}, "6 x 8 x 12 voxels do not fit into case case00 of 6 x 8 x 10", "--shape 6 8 12"),
        ({"shape": (9, 8)}, "images of 9 x 8 voxels do not fit", "--shape 6 9 8"),
        ({"shape": (6, 8, 10), "batch": 6}, "5 volumes in split 'train', batch 6", "training.batch=5"),
        ({"shape": (6, 8, 10), "batch": 2, "ranks": 3}, "5 volumes in split 'train', batch 6", "training.batch=5"),
        ({"shape": (6, 8, 10), "split": "val"}, "no cases in split 'val'; the folder holds 5", "--split 1 0 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_before_the_first_batch(
    folder: CaseFolder, options: dict[str, Any], message: str, fix: str
) -> None:
    with pytest.raises(DataInvalid) as caught:
        stream(folder, **{"window": WINDOW, "batch": 1, "seed": 0, **options})
    assert message in caught.value.what
    assert caught.value.reason == Reason.TOO_SMALL
    assert fix in str(caught.value.fix)


def test_crops_of_one_large_volume_make_a_batch(large: CaseFolder) -> None:
    assert images(8, large, shape=(4, 4, 4), batch=8, seed=0).shape == (8, 1, 4, 4, 4)


def test_the_folder_opens_as_it_was_written(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "cases", [(6, 8, 10)] * 3 + [(4, 4, 4)], "ttve")
    opened = CaseFolder.open(tmp_path / "cases")
    assert opened.cases == made.cases
    assert opened.digest == made.digest
    assert [len(opened.of(split)) for split in ("train", "val", "test", None)] == [2, 1, 1, 4]
    assert opened.spacing == (2, 1, 1)
    volume = opened.volume(opened.cases[3])
    assert volume.shape == (4, 4, 4)
    np.testing.assert_allclose(volume.spacing, (2, 1, 1))
    opened.verify()
    with pytest.raises(UsageFault, match="no such split"):
        opened.of("validation")


def test_mapped_voxels_cannot_be_written(folder: CaseFolder) -> None:
    with pytest.raises(ValueError, match="read-only"):
        folder.hu(folder.cases[0])[0, 0, 0] = 5


def damage_bytes(path: Path) -> None:
    voxels = path / "volumes" / "case01.npy"
    content = bytearray(voxels.read_bytes())
    content[-1] ^= 1
    voxels.write_bytes(content)


def test_a_flipped_bit_is_found_by_verify_and_changes_no_digest(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "cases", [(6, 8, 10)] * 3)
    damage_bytes(tmp_path / "cases")
    with pytest.raises(DataInvalid, match="1 of 3 cases changed: case01"):
        CaseFolder.open(tmp_path / "cases").verify()
    assert CaseFolder.open(tmp_path / "cases").digest == made.digest


def test_other_voxels_are_another_digest(tmp_path: Path) -> None:
    one, other = (make_folder(tmp_path / str(n), [(6, 8, 10)] * n) for n in (2, 3))
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "catalog.json").unlink(), "not a folder of prepared cases"),
        (lambda path: (path / "catalog.json").write_text("{"), "not JSON"),
        (lambda path: (path / "catalog.json").write_text("[]"), "a JSON object expected"),
        (lambda path: (path / "catalog.json").write_text('{"schema": 99}'), "schema 99, this version reads 1"),
        (lambda path: (path / "catalog.json").write_text('{"schema": 1, "cases": []}'), "the catalog is damaged"),
        (lambda path: (path / "volumes" / "case01.npy").unlink(), "in the catalog and not on disk"),
        (lambda path: (path / "volumes" / "case01.json").unlink(), "in the catalog and not on disk"),
        (lambda path: (path / "volumes" / "case01.npy").write_bytes(b"x" * 500), "1088 bytes expected, 500 found"),
        (lambda path: os.truncate(path / "volumes" / "case01.npy", 1087), "1088 bytes expected, 1087 found"),
    ],
)
def test_a_damaged_or_foreign_folder_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    make_folder(tmp_path / "cases", [(6, 8, 10)] * 3)
    damage(tmp_path / "cases")
    with pytest.raises(DataInvalid, match=message) as caught:
        CaseFolder.open(tmp_path / "cases")
    assert caught.value.fix
    assert caught.value.at


def test_voxels_of_another_shape_under_the_right_length_are_named(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "cases", [(6, 8, 10)])
    write_volume(tmp_path / "cases" / "volumes" / "case00.npy", np.zeros((8, 6, 10), dtype=np.int16))
    with pytest.raises(DataInvalid, match=r"int16 \(6, 8, 10\) expected, the file holds int16 \(8, 6, 10\)"):
        made.hu(made.cases[0])


def test_a_folder_left_half_done_says_so(tmp_path: Path) -> None:
    (tmp_path / "preparation.json").write_text("{}")
    with pytest.raises(DataInvalid, match="half prepared") as caught:
        CaseFolder.open(tmp_path)
    assert "again" in str(caught.value.fix)
    with pytest.raises(InputMissing):
        CaseFolder.open(tmp_path / "nothing")
