"""Standard metrics against truth: published values, closed forms, and what cannot be scored."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomogen import catalog
from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.metrics import cnr, error, ms_ssim, nmse, psnr, ssim
from tomogen.evaluation.pair import HU, Metric, Pair
from tomogen.evaluation.tissue import TISSUES

STANDARD = [catalog.load("evaluation.metrics", name) for name in catalog.names("evaluation.metrics")]
CASES = ["small_error", "large_error", "constant_shift", "blurred", "identical", "out_of_range", "translated"]


def values(metric: Metric, pair: Pair) -> dict[str, float]:
    return {reading.definition.metric: reading.value for reading in metric.measure(pair)}


def definitions(metric: Metric, pair: Pair) -> dict[str, Definition]:
    return {reading.definition.metric: reading.definition for reading in metric.measure(pair)}


def scan(shape: tuple[int, ...] = (14, 16, 20), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


@pytest.fixture(scope="session")
def reference(ctdata: Path) -> Path:
    folder = ctdata.parent / "reference" / "scores"
    if not folder.is_dir():
        pytest.skip(f"no reference values at {folder}")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_published_values_are_met(reference: Path, case: str) -> None:
    told = json.loads((reference / "values.json").read_text())["cases"][case]
    stored = np.load(reference / "volumes.npz")
    truth, made = stored[told["_check"]["truth"]], stored[f"pred_{case}"]
    mask = stored[told["_check"]["mask"]] > 0
    whole, masked = Pair(truth, made), Pair(truth, made, mask, "body")
    plain = told["plain_hu"]
    expected = {
        "mae": plain["mae"], "rmse": plain["rmse"], "bias": plain["mean_error"],
        "psnr": float(told["psnr_definitions"]["clip4024_peak4024"]),
        "ssim": told["skimage"]["ssim_gauss1.5_clip4024"],
        "ms_ssim": told["wang2003_own"]["gauss11_3scales_clip4024"]["ms_ssim"],
    }  # fmt: skip
    found = {name: value for metric in STANDARD for name, value in values(metric, whole).items()}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    assert found["ssim"] == pytest.approx(told["wang2004_own_3d"]["ssim_gauss11_valid_clip4024"], rel=1e-12)
    found = values(error, masked) | values(psnr, masked)
    assert found["mae"] == pytest.approx(plain["mae_in_mask"], rel=1e-12)
    assert found["rmse"] == pytest.approx(math.sqrt(plain["mse_in_mask"]), rel=1e-12)
    assert found["bias"] == pytest.approx(plain["mean_error_in_mask"], rel=1e-12)
    assert found["psnr"] == pytest.approx(float(told["psnr_definitions"]["clip4024_peak4024_in_mask"]), rel=1e-12)


def test_ms_ssim_of_five_scales_has_the_luminance_at_the_coarsest_only() -> None:
    # The product of the published definition, each term by its own: a constant shift changes luminance alone.
    truth = np.random.default_rng(0).integers(-250, 250, (176, 178, 180), dtype=np.int16)
    pair = Pair(truth, truth + np.int16(100))
    (found,) = ms_ssim.measure(pair)
    assert found.definition.parameters["scales"] == 5
    coarse = (truth + 1024.0)[:176, :176, :176].reshape(11, 16, 11, 16, 11, 16).mean(axis=(1, 3, 5))
    weights = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    weights /= weights.sum()
    mean = np.einsum("ijk,i,j,k->", coarse, weights, weights, weights)
    c1 = 40.24**2
    luminance = (2 * mean * (mean + 100) + c1) / (mean**2 + (mean + 100) ** 2 + c1)
    assert found.value == pytest.approx(luminance**0.1333, rel=1e-9)


@pytest.mark.parametrize(
    ("depth", "scales"), [(11, 1), (21, 1), (22, 2), (43, 2), (44, 3), (87, 3), (88, 4), (175, 4), (176, 5), (900, 5)]
)
def test_as_many_scales_as_fit(depth: int, scales: int) -> None:
    assert ms_ssim.fitting((1000, 2000, depth)) == scales


def test_a_number_of_scales_is_part_of_the_definition() -> None:
    thick, thin = (Pair(scan(shape), scan(shape)) for shape in ((22, 22, 22), (21, 22, 22)))
    assert definitions(ms_ssim, thick)["ms_ssim"].differences(definitions(ms_ssim, thin)["ms_ssim"])


def test_one_scale_of_ms_ssim_is_ssim() -> None:
    pair = Pair(scan(), scan() // 2)
    assert values(ms_ssim, pair)["ms_ssim"] == pytest.approx(values(ssim, pair)["ssim"], rel=1e-12)


@given(value=st.integers(-1000, 2000), shift=st.integers(-900, 900))
@settings(max_examples=20)
def test_a_constant_shift_has_closed_forms(value: int, shift: int) -> None:
    value, other = max(value, -1000), int(np.clip(value + shift, -1024, 3000))
    shift = other - value
    shape = (11, 12, 13)
    pair = Pair(np.full(shape, value, np.int16), np.full(shape, other, np.int16))
    found = {name: one for metric in STANDARD for name, one in values(metric, pair).items()}
    assert (found["mae"], found["rmse"], found["bias"]) == (abs(shift), abs(shift), shift)
    expected = math.inf if shift == 0 else 20 * math.log10(4024 / abs(shift))
    assert found["psnr"] == pytest.approx(expected, rel=1e-12)
    x, y, c1 = value + 1024, other + 1024, 40.24**2
    assert found["nmse"] == pytest.approx(shift**2 / x**2, rel=1e-12)
    luminance = (2 * x * y + c1) / (x * x + y * y + c1)
    assert found["ssim"] == pytest.approx(luminance, rel=1e-9)
    assert found["ms_ssim"] == pytest.approx(luminance, rel=1e-9)


@given(factor=st.floats(-1, 2))
@settings(max_examples=20)
def test_a_scaled_window_has_the_ssim_of_its_moments(factor: float) -> None:
    # One window in all: SSIM from the weighted moments by hand.
    x = np.random.default_rng(1).normal(900, 200, (11, 11, 11))
    mean = x.mean()
    y = mean + factor * (x - mean)
    w1 = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    w = np.einsum("i,j,k->ijk", w1, w1, w1) / w1.sum() ** 3
    a, b = x + 1024, y + 1024
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb, c = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
    c1, c2 = 40.24**2, 120.72**2
    expected = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1) * (2 * c + c2) / (va + vb + c2)
    assert values(ssim, Pair(x, y))["ssim"] == pytest.approx(expected, rel=1e-9)


def test_equal_scans_score_as_equal() -> None:
    pair = Pair(scan(), scan())
    found = {name: value for metric in STANDARD for name, value in values(metric, pair).items()}
    assert found["psnr"] == math.inf
    assert (found["ssim"], found["ms_ssim"], found["mae"], found["nmse"]) == (1.0, 1.0, 0.0, 0.0)


def test_errors_are_symmetric_and_bias_changes_its_sign() -> None:
    one, other = scan(seed=1), scan(seed=2)
    there, back = Pair(one, other), Pair(other, one)
    for metric, name in ((error, "mae"), (error, "rmse"), (psnr, "psnr"), (ssim, "ssim"), (ms_ssim, "ms_ssim")):
        assert values(metric, there)[name] == pytest.approx(values(metric, back)[name], rel=1e-12)
    assert values(error, there)["bias"] == -values(error, back)["bias"]
    assert values(nmse, there)["nmse"] != values(nmse, back)["nmse"]


def test_ssim_of_opposites_is_below_zero_and_ms_ssim_then_zero() -> None:
    texture = (200 * np.random.default_rng(0).normal(0, 1, (12, 12, 12))).clip(-900, 900)
    pair = Pair(texture, -texture)
    assert values(ssim, pair)["ssim"] < 0
    assert values(ms_ssim, pair)["ms_ssim"] == 0


def test_values_beyond_the_range_count_in_hu_and_nowhere_else() -> None:
    truth = scan().astype(np.int16)
    truth[0, 0, :2] = -1024, 3000
    made = truth.copy()
    made[0, 0, :2] = -3024, 9000
    found = {name: value for metric in STANDARD for name, value in values(metric, Pair(truth, made)).items()}
    assert (found["psnr"], found["ssim"], found["ms_ssim"]) == (math.inf, 1.0, 1.0)
    assert found["mae"] == pytest.approx(8000 / truth.size)


def test_bands_tile_the_scale() -> None:
    assert [one.high for one in TISSUES[:-1]] == [one.low for one in TISSUES[1:]]
    assert (TISSUES[0].low, TISSUES[-1].high) == (-math.inf, math.inf)


@given(
    truth=st.lists(st.integers(-1200, 2500), min_size=4, max_size=40),
    shift=st.integers(-500, 500),
)
def test_each_band_is_the_error_where_the_truth_shows_its_tissue(truth: list[int], shift: int) -> None:
    hu = np.array(truth, dtype=np.int16).reshape(1, 1, -1)
    made = hu + np.int16(shift) * (np.arange(hu.size) % 3).astype(np.int16)
    found = values(error, Pair(hu, made))
    difference = (made - hu).astype(float)
    for tissue in TISSUES:
        there = difference[(hu >= tissue.low) & (hu < tissue.high)]
        expected = [np.abs(there).mean(), np.sqrt((there**2).mean()), there.mean()] if there.size else [np.nan] * 3
        np.testing.assert_allclose([found[f"{kind}/{tissue.name}"] for kind in ("mae", "rmse", "bias")], expected)


def test_a_band_that_no_voxel_shows_has_no_error() -> None:
    found = values(error, Pair(np.zeros((3, 4, 5), np.int16), np.ones((3, 4, 5), np.int16)))
    assert found["mae/soft"] == 1
    assert all(math.isnan(found[f"{kind}/{name}"]) for kind in ("mae", "rmse", "bias") for name in ("lung", "bone"))


def test_only_the_voxels_of_the_mask_count() -> None:
    truth, made = scan((24, 30, 26)), scan((24, 30, 26), 1)
    mask = np.zeros(truth.shape, bool)
    mask[:, 10:20, 8:18] = True
    elsewhere = made.copy()
    elsewhere[:, :3], elsewhere[:, -3:] = 2000, -500  # out of reach of the mask's windows
    for metric in (error, psnr, nmse, ssim):
        one, other = (values(metric, Pair(truth, image, mask, "body")) for image in (made, elsewhere))
        assert one == pytest.approx(other, nan_ok=True, rel=1e-12)
        assert one != pytest.approx(values(metric, Pair(truth, elsewhere)), nan_ok=True)


def test_a_mask_of_everything_changes_nothing() -> None:
    truth, made = scan((23, 30, 26)), scan((23, 30, 26), 1)
    for metric in STANDARD:
        masked = values(metric, Pair(truth, made, np.ones(truth.shape, bool), "body"))
        assert masked == pytest.approx(values(metric, Pair(truth, made)), rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", STANDARD)
def test_a_mask_of_nothing_gives_no_number(metric: Metric) -> None:
    pair = Pair(scan(), scan(seed=1), np.zeros(scan().shape, bool), "structure: none")
    assert all(math.isnan(value) for value in values(metric, pair).values())


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (5, 40, 40), (10, 11, 12), (40, 40, 1)])
def test_where_no_window_fits_there_is_no_ssim_but_there_are_errors(shape: tuple[int, ...]) -> None:
    pair = Pair(scan(shape), scan(shape, 1))
    assert math.isnan(values(ssim, pair)["ssim"])
    assert math.isnan(values(ms_ssim, pair)["ms_ssim"])
    assert definitions(ms_ssim, pair)["ms_ssim"].parameters["scales"] == 0
    assert values(error, pair)["mae"] > 0
    assert math.isfinite(values(psnr, pair)["psnr"])


def test_nothing_at_all_has_no_energy() -> None:
    nothing = np.full((2, 2, 2), -1024, np.int16)
    assert math.isnan(values(nmse, Pair(nothing, nothing))["nmse"])


def test_padding_has_no_energy_and_makes_no_error() -> None:
    truth, made = scan().astype(np.int16), scan(seed=1)
    truth[0], made[0] = -1024, -3024
    a, b = truth[1:] + 1024.0, made[1:] + 1024.0
    assert values(nmse, Pair(truth, made))["nmse"] == pytest.approx(((b - a) ** 2).sum() / (a**2).sum(), rel=1e-12)


def damaged(value: float) -> HU:
    made = scan().astype(np.float32)
    made[3, 4, 5] = value
    return made


@pytest.mark.parametrize("metric", [error, psnr, nmse, ssim, ms_ssim])
@pytest.mark.parametrize(
    ("pair", "reason", "words"),
    [
        (Pair(scan(), damaged(np.nan), case="a"), Reason.NOT_FINITE, "1 of 4480 voxels of the made scan"),
        (Pair(damaged(np.inf), scan()), Reason.NOT_FINITE, "of the truth"),
        (Pair(scan(), scan((14, 16, 21))), Reason.UNPAIRED, "14 x 16 x 20 voxels, the made scan 14 x 16 x 21"),
        (Pair(scan(), scan(), np.ones((2, 2, 2), bool)), Reason.UNPAIRED, "the mask 2 x 2 x 2"),
        (Pair(scan((5, 5)), scan((5, 5))), Reason.DIMENSIONS, "not 5 x 5"),
        (Pair(scan((5, 0, 5)), scan((5, 0, 5))), Reason.DIMENSIONS, "not 5 x 0 x 5"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric: Metric, pair: Pair, reason: Reason, words: str) -> None:
    with pytest.raises(DataInvalid, match=words) as refusal:
        list(metric.measure(pair))
    assert refusal.value.reason == reason
    assert refusal.value.at == (pair.case or None)


def ball(shape: tuple[int, ...], radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Voxels within `radius` mm of the middle."""
    places = np.meshgrid(*[(np.arange(n) - n // 2) * mm for n, mm in zip(shape, spacing, strict=True)], indexing="ij")
    return sum(place**2 for place in places) <= radius**2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.8)])
