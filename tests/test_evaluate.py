"""`tomogen evaluate`: pairs, sets and runs from the command line to scores, report and exit code; and bad input."""

import html
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny
import tomogen
from tomogen import formats
from tomogen.cli.__main__ import main
from tomogen.errors import DataInvalid, UsageFault
from tomogen.evaluation.floors import MeanScan
from tomogen.evaluation.gather import gather
from tomogen.evaluation.requirement import Requirement
from tomogen.evaluation.scores import Scores
from tomogen.training.launch import train
from tomogen.volume import Volume, affine_of

SHAPE = (16, 20, 24)


def chest(seed: int, noise: float = 0.0, shift: float = 0.0) -> Volume:
    """Two lungs in a body in air, a little different for each seed."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j, -1 : 1 : SHAPE[2] * 1j]
    size = rng.uniform(0.8, 1.0)
    hu = np.where(y**2 + x**2 < 0.9 * size, 40.0, -1000.0)
    for side in (-0.4, 0.4):
        hu[z**2 + (y / 0.6) ** 2 + ((x - side) / 0.3) ** 2 < size] = -820
    hu[(y - 0.6) ** 2 + x**2 < 0.02] = 600
    hu += 20 * np.sin(rng.uniform(2, 4) * z + 3 * x) + shift + rng.normal(0, noise or 1e-9, SHAPE)
    return Volume(hu.round().astype(np.int16), affine_of((3.0, 2.0, 2.0), (0, 0, seed)))


def write(volumes: dict[str, Volume], folder: Path) -> Path:
    for name, volume in volumes.items():
        formats.write(volume, folder / f"{name}.nii.gz")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("evaluate")
    write({f"p{n}": chest(n) for n in range(3)}, place / "truth")
    write({f"p{n}": chest(n, noise=20, shift=10) for n in range(3)}, place / "made")
    write({f"p{n}": chest(n, noise=60, shift=40) for n in range(3)}, place / "input")
    write({f"q{n}": chest(n) for n in range(20, 26)}, place / "train")
    return place


def test_pairs_stand_between_their_floors(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--input", folders / "input", "--train", folders / "train", "--mask", "body", "--conventions", "standard")
    code, out, err = run(
        capsys, "evaluate", "pairs", folders / "truth", folders / "made", *flags, "--out", tmp_path / "r", "--json"
    )
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    assert told["schema"] == 1
    scores = Scores.read(tmp_path / "r" / "scores.json")
    mae = {subject: scores.get(subject, "mae").value for subject in scores.subjects}
    assert mae["made"] < mae["floor: input"] < mae["floor: mean of training"]
    assert mae["made"] == pytest.approx(17.5, abs=2)
    made = scores.get("made", "mae")
    assert made.interval is not None
    assert made.interval[0] <= made.value <= made.interval[1]
    assert made.definition.n == (3,)
    assert made.definition.mask == "body"
    assert set(made.cases) == {"p0", "p1", "p2"}
    page = (tmp_path / "r" / "index.html").read_text()
    assert "mean of training" in page


def test_the_mean_of_no_training_scans_is_refused() -> None:
    with pytest.raises(DataInvalid, match="no training scans"):
        MeanScan([])


def test_a_structure_has_its_contrast_and_its_own_error(folders: Path, tmp_path: Path) -> None:
    marks = {f"p{n}": Volume((chest(n).hu > 400).astype(np.int16), chest(n).affine) for n in range(3)}
    found = tomogen.evaluate.pairs(
        folders / "truth", folders / "made", structure=write(marks, tmp_path / "bone"), conventions="standard"
    )
    made = {score.definition.metric: score for score in found.scores.subjects["made"]}
    assert made["bias/structure"].value == pytest.approx(10, abs=3)
    assert made["bias/structure"].definition.mask.startswith("structure: bone, SHA-256 ")
    assert made["cnr/truth"].value > made["cnr/made"].value > 0


def test_masks_of_one_name_make_other_definitions(folders: Path, tmp_path: Path) -> None:
    found = []
    for low in (-900, -500):
        marks = {f"p{n}": Volume((chest(n).hu > low).astype(np.int16), chest(n).affine) for n in range(3)}
        mask = write(marks, tmp_path / str(low) / "m")
        scores = tomogen.evaluate.pairs(folders / "truth", folders / "made", mask=mask, conventions="standard").scores
        scores.table()
        found.append(scores.get("made", "mae"))
    with pytest.raises(DataInvalid, match=r"mask: given: m, SHA-256 .* against given: m, SHA-256"):
        found[0].compare(found[1])


def test_the_same_scans_enter_for_every_subject(folders: Path, tmp_path: Path) -> None:
    bone = {f"p{n}": (chest(n).hu > 400).astype(np.int16) for n in range(3)}
    marks = write({name: Volume(hu, chest(int(name[1])).affine) for name, hu in bone.items()}, tmp_path / "bone")
    even = {f"p{n}": chest(n, noise=20) for n in range(3)}
    even["p0"].hu[:, 7:] = np.where(bone["p0"] > 0, 600, 40)[:, 7:]  # nothing changes around the bone
    made = write(even, tmp_path / "made")
    scores = tomogen.evaluate.pairs(folders / "truth", made, structure=marks, conventions="standard").scores
    rows = {row.metric: row for row in scores.table()}
    score, floor = (rows["cnr/made"].scores[name] for name in ("made", "floor: blurred truth"))
    assert score is not None
    assert floor is not None
    assert score.definition.n == floor.definition.n == (2,)
    assert np.isnan(score.cases["p0"])
    assert floor.value == pytest.approx((floor.cases["p1"] + floor.cases["p2"]) / 2)
    assert score.note == "1 of 3 scans have no value"
    assert floor.note == "1 of 3 scans left out, where other subjects have no value"
    assert rows["mae"].definition.n == (3,)


def test_an_interval_keeps_to_what_the_metric_can_be(folders: Path, tmp_path: Path) -> None:
    made = write({"p0": chest(0, noise=1), "p1": chest(1, noise=1), "p2": chest(2, noise=300)}, tmp_path / "made")
    scores = tomogen.evaluate.pairs(folders / "truth", made, conventions="standard").scores
    for metric, low, high in (("mae", 0, np.inf), ("rmse", 0, np.inf), ("nmse", 0, np.inf), ("ssim", -1, 1)):
        score = scores.get("made", metric)
        assert score.interval is not None
        assert low <= score.interval[0] <= score.value <= score.interval[1] <= high


def test_training_scans_are_told_and_truths_among_them_too(folders: Path, tmp_path: Path) -> None:
    ways = [folders / "train", write({"a": chest(1), "b": chest(30)}, tmp_path / "leaky")]
    clean, leaky = (
        tomogen.evaluate.pairs(folders / "truth", folders / "made", train=way, conventions="standard").scores
        for way in ways
    )
    assert clean.facts["train"].startswith("train: 6 scans of 6 patients")
    assert "truth's grid" in clean.facts["train"]
    assert not any("training" in note for note in clean.notes)
    assert any("1 of 3 truths lie among the training scans (p1)" in note for note in leaky.notes)
    assert any("3 scans name no patient" in note for note in clean.notes)


def test_every_convention_is_told_beside_the_standard(folders: Path) -> None:
    found = tomogen.evaluate.pairs(folders / "truth" / "p0.nii.gz", folders / "made" / "p0.nii.gz")
    conventions = {score.definition.convention for score in found.scores.subjects["made"]}
    assert {
        "standard",
        "x2ct2019",
        "synthrad2023",
        "synthrad2025",
        "scikit_image",
        "monai",
        "torchmetrics",
    } <= conventions
    assert {score.definition.convention for score in found.scores.subjects["floor: blurred truth"]} == {"standard"}
    assert any("one patient" in note for note in found.scores.notes)
    assert (found.scores.facts["truth"], found.scores.facts["made"]) == ("truth/p0.nii.gz", "made/p0.nii.gz")
    assert all(score.interval is None for score in found.scores.subjects["made"])


def test_a_missed_requirement_is_exit_code_1(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ("evaluate", "pairs", folders / "truth", folders / "made", "--conventions", "standard")
    assert run(capsys, *pair, "--require", "mae<=100", "--require", "psnr>10")[0] == 0
    code, _, err = run(capsys, *pair, "--require", "mae<=1e-3")
    assert code == 1
    assert "warning: missed: mae<=1e-3: it is 1" in err


def test_a_requirement_of_no_score_names_near_ones(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ("evaluate", "pairs", folders / "truth", folders / "made", "--conventions", "x2ct2019")
    for text, near in (("maee<=1", "mae"), ("psnr-3d>1", "x2ct2019:psnr-3d")):
        code, _, err = run(capsys, *pair, "--require", text)
        assert code == 2
        assert "did you mean" in err
        assert near in err


def test_requirements_decide_where_sets_are_too_small_for_fid(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ("evaluate", "sets", folders / "train", folders / "made")
    assert run(capsys, *sets, "--require", "kid/volume<=100")[0] == 0
    assert run(capsys, *sets, "--require", "kid/volume<=-100")[0] == 1


@pytest.mark.parametrize("text", ["mae", "mae<=", "mae=3", "<=3", "mae<=three", "mae<=nan"])
def test_a_requirement_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageFault, match="no requirement"):
        Requirement.parse(text)


def test_a_requirement_may_name_a_convention() -> None:
    assert Requirement.parse("synthrad2025:psnr > 30") == Requirement(
        "synthrad2025:psnr > 30", "psnr", "synthrad2025", ">", 30.0
    )


def bad_pairs(folders: Path, place: Path) -> dict[str, tuple[tuple[object, ...], int, str]]:
    """Arguments, exit code and words, by what is wrong."""
    truth, made = folders / "truth", folders / "made"
    one = truth / "p0.nii.gz"
    shifted = Volume(chest(0).hu, affine_of((3.0, 2.0, 2.0), (40, 0, 0)))
    write({"p0": shifted}, place / "shifted")
    write({"p0": Volume(chest(0).hu, affine_of((3.0, 2.0, 2.0), (5000, 0, 0)))}, place / "away")
    write({"p0": chest(0).crop((0, 0, 0), (16, 20, 20))}, place / "narrow")
    write({"p0": chest(0), "p1": chest(1)}, place / "two")
    air = {f"p{n}": Volume((chest(n).hu < -900).astype(np.int16), chest(n).affine) for n in (0, 1)}
    write(air, place / "marks")
    (place / "empty").mkdir()
    nan = chest(0).hu.astype(np.float32)
    nan[3, 4, 5] = np.nan
    write({"p0": Volume(nan, chest(0).affine)}, place / "nan")
    write({"p0": Volume(np.full(SHAPE, 7, np.int16), chest(0).affine)}, place / "constant")
    return {
        "absent": ((truth, place / "absent"), 3, "no such file"),
        "empty": ((truth, place / "empty"), 3, "0 files"),
        "shape": (
            (one, place / "narrow"),
            4,
            f"16 x 20 x 24 voxels against 16 x 20 x 20\n  at: {place}/narrow/p0.nii.gz",
        ),
        "affine": ((one, place / "shifted"), 4, "40.0 mm apart"),
        "unpaired": ((truth, place / "two"), 4, "no made scan for p2"),
        "nan": ((one, place / "nan"), 4, "NaN"),
        "constant": ((one, place / "constant"), 4, "every voxel is 7"),
        "convention": ((truth, made, "--conventions", "synthrad2024"), 2, "no such convention 'synthrad2024'"),
        "mask": ((truth, made, "--mask", place / "marks"), 3, "no mask for p2"),
        "scan": ((truth, made, "--mask", truth), 4, "the mask holds values down to -10"),
        "apart": ((one, place / "away", "--resample"), 4, "share no voxel"),
    }


@pytest.mark.parametrize(
    "what",
    ["absent", "empty", "shape", "affine", "unpaired", "nan", "constant", "convention", "mask", "scan", "apart"],
)
def test_bad_pairs_are_told_in_three_lines(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    arguments, expected, words = bad_pairs(folders, tmp_path)[what]
    code, out, err = run(capsys, "evaluate", "pairs", *arguments, "--out", tmp_path / "report")
    assert (code, out) == (expected, ""), err
    assert words in err
    assert len([line for line in err.splitlines() if not line.startswith("evaluate: ")]) <= 3
    assert not (tmp_path / "report").exists()


def test_another_grid_is_resampled_on_request_and_that_is_recorded(folders: Path, tmp_path: Path) -> None:
    whole = chest(0)
    inner = write({"p0": whole.crop((2, 3, 4), (12, 14, 16))}, tmp_path / "inner")
    found = tomogen.evaluate.pairs(inner, folders / "truth" / "p0.nii.gz", resample=True, conventions="standard")
    score = found.scores.get("made", "mae")
    assert score.value == 0
    assert any("resampled" in note for note in found.scores.notes)
    straight = tomogen.evaluate.pairs(inner, inner, resample=True, conventions="standard").scores.get("made", "mae")
    assert straight.definition.preprocessing == ""
    with pytest.raises(DataInvalid, match=r"preprocessing: scans of another grid resampled .* against none"):
        score.compare(straight)


def test_voxels_that_a_made_scan_does_not_reach_are_not_scored(folders: Path, tmp_path: Path) -> None:
    made = write({f"p{n}": chest(n, shift=10).crop((0, 0, 3), (16, 20, 21)) for n in range(3)}, tmp_path / "narrow")
    bone = {f"p{n}": Volume((chest(n).hu > 400).astype(np.int16), chest(n).affine) for n in range(3)}
    found = tomogen.evaluate.pairs(
        folders / "truth",
        made,
        input=folders / "input",
        train=folders / "train",
        mask="body",
        structure=write(bone, tmp_path / "bone"),
        resample=True,
    )
    assert found.scores.get("made", "mae").value == pytest.approx(10, abs=1e-9)
    assert found.scores.get("made", "mae_no_mask", "synthrad2023").value == pytest.approx(10, abs=0.1)
    assert found.scores.get("made", "bias/structure").value == pytest.approx(10, abs=1e-9)
    assert sum("it reaches 88 % of the truth's voxels" in note for note in found.scores.notes) == 3
    found.scores.table()


def test_a_scan_that_hardly_reaches_the_truth_is_told_first_and_loud(folders: Path, tmp_path: Path) -> None:
    said = {}
    for mm in (4, 24):
        affine = chest(0).affine.copy()
        affine[0, 3] += mm  # of 48 mm
        made = write({"p0": Volume(chest(0).hu, affine)}, tmp_path / str(mm))
        found = tomogen.evaluate.pairs(folders / "truth" / "p0.nii.gz", made, resample=True, conventions="standard")
        said[mm] = [note for note in found.scores.notes if "resampled" in note]
    assert len(said[24]) == len(said[4]) == 1
    assert said[24][0].startswith(
        "p0: WARNING: only 50 % of the truth's voxels are scored, the made scan reaches no more"
    )
    assert "centres lie 24 mm apart" in said[24][0]
    assert "WARNING" not in said[4][0]
    assert "it reaches 92 % of the truth's voxels" in said[4][0]


def test_a_scan_may_be_named_as_seen_from_where_one_stands(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders / "truth")
    found = tomogen.evaluate.pairs("p0.nii.gz", "p0.nii.gz", conventions="standard")
    assert found.scores.get("made", "mae").value == 0
    assert [one.name for one in gather("p0.nii.gz")] == ["p0"]
    assert [one.name for one in gather(".")] == [one.name for one in gather(folders / "truth")] == ["p0", "p1", "p2"]


def test_the_page_tells_the_command_as_it_was_typed(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = (folders / "truth" / "p0.nii.gz", folders / "made" / "p0.nii.gz")
    flags = "--conventions standard --require mae<=100 --require psnr>1 --assume-hu --window-of -1000,400"
    flags += " --spacing 2,0.7,0.7"
    assert run(capsys, "evaluate", "pairs", *pair, *flags.split(), "--out", tmp_path, "--quiet")[0] == 0
    page = (tmp_path / "index.html").read_text()
    (line,) = [line for line in page.splitlines() if "$ tomogen evaluate" in line]
    typed = shlex.split(html.unescape(line.removeprefix("<pre>").removesuffix("</pre>")))
    assert typed[-len(flags.split()) :] == flags.split()
    assert "--quiet" not in typed


def test_a_report_is_not_written_over(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "evaluate",
        "pairs",
        folders / "truth",
        folders / "made",
        "--conventions",
        "standard",
        "--out",
        tmp_path,
    )
    assert run(capsys, *arguments)[0] == 0
    code, _, err = run(capsys, *arguments)
    assert (code, "there is a report already" in err) == (2, True)
    code, _, err = run(capsys, *arguments[:-1], folders / "made")
    assert (code, "the output folder is not empty" in err) == (2, True)
    assert run(capsys, *arguments, "--overwrite")[0] == 0


def test_sets_of_one_kind_are_nearer_than_noise(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = write({f"n{n}": chest(n, noise=600) for n in range(30, 34)}, tmp_path / "noisy")
    like = write({f"l{n}": chest(n) for n in range(40, 44)}, tmp_path / "like")
    values = []
    for made in (like, noisy):
        code, out, err = run(capsys, "evaluate", "sets", folders / "train", made, "--json")
        assert code == 4, err
        assert "FID has no value: 6 real and 4 made scans, 50 of each needed" in err
        scores = Scores.from_json(out)
        values.append(scores.get("made", "kid/volume").value)
        fid = scores.get("made", "fid/volume")
        assert np.isnan(fid.value)
        assert "50" in fid.note
    assert values[0] < values[1]


def test_sets_of_unlike_spacing_are_refused_or_resampled(folders: Path, tmp_path: Path) -> None:
    coarse = {f"c{n}": Volume(chest(n).hu, affine_of((3.5, 2.0, 2.0))) for n in range(3)}
    made = write(coarse, tmp_path / "coarse")
    with pytest.raises(tomogen.errors.DataInvalid, match=r"3.*3\.5"):
        tomogen.evaluate.sets(folders / "train", made)
    found = tomogen.evaluate.sets(folders / "train", made, resample=True)
    assert all("resampled to 3 x 2 x 2 mm" in s.definition.preprocessing for s in found.scores.subjects["made"])


def test_weights_of_another_hash_or_in_a_pickle_are_refused(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "net.py"
    module.write_text(
        "import torch\nDIMS = 3\nWINDOW = (-1000, 1000)\n\n\ndef build():\n"
        "    return torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, bias=False), torch.nn.AdaptiveAvgPool3d(1),"
        " torch.nn.Flatten())\n"
    )
    weights = np.random.default_rng(0).normal(size=(4, 1, 3, 3, 3)).astype(np.float32)
    save_file({"0.weight": weights}, tmp_path / "net.safetensors")
    own = ("evaluate", "sets", folders / "train", folders / "made", "--network", module, "--json")
    code, out, err = run(capsys, *own, "--weights", tmp_path / "net.safetensors")
    assert code == 4, err
    assert "net" in Scores.from_json(out).get("made", "kid/volume").definition.features
    code, _, err = run(capsys, *own, "--weights", tmp_path / "net.safetensors", "--sha256", "0" * 64)
    assert (code, "0" * 64 in err) == (5, True)
    (tmp_path / "net.pt").write_bytes(b"PK\x03\x04pickle")
    code, _, err = run(capsys, *own, "--weights", tmp_path / "net.pt")
    assert (code, "pickle" in err) == (5, True)


def test_a_run_is_scored_with_its_floors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = tiny.trained(tmp_path, "run", set=[], steps=2).run
    code, out, err = run(capsys, "evaluate", "run", trained, tmp_path / "cases", "--n", "4", "--json")
    assert code == 0, err
    scores = Scores.from_json(out)
    assert {"made", "floor: real against real", "floor: untrained model"} <= set(scores.subjects)
    assert any("trained on" in note for note in scores.notes)
    assert (Path(trained) / "report" / "index.html").is_file()
    assert (Path(trained) / "report" / "scores.json").is_file()
    other = tiny.cases(tmp_path / "other", count=4)
    strange = tomogen.evaluate.run(trained, other, n=2, out=tmp_path / "strange")
    assert any("not the cases that the run was prepared with" in note for note in strange.scores.notes)
    again = tomogen.evaluate.run(trained, tmp_path / "cases", n=4, out=tmp_path / "again")
    assert again.scores.get("made", "kid/volume").value == scores.get("made", "kid/volume").value


def test_an_autoencoder_is_also_held_to_the_scans_it_reconstructs(tmp_path: Path) -> None:
    cases = tiny.cases(tmp_path / "cases", count=4, size=16)
    sizes = ["model.shape=[16,16,16]", "model.doublings=1", "model.width=4", "model.latent=2"]
    few, many = (
        train("vae3d_light", cases, tmp_path / str(steps), set=sizes, steps=steps, threads=1, device="cpu").run
        for steps in (1, 40)
    )
    found = [tomogen.evaluate.run(trained, cases, n=2) for trained in (few, many)]
    untrained, learnt = (one.scores.get("reconstructed", "psnr").value for one in found)
    assert learnt > untrained + 1
    assert found[0].scores.get("floor: blurred truth", "psnr").value > learnt
    assert "kid/volume" in {score.definition.metric for score in found[0].scores.subjects["made"]}
