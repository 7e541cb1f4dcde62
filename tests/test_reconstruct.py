"""Radiographs to a CT: what is refused, what is warned of, and that the geometry of the pictures is kept."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tiny
from tomogen import formats
from tomogen.cases.prepare import prepare
from tomogen.errors import DataInvalid, InputMissing, RecipeMismatch, UsageFault
from tomogen.evaluate import run as evaluate_run
from tomogen.exposure import xray
from tomogen.formats.pictures.slices import comment
from tomogen.generation import xrays
from tomogen.generation.load import load
from tomogen.generation.reconstruct import RECORD, reconstruct
from tomogen.generation.sample import sample
from tomogen.phantoms.cohort import phantom
from tomogen.recipe import Recipe
from tomogen.run import Run
from tomogen.training.launch import train

SMALL = (
    "training.batch=1", "training.checkpoint_every=2", "training.preview_every=2",
    *(f"model.{name}=4" for name in ("width", "growth", "bottleneck", "decoder_width", "discriminator_width")),
    "model.halvings=2", "model.dense=[1,1]", "model.shape=[16,16,16]",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, cases of 16^3, a biplanar and a single-view run that have learnt next to nothing, radiographs."""
    folder = tmp_path_factory.mktemp("reconstruct")
    phantom(folder / "scans", n=3, shape=(64, 64, 64), seed=3, format="nii")
    prepare(folder / "scans", folder / "cases", shape=(16, 16, 16), spacing=22.0, split=(0.67, 0, 0.33), workers=1)
    alone = ('model.views=["pa"]', "model.connection_c=false")
    for name, more in (("two", ()), ("one", alone)):
        train("x2ct_light", folder / "cases", folder / name, set=(*SMALL, *more), steps=2, threads=1, device="cpu")
    scans = sorted((folder / "scans").rglob("*.nii.gz"))
    for number, scan in enumerate(scans[:2]):
        xray(scan, folder / f"shots{number}", size=128, format="png,dicom")
    return folder


def made(place: Path, out: Path, **given: str | Path) -> dict[str, float]:
    return dict(reconstruct(place / "two", out, device="cpu", **given).residuals)  # type: ignore[arg-type]


def shots(place: Path, number: int = 0, ending: str = ".png") -> dict[str, Path]:
    folder = place / f"shots{number}"
    return {"frontal": folder / f"pa{ending}", "lateral": folder / f"lateral{ending}"}


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.mha", "dicom"])
def test_two_radiographs_become_a_scan_in_any_format_with_its_residuals_beside(
    place: Path, tmp_path: Path, name: str
) -> None:
    done = reconstruct(place / "two", tmp_path / name, device="cpu", **shots(place))
    scan = formats.read(done.out)
    assert scan.shape == done.shape == (16, 16, 16)
    assert scan.spacing == pytest.approx((22.0, 22.0, 22.0))
    there = formats.read(sorted((place / "scans").rglob("*.nii.gz"))[0]).centre
    assert scan.centre == pytest.approx(there, abs=1e-3), "where the patient lies whose pictures were shot"
    assert done.isocentre == pytest.approx(there, abs=1e-6)
    assert scan.acquisition.synthetic
    assert -1000 <= scan.hu.min() < scan.hu.max() <= 500
    told = json.loads(done.record.read_text())
    assert told["residuals"] == done.residuals
    assert set(told["residuals"]) == {"pa", "lateral"}
    assert done.record.name == name + RECORD


def test_the_residual_is_that_of_the_scan_shot_again(place: Path, tmp_path: Path) -> None:
    loaded = load(place / "two", "cpu")
    hu = np.random.default_rng(0).integers(-1000, 400, (16, 16, 16)).astype(np.int16)
    own = xrays.shot(loaded, hu)
    assert max(xrays.residuals(loaded, hu, own).values()) == 0
    halved = xrays.residuals(loaded, hu, own / 2)
    assert halved["pa"] == pytest.approx(1, rel=1e-5)


def test_dicom_and_png_of_one_shot_give_nearly_the_same_scan(place: Path, tmp_path: Path) -> None:
    reconstruct(place / "two", tmp_path / "a.nii.gz", device="cpu", **shots(place))
    reconstruct(place / "two", tmp_path / "b.nii.gz", device="cpu", **shots(place, ending=".dcm"))
    a, b = (formats.read(tmp_path / name).hu.astype(float) for name in ("a.nii.gz", "b.nii.gz"))
    assert np.abs(a - b).mean() < 2


