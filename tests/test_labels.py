"""Labels of cases: classes follow the CSV, cases go by the scans they were made of, and a run knows its classes."""

import json
from pathlib import Path

import numpy as np
import pytest

import tiny
from tomogen import formats
from tomogen.cases.folder import CaseFolder
from tomogen.cases.labels import Labels
from tomogen.cases.prepare import prepare
from tomogen.cases.scan import Finding
from tomogen.errors import DataInvalid, InputMissing, RecipeMismatch, UsageFault
from tomogen.generation.sample import sample
from tomogen.run import Run
from tomogen.volume import Volume, affine_of

TINY = """# A style-based GAN of a few hundred weights.
[model]
name = "stylegan2"
shape = [8, 8]
doublings = 1
width = 4
latent = 4
mapping = 2
group = 2

[training]
steps = 2
batch = 4
checkpoint_every = 1
preview_every = 2
"""
ROWS = "\n".join(["case,label", *[f"patient-{n:04d},{('healthy', 'ill')[n % 2]}" for n in range(6)]]) + "\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with cases, a recipe that leaves its classes open, and labels."""
    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path, TINY)
    (tmp_path / "labels.csv").write_text(ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_classes_follow_the_labels_and_the_run_says_so(place: Path) -> None:
    run = Run.open(tiny.trained(place, "run", set=["data.labels=labels.csv"]).run)
    assert run.recipe.config.classes == 2
    assert run.data["labels"] == ["healthy", "ill"]
    written = (run.path / "recipe.toml").read_text()
    assert "classes = 2  # classes of labels.csv\n" in written
    assert f'labels = "{place / "labels.csv"}"  # --set data.labels=labels.csv' in written


def test_a_class_is_sampled_by_its_name_without_the_csv(place: Path) -> None:
    run = tiny.trained(place, "run", set=["data.labels=labels.csv"]).run
    (place / "labels.csv").unlink()
    assert sample(run, place / "ill", label="ill", device="cpu").knobs == {"label": "ill"}
    with pytest.raises(UsageFault, match="classes: healthy, ill"):
        sample(run, place / "sick", label="sick", device="cpu")


@pytest.mark.parametrize("classes", [0, 3])
def test_classes_that_are_asked_for_and_are_others_are_an_error(place: Path, classes: int) -> None:
    with pytest.raises(RecipeMismatch, match=f"2 classes .healthy, ill., the model {classes}") as caught:
        tiny.trained(place, "run", set=["data.labels=labels.csv", f"model.classes={classes}"])
    assert caught.value.fix == "--set model.classes=2"
    assert not (place / "run").exists()


def test_a_recipe_that_says_no_classes_gives_way_to_labels(place: Path) -> None:
    tiny.recipe(place, TINY.replace("group = 2", "group = 2\nclasses = 0"))
    run = Run.open(tiny.trained(place, "run", set=["data.labels=labels.csv"]).run)
    assert run.recipe.config.classes == 2


def test_labels_for_a_model_without_classes_name_the_models_that_have(place: Path) -> None:
    tiny.recipe(place)
    with pytest.raises(RecipeMismatch, match="`labels`: wgan has no classes; models that have: stylegan2") as caught:
        tiny.trained(place, "run", set=["data.labels=labels.csv"])
    assert caught.value.at == "--set data.labels=labels.csv"


@pytest.mark.parametrize("text", ["", "case,label\n", "case,label\npatient-0000,ill\npatient-0001,ill\n"])
def test_empty_and_one_class_labels_start_no_run(place: Path, text: str) -> None:
    (place / "labels.csv").write_text(text)
    with pytest.raises(DataInvalid):
        tiny.trained(place, "run", set=["data.labels=labels.csv"])
    assert not (place / "run").exists()


def test_labels_that_are_not_there_start_no_run(place: Path) -> None:
    with pytest.raises(InputMissing, match="no labels"):
        tiny.trained(place, "run", set=["data.labels=nowhere.csv"])


# ---- resuming ----


def test_a_run_is_resumed_from_another_folder_and_with_its_labels_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny.trained(place, "whole", set=["data.labels=labels.csv"])
    tiny.trained(place, "parts", steps=1, set=["data.labels=labels.csv"])
    (place / "below").mkdir()
    monkeypatch.chdir(place / "below")
    (place / "labels.csv").rename(place / "below" / "moved.csv")
    parts = tiny.trained(place, "parts", set=["data.labels=moved.csv"], resume=True)
    assert parts.sha256 == whole.sha256


@pytest.mark.parametrize(
    "text", [ROWS.replace("ill", "sick"), ROWS.replace("0001,ill", "0001,healthy")], ids=["names", "classes"]
)
def test_a_run_is_not_resumed_with_labels_that_say_something_else(place: Path, text: str) -> None:
    tiny.trained(place, "run", steps=1, set=["data.labels=labels.csv"])
    (place / "labels.csv").write_text(text)
    with pytest.raises(RecipeMismatch, match="what lies beside them"):
        tiny.trained(place, "run", set=["data.labels=labels.csv"], resume=True)


def test_a_run_with_labels_is_not_resumed_without(place: Path) -> None:
    tiny.trained(place, "run", steps=1, set=["data.labels=labels.csv"])
    with pytest.raises(RecipeMismatch, match=r"model\.classes: 2 -> 0"):
        tiny.trained(place, "run", resume=True)


# ---- by path ----


def body(number: int) -> Volume:
    """A ball of 100 HU, or 50 more for each number before, with some noise, in air."""
    k, j, i = np.mgrid[-1:1:8j, -1:1:16j, -1:1:16j]
    hu = np.where(k**2 + j**2 + i**2 < 0.7, 100 + 50 * number, -1000)
    noise = np.random.default_rng(number).integers(-9, 10, hu.shape)
    return Volume((hu + noise).astype(np.int16), affine_of((3.0, 2.0, 2.0)))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scans under names that only their owner knows, in two formats, and the cases prepared from them."""
    root = tmp_path_factory.mktemp("scans")
    for number, (name, ending) in enumerate(
        [("well/anna", ".nii.gz"), ("well/bert", ""), ("ill/carl", ".nii.gz"), ("ill/dora", ""), ("ill/emil", "")]
    ):
        path = root / "hospital" / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        formats.write(body(number), path)
    prepare(root / "hospital", root / "cases", shape=(8, 16, 16), split=(1, 0, 0), body_mask=False, workers=1)
    return root


def by_path(scans: Path, text: str, folder: str = "hospital") -> Labels:
    path = scans / folder / "labels.csv"
    path.write_text("path,label\n" + text)
    return Labels.read(path).among(CaseFolder.open(scans / "cases"))


def truth(scans: Path) -> dict[str, int]:
    """Which case is of which body, by its HU."""
    folder = CaseFolder.open(scans / "cases")
    return {
        case.id: round((float(np.median(folder.hu(case)[folder.hu(case) > 0])) - 100) / 50) for case in folder.cases
    }


def test_cases_go_by_the_folders_of_their_scans(scans: Path) -> None:
    labels = by_path(scans, "well,healthy\nill,sick\n")
    assert labels.of == {case: "healthy" if number < 2 else "sick" for case, number in truth(scans).items()}
    labels.fit(CaseFolder.open(scans / "cases"), "train")


def test_the_most_exact_path_counts(scans: Path) -> None:
    labels = by_path(scans, ".,sick\nwell,healthy\nwell/bert,odd\nill/carl.nii.gz,odd\n")
    expected = ["healthy", "odd", "odd", "sick", "sick"]
    assert labels.of == {case: expected[number] for case, number in truth(scans).items()}


def test_paths_may_be_absolute_or_as_seen_from_here(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = by_path(scans, "well,healthy\nill,sick\n").of
    assert by_path(scans, f"{scans}/hospital/well,healthy\n{scans}/hospital/ill,sick\n", "cases/../").of == seen
    monkeypatch.chdir(scans / "hospital")
    assert by_path(scans, "well,healthy\nill,sick\n", "cases/../").of == seen


def test_scans_are_known_by_place_where_they_were_read_and_elsewhere_by_their_voxels(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = by_path(scans, "well,healthy\nill,sick\n").of
    read: list[Path] = []
    once = Finding.read
    monkeypatch.setattr(Finding, "read", lambda self: read.append(self.path) or once(self))
    by_path(scans, "well,healthy\nill,sick\n")
    assert read == []
    for name in ("well", "ill"):
        (tmp_path / "moved" / name).mkdir(parents=True)
        for number, scan in enumerate(sorted((scans / "hospital" / name).iterdir())):
            formats.write(formats.read(scan), tmp_path / "moved" / name / f"{number}.nrrd")
    path = tmp_path / "moved" / "labels.csv"
    path.write_text("path,label\nwell,healthy\nill,sick\n")
    assert Labels.read(path).among(CaseFolder.open(scans / "cases")).of == seen
    assert len(read) == 5


def test_scans_that_were_prepared_as_seen_from_here_are_known_by_place(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scans)
    prepare("hospital/well", tmp_path / "cases", shape=(8, 16, 16), split=(1, 0, 0), body_mask=False, workers=1)
    monkeypatch.setattr(Finding, "read", None)
    path = scans / "labels.csv"
    path.write_text("path,label\nhospital/well/anna.nii.gz,a\nhospital/well/bert,b\n")
    assert sorted(Labels.read(path).among(CaseFolder.open(tmp_path / "cases")).of.values()) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("well,a\nill,b\nwell/otto,a\n", "1 paths hold no scan that cases was prepared from: well/otto"),
        ("well,a\nnowhere,b\n", "1 paths hold no scan that cases was prepared from: nowhere"),
        ("well/anna.nii.gz,a\nwell/bert,a\nwell,b\n", "no scan is 'b': more exact paths say otherwise"),
    ],
)
def test_a_path_without_a_case_is_named(scans: Path, text: str, message: str) -> None:
    with pytest.raises(DataInvalid) as caught:
        by_path(scans, text)
    assert caught.value.what == message
    assert caught.value.fix


def test_a_scan_without_a_label_is_missed(scans: Path) -> None:
    with pytest.raises(DataInvalid, match="2 of 5 cases in split 'train' have no label"):
        by_path(scans, "well/anna.nii.gz,a\nill/carl.nii.gz,a\nill/dora,b\n").fit(
            CaseFolder.open(scans / "cases"), "train"
        )


def test_two_paths_of_one_scan_agree(scans: Path, tmp_path: Path) -> None:
    volume = body(7)
    for name in ("one", "two", "other"):
        formats.write(body(8) if name == "other" else volume, tmp_path / f"{name}.nii.gz")
    prepare(tmp_path, tmp_path.with_name("twins"), shape=(8, 16, 16), split=(1, 0, 0), body_mask=False, workers=1)
    folder = CaseFolder.open(tmp_path.with_name("twins"))
    for second, message in (("a", None), ("b", "two paths hold the scan of")):
        path = tmp_path / "labels.csv"
        path.write_text(f"path,label\none.nii.gz,a\ntwo.nii.gz,{second}\nother.nii.gz,b\n")
        if message is None:
            assert sorted(Labels.read(path).among(folder).of.values()) == ["a", "b"]
        else:
            with pytest.raises(DataInvalid, match=message):
                Labels.read(path).among(folder)


def test_case_and_path_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("case,path,label\na,b,c\n")
    with pytest.raises(DataInvalid, match="both `case` and `path`"):
        Labels.read(tmp_path / "labels.csv")


def test_names_that_are_none_of_the_catalog_lead_to_the_column_path(scans: Path) -> None:
    path = scans / "labels.csv"
    path.write_text("case,label\nanna,a\nbert,b\n")
    with pytest.raises(DataInvalid, match="2 names are of no case in cases: anna, bert") as caught:
        Labels.read(path).fit(CaseFolder.open(scans / "cases"), "train")
    assert "path,label" in str(caught.value.fix)


def test_a_run_with_labels_by_path_holds_no_name_of_a_scan(scans: Path, tmp_path: Path) -> None:
    tiny.recipe(tmp_path, TINY)
    (scans / "hospital" / "labels.csv").write_text("path,label\nwell,healthy\nill/carl.nii.gz,sick\nill,sick\n")
    (tmp_path / "cases").symlink_to(scans / "cases")
    run = tiny.trained(tmp_path, "run", set=[f"data.labels={scans}/hospital/labels.csv"]).run
    assert json.loads((run / "data.json").read_text())["labels"] == ["healthy", "sick"]
    for file in run.rglob("*"):
        if file.is_file():
            assert not any(name in file.read_bytes() for name in (b"carl", b"anna", b"dora")), file