def test_cnr_is_contrast_over_the_noise_around(spacing: tuple[float, float, float]) -> None:
    shape = tuple(int(40 / mm) for mm in spacing)
    structure = ball(shape, 6, spacing)
    noise = np.random.default_rng(0).normal(0, 20, shape)
    image = -800 + noise + 300 * structure
    assert cnr.cnr(image, structure, spacing) == pytest.approx(300 / 20, rel=0.05)


def test_cnr_follows_its_shell_voxel_by_voxel() -> None:
    structure = np.zeros((9, 30, 31), bool)
    structure[4, 15, 2:4] = True
    image = scan((9, 30, 31)).astype(float)
    spacing = (3.0, 1.0, 1.5)
    voxels = np.argwhere(np.ones_like(structure)) * spacing
    nearest = np.min([np.linalg.norm(voxels - np.array(v) * spacing, axis=1) for v in ((4, 15, 2), (4, 15, 3))], axis=0)
    shell = image.ravel()[(nearest > 2) & (nearest <= 10)]
    expected = abs(image[structure].mean() - shell.mean()) / shell.std()
    assert cnr.cnr(image, structure, spacing) == pytest.approx(expected, rel=1e-12)


def test_cnr_of_a_blurred_nodule_is_a_ratio_and_needs_a_structure() -> None:
    structure = ball((30, 30, 30), 5, (1, 1, 1))
    truth = -800 + np.random.default_rng(0).normal(0, 20, structure.shape) + 400 * structure
    made = truth - 200 * structure
    pair = Pair(truth, made, structure, "structure: nodule.nii", (1.0, 1.0, 1.0))
    found = values(cnr, pair)
    assert found["cnr/ratio"] == pytest.approx(found["cnr/made"] / found["cnr/truth"])
    assert found["cnr/ratio"] == pytest.approx(0.5, abs=0.02)
    assert not values(cnr, Pair(truth, made, structure, "body"))
    assert not values(cnr, Pair(truth, made))


def test_cnr_without_noise_around_is_no_number() -> None:
    structure = ball((30, 30, 30), 5, (1, 1, 1))
    assert math.isnan(cnr.cnr(400.0 * structure, structure, (1.0, 1.0, 1.0)))
    assert math.isnan(cnr.cnr(400.0 * structure, np.ones_like(structure), (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("metric", STANDARD)
def test_each_definition_says_what_it_is_and_survives_json(metric: Metric) -> None:
    shape = (12, 12, 12)
    pair = Pair(scan(shape), scan(shape, 1), np.ones(shape, bool), "structure: all")
    readings = list(metric.measure(pair))
    names = [reading.definition.metric for reading in readings]
    assert len(set(names)) == len(names)
    for reading in readings:
        definition = reading.definition
        assert definition.convention == "standard"
        assert definition.reduction
        assert not definition.departs
        assert definition.mask == "structure: all"
        text = json.dumps(definition.record(), allow_nan=False)
        assert Definition.of_record(json.loads(text)) == definition