def test_pictures_lie_on_the_runs_detector_in_mm_whatever_they_were_shot_on(place: Path, tmp_path: Path) -> None:
    """The room of `xray` sees 500 mm, the run's 352 mm: a picture is cut to what the run saw in training."""
    from tomogen.generation import reconstruct as module

    loaded = load(place / "two", "cpu")
    scan = sorted((place / "scans").rglob("*.nii.gz"))[0]
    picture = module._seen(loaded, module._shot(shots(place)["frontal"], "frontal"), 64)
    volume = formats.read(scan).reorient()
    middle = volume.centre
    wide = np.where(picture.mean(axis=0) > 0.05)[0]
    body = np.where((volume.hu > -300).mean(axis=(0, 1)) > 0.02)[0]
    mm = (body.max() - body.min()) * volume.spacing[2]
    assert (wide.max() - wide.min()) * 352 / 64 == pytest.approx(mm, rel=0.12)
    assert np.isfinite(middle).all()


def test_the_order_of_views_matters_and_cannot_be_exchanged_silently(place: Path, tmp_path: Path) -> None:
    given = shots(place)
    with pytest.raises(DataInvalid, match="a lateral radiograph is given as the frontal one") as caught:
        made(place, tmp_path / "x.nii.gz", frontal=given["lateral"], lateral=given["frontal"])
    assert "--frontal" in str(caught.value.fix)
    for kind, path in given.items():
        Image.fromarray(np.array(Image.open(path))).save(tmp_path / f"{kind}.png")  # nothing says what they are
    with pytest.warns(UserWarning, match="each other's place"):
        made(place, tmp_path / "y.nii.gz", frontal=tmp_path / "lateral.png", lateral=tmp_path / "frontal.png")


def bare(path: Path, to: Path, view: str = "", mirrored: bool = False) -> Path:
    """A copy of a picture of `xray` that says it is of another view, or nothing of itself."""
    with Image.open(path) as image:
        text = image.info["tomogen"].split("; {")[0].replace("view lateral", f"view {view}") if view else ""
        pixels = np.array(image)
    Image.fromarray(pixels[:, ::-1] if mirrored else pixels).save(to, **comment("PNG", text))
    return to


def test_a_lateral_from_the_other_side_is_mirrored_and_warned_of(place: Path, tmp_path: Path) -> None:
    """Its front of the chest lies on the right; taken as it hangs, the scan would have its back in front."""
    given = shots(place)
    frontal = bare(given["frontal"], tmp_path / "pa.png", "pa")
    left = bare(given["lateral"], tmp_path / "left.png", "left")
    right = bare(given["lateral"], tmp_path / "right.png", "right", mirrored=True)
    made(place, tmp_path / "a.nii.gz", frontal=frontal, lateral=left)
    with pytest.warns(UserWarning, match=r"right\.png is a right lateral.* mirrored"):
        made(place, tmp_path / "b.nii.gz", frontal=frontal, lateral=right)
    a, b = (formats.read(tmp_path / name).hu for name in ("a.nii.gz", "b.nii.gz"))
    assert np.array_equal(a, b)


def test_computed_dicom_tells_its_magnification_without_its_geometry(place: Path, tmp_path: Path) -> None:
    from tomogen.generation import reconstruct as module

    scan = sorted((place / "scans").rglob("*.nii.gz"))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a beam that cuts the sides
        xray(scan, tmp_path / "near", size=128, geometry="x2ct", format="dicom")
    shutil.copy(tmp_path / "near" / "pa.dcm", tmp_path / "pa.dcm")
    here, there = (module._shot(path / "pa.dcm", "frontal").spacing for path in (tmp_path, tmp_path / "near"))
    assert there == pytest.approx((500 / 128 * 541 / 949,) * 2)
    assert here == pytest.approx(there, rel=1e-3)


STYLE = """# A CycleGAN of a few hundred weights.
[model]
name = "cyclegan"
shape = [32, 32]
width = 2
blocks = 1
discriminator_width = 2
pool = 3
"""


