"""Patients: scans of one stay together, whatever the CSV, the headers and the order of the scans say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomogen.cases.split import Owner, group, owner, pseudonyms, read_patients, shares, split_patients
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault

names = st.frozensets(st.sampled_from("abcdefgh"), max_size=2)
voxels = st.sampled_from([f"{number:02x}" for number in range(12)])
owners = st.lists(st.builds(Owner, voxels, names), max_size=14)
fractions = st.sampled_from([(0.8, 0.1, 0.1), (1, 0, 0), (0.5, 0.5, 0), (0.34, 0.33, 0.33), (0.7, 0, 0.3)])


def split_of(scans: list[Owner], shares: tuple[float, float, float], seed: int = 0) -> list[str]:
    """The split of every scan."""
    groups = group(scans)
    by_group = split_patients(groups, scans, shares, seed)
    found = [""] * len(scans)
    for members, split in zip(groups, by_group, strict=True):
        for index in members:
            found[index] = split
    return found


@given(scans=owners, fractions=fractions, seed=st.integers(0, 5))
def test_scans_that_share_a_name_or_their_voxels_are_never_in_two_splits(
    scans: list[Owner], fractions: tuple[float, float, float], seed: int
) -> None:
    splits = split_of(scans, fractions, seed)
    for one, here in zip(scans, splits, strict=True):
        for other, there in zip(scans, splits, strict=True):
            if one.voxels == other.voxels or one.names & other.names:
                assert here == there


@given(scans=owners)
def test_every_scan_has_one_patient_and_strangers_are_not_joined(scans: list[Owner]) -> None:
    groups = group(scans)
    assert sorted(index for members in groups for index in members) == list(range(len(scans)))
    for members in groups:
        marks = [{scans[index].voxels, *scans[index].names} for index in members]
        reached = marks.pop(0)
        while joined := [mark for mark in marks if mark & reached]:
            reached |= joined[0]
            marks.remove(joined[0])
        assert not marks


@given(scans=owners, seed=st.integers(0, 3), data=st.data())
def test_the_order_of_the_scans_changes_nothing(scans: list[Owner], seed: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(scans))))
    shuffled = split_of([scans[index] for index in order], (0.6, 0.2, 0.2), seed)
    assert [shuffled[order.index(index)] for index in range(len(scans))] == split_of(scans, (0.6, 0.2, 0.2), seed)


@given(count=st.integers(0, 300), fractions=fractions)
def test_shares_are_the_nearest_whole_numbers_and_none_is_forgotten(
    count: int, fractions: tuple[float, float, float]
) -> None:
    found = shares(count, fractions)
    wanted = sum(fraction > 0 for fraction in fractions)
    assert sum(found) == count
    for number, fraction in zip(found, fractions, strict=True):
        assert (number > 0) == (fraction > 0) or count < wanted
        assert abs(number - count * fraction) < 2


@pytest.mark.parametrize(
    ("count", "fractions", "expected"),
    [
        (7, (0.8, 0.1, 0.1), [5, 1, 1]),
        (7, (1, 0, 0), [7, 0, 0]),
        (3, (0.8, 0.1, 0.1), [1, 1, 1]),
        (2, (0.8, 0.1, 0.1), [1, 1, 0]),
        (1, (0.8, 0.0, 0.2), [1, 0, 0]),
        (100, (0.8, 0.1, 0.1), [80, 10, 10]),
    ],
)
def test_small_cohorts_are_shared_as_one_would(
    count: int, fractions: tuple[float, float, float], expected: list[int]
) -> None:
    assert shares(count, fractions) == expected


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.3, 0.1), (1.2, -0.1, -0.1), (float("nan"), 0, 1)])
def test_fractions_that_are_no_whole_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageFault, match="add up to 1"):
        shares(5, fractions)


def test_adding_a_patient_moves_only_patients_next_to_a_cut() -> None:
    scans = [Owner(f"{number * 7919 % 1000:04d}") for number in range(60)]
    before = split_of(scans, (0.8, 0.1, 0.1))
    for number in range(20):
        after = split_of([*scans, Owner(f"new{number}")], (0.8, 0.1, 0.1))[:-1]
        assert sum(a != b for a, b in zip(before, after, strict=True)) <= 2


def test_another_seed_is_another_split() -> None:
    scans = [Owner(f"{number:04d}") for number in range(30)]
    assert split_of(scans, (0.8, 0.1, 0.1), 0) != split_of(scans, (0.8, 0.1, 0.1), 1)


def test_a_split_that_the_csv_gives_holds_and_one_patient_in_two_is_a_leak() -> None:
    fixed = [Owner("a", frozenset("p"), "test", (2,)), Owner("b", frozenset("p")), Owner("c", frozenset("q"))]
    assert split_of(fixed, (1, 0, 0)) == ["test", "test", "train"]
    with pytest.raises(DataInvalid, match="leak: one patient in test and train, by lines 2, 5") as caught:
        split_of([*fixed, Owner("d", frozenset("p"), "train", (5,))], (1, 0, 0))
    assert caught.value.reason == Reason.LEAK
    assert "p" not in caught.value.what.split()


def test_equal_voxels_under_two_names_in_two_splits_are_a_leak() -> None:
    with pytest.raises(DataInvalid, match="leak"):
        split_of([Owner("a", frozenset("p"), "test", (2,)), Owner("a", frozenset("q"), "train", (3,))], (1, 0, 0))


def test_pseudonyms_are_numbers_in_the_order_of_the_voxels() -> None:
    scans = [Owner("bb", frozenset(["Zoe"])), Owner("aa", frozenset(["Adam"])), Owner("cc", frozenset(["Adam"]))]
    assert group(scans) == [[1, 2], [0]]
    assert pseudonyms(2) == ["patient-0001", "patient-0002"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("scans/a/x.dcm", "scans/a/y.dcm", "scans/b.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("place", ["scans/a", "a", "{root}/scans/a", "scans/a/x.dcm", "scans"])
def test_paths_are_seen_from_the_csv_from_the_source_or_absolute(tree: Path, place: str) -> None:
    (tree / "patients.csv").write_text(f"path,patient\n{place.format(root=tree)},P1\n")
    named = read_patients(tree / "patients.csv", [tree / "scans"])
    assert owner([tree / "scans/a/x.dcm"], "header", named, "v").names == {"P1"}


def test_the_most_exact_line_speaks_then_the_header_then_nobody(tree: Path) -> None:
    (tree / "patients.csv").write_text("path,patient,split\nscans/a,P1,\nscans/a/x.dcm,P2,test\n")
    named = read_patients(tree / "patients.csv", [tree])
    assert owner([tree / "scans/a/x.dcm"], "H", named, "v") == Owner("v", frozenset(["P2"]), "test", (3,))
    assert owner([tree / "scans/a/y.dcm"], "H", named, "v").names == {"P1"}
    assert owner([tree / "scans/b.nii"], " H ", named, "v").names == {"H"}
    assert owner([tree / "scans/b.nii"], " ", named, "v").names == frozenset()
    assert owner([tree / "scans/b.nii"], None, named, "v").names == frozenset()


def test_a_series_whose_files_are_given_to_two_patients_joins_them(tree: Path) -> None:
    (tree / "patients.csv").write_text("path,patient\nscans/a/x.dcm,P1\nscans/a/y.dcm,P2\n")
    named = read_patients(tree / "patients.csv", [tree])
    both = owner([tree / "scans/a/x.dcm", tree / "scans/a/y.dcm"], None, named, "v")
    assert both.names == {"P1", "P2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("file,patient\na,b\n", "first line"),
        ("path,patient\nscans/a,\n", "line 2 lacks"),
        ("path,patient,split\nscans/a,P,validation\n", "line 2 asks for a split"),
    ],
)
def test_a_csv_that_says_nothing_clear_is_refused(tree: Path, text: str, message: str) -> None:
    (tree / "patients.csv").write_text(text)
    with pytest.raises(DataInvalid, match=message):
        read_patients(tree / "patients.csv", [tree])


def test_a_csv_that_is_no_text_or_not_there_is_named(tree: Path) -> None:
    (tree / "patients.csv").write_bytes(b"path,patient\n\xff\xfe\x00,x\n")
    with pytest.raises(DataInvalid, match="not a CSV in UTF-8"):
        read_patients(tree / "patients.csv", [tree])
    with pytest.raises(InputMissing, match="no such CSV"):
        read_patients(tree / "nothing.csv", [tree])