def test_a_style_is_put_on_real_radiographs_and_not_on_computed_ones(place: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(tiny.recipe(tmp_path, STYLE))
    style = Run.create(tmp_path / "style", recipe, {"spacing": [1, 1, 1]})
    torch.manual_seed(0)
    save_file(recipe.build().state_dict(), style.path / "weights.safetensors")
    real = {kind: bare(path, tmp_path / f"{kind}.png") for kind, path in shots(place).items()}
    styled = reconstruct(place / "two", tmp_path / "a.nii.gz", device="cpu", **real, style=style.path)
    assert styled.style == json.loads(styled.record.read_text())["style"] == style.identifier
    reconstruct(place / "two", tmp_path / "b.nii.gz", device="cpu", **real)
    a, b = (formats.read(tmp_path / name).hu.astype(int) for name in ("a.nii.gz", "b.nii.gz"))
    assert np.abs(a - b).mean() > 1
    with pytest.warns(UserWarning, match="--style is for real radiographs"):
        plain = reconstruct(place / "two", tmp_path / "c.nii.gz", device="cpu", **shots(place), style=style.path)
    assert plain.style is None


@pytest.mark.parametrize("ending", [".png", ".dcm"])
def test_pictures_of_xray_say_all_that_matters_wherever_they_are_moved(
    place: Path, tmp_path: Path, ending: str
) -> None:
    for kind, path in shots(place, ending=ending).items():
        shutil.copy(path, tmp_path / f"{kind}-renamed{ending}")
    moved = {kind: tmp_path / f"{kind}-renamed{ending}" for kind in ("frontal", "lateral")}
    first = reconstruct(place / "two", tmp_path / "a.mha", device="cpu", **shots(place))
    again = reconstruct(place / "two", tmp_path / "b.mha", device="cpu", **moved)
    assert again.residuals == pytest.approx(first.residuals, abs=0.002)
    assert again.isocentre == (first.isocentre if ending == ".png" else None), "DICOM does not tell it"


def test_inverted_pictures_without_their_text_are_known_by_the_geometry_beside(place: Path, tmp_path: Path) -> None:
    scan = sorted((place / "scans").rglob("*.nii.gz"))[0]
    xray(scan, tmp_path / "i", size=128, invert=True)
    for name in ("pa", "lateral"):
        bare(tmp_path / "i" / f"{name}.png", tmp_path / "i" / f"{name}.png")
    found = made(place, tmp_path / "x.nii.gz", frontal=tmp_path / "i/pa.png", lateral=tmp_path / "i/lateral.png")
    assert found == pytest.approx(made(place, tmp_path / "y.nii.gz", **shots(place)), abs=0.002)


def test_a_view_from_another_direction_than_the_runs_is_refused_by_its_name(place: Path, tmp_path: Path) -> None:
    scan = sorted((place / "scans").rglob("*.nii.gz"))[0]
    xray(scan, tmp_path / "v", size=128, angle=(45.0, 80.0), views="pa")
    frontal = tmp_path / "v" / "pa.png"
    with pytest.raises(DataInvalid, match=r"view angle\+45 was shot at 45 degrees"):
        made(place, tmp_path / "x.nii.gz", frontal=frontal, lateral=tmp_path / "v" / "angle+45.png")
    with pytest.warns(UserWarning, match=r"angle\+80\.png was shot at 80 degrees, the run learnt from 90"):
        made(place, tmp_path / "x.nii.gz", frontal=frontal, lateral=tmp_path / "v" / "angle+80.png")
    bare(tmp_path / "v" / "angle+45.png", tmp_path / "v" / "angle+45.png")
    with pytest.raises(DataInvalid, match=r"angle\+45\.png was shot at 45 degrees, the run learnt from 90"):
        made(place, tmp_path / "z.nii.gz", frontal=frontal, lateral=tmp_path / "v" / "angle+45.png")


def test_one_picture_given_twice_is_refused(place: Path, tmp_path: Path) -> None:
    frontal = bare(shots(place)["frontal"], tmp_path / "a.png")
    for lateral in (frontal, Path(shutil.copy(frontal, tmp_path / "b.png"))):
        with pytest.raises(DataInvalid, match=r"a\.png is given as both"):
            made(place, tmp_path / "x.nii.gz", frontal=frontal, lateral=lateral)


def test_the_picture_that_is_upside_down_is_named(place: Path, tmp_path: Path) -> None:
    """The frontal one, which alone tells; of a lateral one only together with it."""
    for kind, path in shots(place).items():
        bare(path, tmp_path / f"{kind}.png")
    with Image.open(tmp_path / "frontal.png") as image:
        Image.fromarray(np.array(image)[::-1]).save(tmp_path / "turned.png")
    for run, more in (("two", {"lateral": tmp_path / "lateral.png"}), ("one", {})):
        with pytest.raises(DataInvalid, match="the frontal view is upside down, or its bone is black") as caught:
            reconstruct(place / run, tmp_path / "x.mha", device="cpu", frontal=tmp_path / "turned.png", **more)
        assert caught.value.at == str(tmp_path / "turned.png")
        assert "turn turned.png" in str(caught.value.fix)
        assert "invert it" in str(caught.value.fix)


def test_a_scan_that_does_not_explain_its_pictures_is_warned_of_and_one_that_does_is_not() -> None:
    from tomogen.generation import reconstruct as module

    shot = module.Shot(Path("pa.png"), module.Radiograph(np.zeros((2, 2), np.float32)), "frontal")
    with pytest.warns(UserWarning, match=r"does not explain pa\.png \(residual 0\.95\)"):
        module._explained([shot], {"pa": 0.95})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module._explained([shot], {"pa": 0.45})


def test_pictures_of_one_shooting_are_not_doubted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tomogen.generation import reconstruct as module
    from tomogen.radiography.agreement import Agreement

    monkeypatch.setattr(module, "agree", lambda *_, **__: Agreement("doubtful", "they may not", 0.5, 0.5, 0.5))
    given = [module._shot(path, kind) for kind, path in shots(place).items()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module._agreeing(given)
    with pytest.warns(UserWarning, match=r"pa\.png, lateral\.png: they may not; look whether"):
        module._agreeing([given[0], module._shot(shots(place, 1)["lateral"], "lateral")])


def test_two_formats_of_one_name_lie_beside_each_other(place: Path, tmp_path: Path) -> None:
    for name in ("ct.nii.gz", "ct.mha"):
        made(place, tmp_path / name, **shots(place))
    assert {path.name for path in tmp_path.glob("*.json")} == {f"ct.nii.gz{RECORD}", f"ct.mha{RECORD}"}


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageFault, match=r"cannot write into .*file: not a directory"):
        reconstruct(tmp_path / "no run at all", tmp_path / "file" / "ct.mha")
    with pytest.raises(UsageFault, match="not a stream"):
        reconstruct(tmp_path / "no run at all", "-")


def test_spoilt_weights_give_no_scan(place: Path) -> None:
    loaded = load(place / "two", "cpu")
    with torch.no_grad():
        for weights in loaded.synthesizer.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(RecipeMismatch, match="NaN or infinity"):
        xrays.scan_of(loaded, np.zeros(loaded.synthesizer.condition_shape("xrays"), np.float32))


def test_views_upside_down_or_of_two_patients_are_refused(place: Path, tmp_path: Path) -> None:
    for kind, path in shots(place).items():
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / f"{kind}.png")
    with pytest.raises(DataInvalid, match="upside down"):
        made(place, tmp_path / "x.nii.gz", frontal=tmp_path / "frontal.png", lateral=tmp_path / "lateral.png")
    assert not (tmp_path / "x.nii.gz").exists()


@pytest.mark.parametrize(
    ("run", "given", "error", "message"),
    [
        ("two", {"frontal": "shots0/pa.png"}, UsageFault, "from 2 radiographs .pa, lateral.; the lateral one is not"),
        ("two", {}, UsageFault, "the frontal one is not given"),
        ("one", {"frontal": "shots0/pa.png", "lateral": "shots0/lateral.png"}, UsageFault, "takes pa alone"),
        ("two", {"frontal": "scans", "lateral": "shots0/lateral.png"}, DataInvalid, "a folder where one radiograph"),
        ("two", {"frontal": "shots0/nothing.png", "lateral": "shots0/lateral.png"}, InputMissing, "no such radiograph"),
    ],
)  # fmt: skip
def test_too_few_too_many_or_no_radiographs_are_refused(
    place: Path, tmp_path: Path, run: str, given: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        reconstruct(place / run, tmp_path / "x.nii.gz", device="cpu", **{k: place / v for k, v in given.items()})
    assert list(tmp_path.iterdir()) == []


def test_a_ct_given_as_a_radiograph_is_called_so(place: Path, tmp_path: Path) -> None:
    scan = sorted((place / "scans").rglob("*.nii.gz"))[0]
    with pytest.raises(DataInvalid, match="a CT given where a radiograph belongs"):
        made(place, tmp_path / "x.nii.gz", frontal=scan, lateral=shots(place)["lateral"])


def test_one_picture_with_spacing_and_one_without_cannot_be_compared(place: Path, tmp_path: Path) -> None:
    bare(shots(place)["lateral"], tmp_path / "lateral.png")
    with pytest.raises(DataInvalid, match="does not: their scales"):
        made(place, tmp_path / "x.nii.gz", frontal=shots(place)["frontal"], lateral=tmp_path / "lateral.png")


def test_another_beam_than_the_runs_is_warned_of(place: Path, tmp_path: Path) -> None:
    scan = sorted((place / "scans").rglob("*.nii.gz"))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a beam that cuts the sides
        xray(scan, tmp_path / "near", size=128, geometry="x2ct")
    with pytest.warns(UserWarning, match="source at 541 and detector at 949 mm; the run learnt from .* 1500 and 1800"):
        made(place, tmp_path / "x.nii.gz", frontal=tmp_path / "near" / "pa.png", lateral=tmp_path / "near/lateral.png")


def test_a_run_of_another_kind_and_an_output_in_the_way_are_refused(place: Path, tmp_path: Path) -> None:
    tiny.trained(tmp_path, "wgan", steps=1)
    with pytest.raises(RecipeMismatch, match="which does not reconstruct"):
        reconstruct(tmp_path / "wgan", tmp_path / "x.nii.gz", device="cpu", **shots(place))
    with pytest.raises(RecipeMismatch, match="--style takes a run of cyclegan"):
        made(place, tmp_path / "x.nii.gz", **shots(place), style=tmp_path / "wgan")
    made(place, tmp_path / "x.nii.gz", **shots(place))
    with pytest.raises(UsageFault, match="there already"):
        made(place, tmp_path / "x.nii.gz", **shots(place))
    before = formats.read(tmp_path / "x.nii.gz").hu
    made(place, tmp_path / "x.nii.gz", **shots(place), overwrite=True)  # type: ignore[arg-type]
    assert np.array_equal(formats.read(tmp_path / "x.nii.gz").hu, before), "dropout is off: the same scan again"


def test_a_run_that_starts_from_radiographs_makes_no_samples(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeMismatch, match="makes scans of xrays, not of noise") as caught:
        sample(place / "two", tmp_path / "samples")
    assert "tomogen reconstruct" in str(caught.value.fix)


def test_the_run_is_held_to_the_truth_with_the_mean_of_training_beside(place: Path, tmp_path: Path) -> None:
    found = evaluate_run(place / "two", place / "cases", out=tmp_path / "report", device="cpu")
    scores = found.scores
    assert {"made", "floor: blurred truth", "floor: mean of training"} <= set(scores.subjects)
    again, mean = (scores.get(subject, "reprojection").value for subject in ("made", "floor: mean of training"))
    assert 0 < mean < again, "a run that has learnt nothing explains less than the mean chest"
    assert scores.get("made", "psnr").cases.keys() == scores.get("floor: mean of training", "psnr").cases.keys()
    assert (tmp_path / "report" / "index.html").is_file()


def test_cases_of_other_voxels_are_no_test_of_the_run(place: Path, tmp_path: Path) -> None:
    prepare(place / "scans", tmp_path / "cases", shape=(16, 16, 16), spacing=20.0, split=(0.67, 0, 0.33), workers=1)
    with pytest.raises(DataInvalid, match="voxels of 20 x 20 x 20 mm, the run learnt from 22 x 22 x 22"):
        evaluate_run(place / "two", tmp_path / "cases", out=tmp_path / "report", device="cpu")


def test_another_number_of_views_is_refused_by_the_model_itself(place: Path) -> None:
    loaded = load(place / "two", "cpu")
    with pytest.raises(RecipeMismatch, match="the run takes"):
        xrays.scan_of(loaded, torch.zeros(1, 16, 16).numpy())


def test_the_2d_baseline_reconstructs_and_is_evaluated_too(place: Path, tmp_path: Path) -> None:
    small = [word for word in SMALL if "discriminator" not in word]
    more = ("model.geometry=chest", "model.field=scan")
    train("x2ct_2dcnn", place / "cases", tmp_path / "flat", set=(*small, *more), steps=1, threads=1, device="cpu")
    done = reconstruct(tmp_path / "flat", tmp_path / "x.nii.gz", frontal=shots(place)["frontal"], device="cpu")
    assert set(done.residuals) == {"pa"}
    found = evaluate_run(tmp_path / "flat", place / "cases", out=tmp_path / "report", device="cpu")
    assert found.scores.get("made", "reprojection").value > 0
