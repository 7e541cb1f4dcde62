"""Feature networks: exact, of known weights, and able to tell more damage from less."""

import hashlib
import itertools
import json
import re
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage

from tomogen.errors import DataInvalid, InputMissing, Reason, RecipeMismatch, UsageFault
from tomogen.evaluation.distances.frechet import frechet
from tomogen.evaluation.distances.kernel import kid, mmd_linear
from tomogen.evaluation.features import nv_generate, own, random_conv, voxels
from tomogen.evaluation.features.random_conv import RandomConv
from tomogen.phantoms import chest

SHA256 = {
    2: "2768e378dae6da313ac396f7d76684eb60dd63287f2713b4f85c2a5628478f63",
    3: "1875b16891b44789aee23d402267e598e5989798658fb5f6b1d5c5821baf3d64",
}
"""Of the weights. Another value makes every published score incomparable: it never changes under one name."""


def noise_hu(shape, seed=0):
    return np.random.default_rng(seed).integers(-1100, 3200, shape).astype(np.int16)


# --- RandomConv


@pytest.mark.parametrize("dims", [2, 3])
def test_the_weights_are_those_of_the_name(dims):
    network = RandomConv(dims)
    assert network.sha256 == SHA256[dims]
    assert network.sha256 == hashlib.sha256(b"".join(w.tobytes() for w in network.weights)).hexdigest()
    assert network.width == 210
    first = network.weights[0].astype(int).reshape(8, -1).sum(axis=1)
    assert (first[::2] == 0).all()
    assert (first[1::2] > 0).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_no_sum_can_leave_the_whole_numbers_of_float32(dims):
    for layer, weights in enumerate(RandomConv(dims).weights):
        largest = 4095 if layer == 0 else 8191
        assert np.abs(weights.astype(int)).reshape(len(weights), -1).sum(axis=1).max() * largest < 2**24


def by_definition(network, image):
    """The row of one image, in float64 by scipy, layer after layer."""
    maps = np.rint(np.clip(np.asarray(image, dtype=np.float64), -1024, 3071))[None] + 1024
    if network.dims == 2:
        maps = maps[:, None]
    means, spreads = [], []

    def pool(found):
        means.extend(found.reshape(len(found), -1).mean(axis=1))
        spreads.extend(found.reshape(len(found), -1).std(axis=1))

    pool(maps)
    for layer, weights in enumerate(network.weights):
        stride = 1 if layer == 0 else 2
        steps = (slice(None, None, stride if network.dims == 3 else 1), *[slice(None, None, stride)] * 2)
        maps = np.stack(
            [
                sum(ndimage.correlate(m, k.astype(float), mode="nearest")[steps] for m, k in zip(maps, w, strict=True))
                for w in weights
            ]
        )
        if layer == 0:
            maps[::2] = np.minimum(maps[::2] * 8, 1023 * 2 ** random_conv.SHIFTS[network.dims][0])
        maps = np.clip(np.rint(maps / 2 ** random_conv.SHIFTS[network.dims][layer]), 0, 8191)
        pool(maps)
    return np.sqrt(np.array(means + spreads) / 1024)


@pytest.mark.parametrize(("dims", "shape"), [(2, (21, 34)), (3, (9, 17, 12)), (3, (8, 8, 8))])
def test_rows_are_those_of_the_definition(dims, shape):
    image = ndimage.gaussian_filter(noise_hu(shape).astype(np.float32), 0.7)
    network = RandomConv(dims)
    assert network(image[None]) == pytest.approx(by_definition(network, image)[None], rel=1e-12, abs=1e-6)


@pytest.mark.parametrize(("dims", "shape"), [(2, (5, 30, 41)), (3, (3, 41, 21, 29)), (3, (2, 9, 70, 20))])
def test_rows_are_the_same_to_the_bit_whatever_the_tiles_threads_and_companions(dims, shape, monkeypatch):
    images = noise_hu(shape)
    network = RandomConv(dims)
    rows = network(images)
    threads = torch.get_num_threads()
    try:
        for count, tile in ((1, 15000), (2, 30000), (3, 10**6)):
            torch.set_num_threads(count)
            monkeypatch.setattr(random_conv, "_VOXELS", tile)
            assert np.array_equal(network(images), rows)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(network(images[::-1])[::-1], rows)
    assert np.array_equal(network(images[1:2]), rows[1:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(network(images.astype(np.float64)), rows)


def test_a_flat_image_has_the_same_row_in_any_size_and_no_spread():
    network = RandomConv(3)
    small, large = network(np.full((1, 8, 9, 10), -300)), network(np.full((1, 24, 17, 33), -300))
    assert np.array_equal(small, large)
    assert (small[:, 105:] == 0).all()
    assert small[0, 0] == np.sqrt(724 / 1024)


def test_hu_beyond_twelve_bits_are_clipped():
    network, image = RandomConv(2), np.zeros((1, 16, 16))
    far, near = image.copy(), image.copy()
    far[0, 3, 3], near[0, 3, 3] = 30000, 3071
    far[0, 9, 9], near[0, 9, 9] = -2000, -1024
    assert np.array_equal(network(far), network(near))


def test_random_convolutions_refuse_what_they_cannot_see():
    for images, reason in (
        (np.zeros((4, 9, 9)), Reason.DIMENSIONS),
        (np.zeros((1, 9, 9, 7)), Reason.TOO_SMALL),
        (np.full((1, 9, 9, 9), np.nan), Reason.NOT_FINITE),
        (np.full((1, 9, 9, 9), -np.inf), Reason.NOT_FINITE),
    ):
        with pytest.raises(DataInvalid) as refused:
            RandomConv(3)(images)
        assert refused.value.reason is reason
    with pytest.raises(UsageFault, match="2 or 3 dimensions, not 4"):
        RandomConv(4)
    assert RandomConv(2)(np.zeros((0, 9, 9))).shape == (0, 210)


# --- ordering


def blurred(scans, sigma):
    return np.stack([ndimage.gaussian_filter(scan, sigma) for scan in scans])


def noisy(scans, hu):
    return scans + hu * np.random.default_rng(1).standard_normal(scans.shape)


def shuffled(scans, reach):
    """Slices exchanged within blocks of so many."""
    rng, found = np.random.default_rng(2), scans.copy()
    for scan in found:
        for start in range(0, len(scan), reach):
            block = scan[start : start + reach]
            block[:] = block[rng.permutation(len(block))]
    return found


DAMAGES = {
    "blur": (blurred, (0.5, 1.0, 2.0)),
    "noise": (noisy, (15.0, 40.0, 100.0)),
    "shift up": (np.add, (15.0, 40.0, 100.0)),
    "shift down": (np.add, (-15.0, -40.0, -100.0)),
    "slice shuffling": (shuffled, (2, 6, 32)),
}


@pytest.fixture(scope="module")
def scans():
    return np.stack([chest(person, (40, 48, 48), noise=10).hu for person in range(14)]).astype(np.float32)


def assert_rising(values):
    assert all(after > before for before, after in itertools.pairwise(values)), values


@pytest.mark.parametrize("damage", DAMAGES)
def test_frechet_and_kid_rise_with_the_damage(scans, damage):
    harm, levels = DAMAGES[damage]
    network = RandomConv(3)
    real = network(scans)
    made = [real, *(network(harm(scans, level)) for level in levels)]
    assert_rising([frechet(real, rows) for rows in made])
    assert_rising([kid(real, rows) for rows in made])
    # of other people, where damage has to stand out from how people differ
    half = len(scans) // 2
    assert_rising([frechet(real[:half], rows[half:]) for rows in (made[0], *made[2:])])
    assert_rising([kid(real[:half], rows[half:]) for rows in (made[0], *made[2:])])


def test_axial_slices_cannot_show_that_slices_are_shuffled_but_volumes_do(scans):
    planes, volumes = RandomConv(2), RandomConv(3)
    slices = lambda found: planes(found.reshape(-1, *found.shape[2:]))  # noqa: E731
    real, made = scans[:7], scans[7:]
    mixed = shuffled(made, 32)
    assert frechet(slices(real), slices(mixed)) == pytest.approx(frechet(slices(real), slices(made)), rel=1e-9)
    assert kid(slices(real), slices(mixed)) == pytest.approx(kid(slices(real), slices(made)), rel=1e-9)
    assert frechet(volumes(real), volumes(mixed)) > 1.4 * frechet(volumes(real), volumes(made))
    assert kid(volumes(real), volumes(mixed)) > 0 > kid(volumes(real), volumes(made))


@pytest.mark.slow
def test_frechet_and_kid_rise_with_the_damage_of_real_chests(ctdata):
    from tomogen import read

    cubes, rng = [], np.random.default_rng(5)
    for person in sorted((ctdata / "chest").iterdir()):
        files = sorted(path for path in person.rglob("*") if path.is_file())
        single = [path for path in files if ".nii" in path.name]
        hu = read(single[0] if single else files[0].parent).reorient().hu
        while min(hu.shape) >= 64 and sum(who == person for who, _ in cubes) < 6:
            k, j, i = (int(rng.integers(0, size - 63)) for size in hu.shape)
            cube = hu[k : k + 64, j : j + 64, i : i + 64].astype(np.float32)
            if (cube > -900).mean() > 0.5:
                cubes.append((person, cube))
    found = np.stack([cube for _, cube in cubes])
    assert len(found) >= 24
    network = RandomConv(3)
    real = network(found)
    for harm, levels in DAMAGES.values():
        made = [real, *(network(harm(found, level)) for level in levels)]
        assert_rising([frechet(real, rows) for rows in made])
        assert_rising([kid(real, rows) for rows in made])


# --- a user's own


MODULE = """
import torch
from torch import nn
DIMS = 3
WINDOW = (-1000, 400)
class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 5, 3)
        self.drop = nn.Dropout(0.5)
    def forward(self, x):
        return self.drop(self.conv(x)).mean(dim=(2, 3, 4))
def build():
    return Pooled()
"""


@pytest.fixture
def files(tmp_path):
    """A module and weights that fit: `write(text)` replaces the module."""
    torch.manual_seed(0)
    weights = {"conv.weight": torch.randn(5, 1, 3, 3, 3), "conv.bias": torch.randn(5)}
    save_file(weights, tmp_path / "net.safetensors")

    def write(text=MODULE):
        (tmp_path / "net.py").write_text(textwrap.dedent(text))
        return tmp_path / "net.py", tmp_path / "net.safetensors"

    write.weights = weights
    return write


def test_an_own_network_gives_rows_of_its_graph_in_its_window(files):
    module, weights = files()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    network = own.load(module, weights, digest.upper())
    assert (network.sha256, network.dims, network.width) == (digest, 3, 5)
    assert network.name == f"net ({hashlib.sha256(module.read_bytes()).hexdigest()[:12]})"
    assert (network.range, network.preprocessing) == ((-1000, 400), "clipped, on -1..1")
    hu = noise_hu((3, 9, 10, 11))
    unit = torch.from_numpy((hu.clip(-1000, 400) + 300) / 700)[:, None]
    kernel, bias = files.weights["conv.weight"].double(), files.weights["conv.bias"].double()
    expected = torch.nn.functional.conv3d(unit, kernel, bias).mean(dim=(2, 3, 4)).numpy()
    assert network(hu) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert np.array_equal(network(hu), network(hu))  # dropout is off


def test_an_own_network_may_normalise_by_itself(files):
    text = MODULE.replace("WINDOW = (-1000, 400)", "SIZE = 16").replace("DIMS = 3", "DIMS = 2")
    text = text.replace("nn.Conv3d(1, 5, 3)", "nn.Conv2d(3, 5, 3)").replace("dim=(2, 3, 4)", "dim=(2, 3)")
    text += (
        '\ndef normalise(images):\n    """HU / 1000, three times"""\n    return (images / 1000).repeat(1, 3, 1, 1)\n'
    )
    module, weights = files(text)
    save_file({"conv.weight": torch.ones(5, 3, 3, 3), "conv.bias": torch.zeros(5)}, weights)
    network = own.load(module, weights)
    assert network.range is None
    assert network.preprocessing == "normalise() of net.py: HU / 1000, three times"
    assert network(np.full((2, 12, 12), 500)) == pytest.approx(np.full((2, 5), 27 * 0.5))


def test_weights_of_another_hash_are_refused_with_both_shown(files):
    module, weights = files()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    with pytest.raises(RecipeMismatch, match=f"{digest}, expected is {'0' * 64}"):
        own.load(module, weights, "0" * 64)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.safetensors"])
def test_a_pickle_is_refused_unopened(files, tmp_path, name):
    module, _ = files()
    torch.save(files.weights, tmp_path / name)
    with pytest.raises(RecipeMismatch, match="pickle are never loaded"):
        own.load(module, tmp_path / name)
    (tmp_path / name).write_bytes(b"\x80\x04\x95rest")
    with pytest.raises(RecipeMismatch, match="pickle are never loaded"):
        own.load(module, tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("DIMS = 3", ""), "lacks DIMS"),
        (("def build", "def make"), r"lacks build\(\)"),
        (("WINDOW = (-1000, 400)", ""), r"lacks WINDOW or normalise\(images\)"),
        (("DIMS = 3", "DIMS = 4"), "DIMS is 2 or 3, not 4"),
        (("(-1000, 400)", "(400, -1000)"), r"WINDOW is \(low, high\) in HU"),
        (("(-1000, 400)", "40"), r"WINDOW is \(low, high\) in HU, not 40"),
        (("DIMS = 3", "DIMS = 3\ndef normalise(x): return x"), "both WINDOW and normalise"),
        (("return Pooled()", "return 7"), r"build\(\) gives a torch.nn.Module, not int"),
        (("return Pooled()", "raise OSError('no')"), r"build\(\) fails: OSError: no"),
        (("DIMS = 3", "import nothing_of_this_name"), "module fails: ModuleNotFoundError"),
        (("DIMS = 3", "DIMS ="), "module fails: SyntaxError"),
        (("1, 5, 3", "1, 6, 3"), "weights are not those of the graph"),
        ((".mean(dim=(2, 3, 4))", ""), r"gives a tensor \(1, 5, 62, 62, 62\) for 1 images, not rows \(1, d\)"),
        ((".mean(dim=(2, 3, 4))", ".mean()"), r"gives a tensor \(\)"),
        (("return self.drop", "return self.dorp"), "graph fails on images 1 x 1 x 64 x 64 x 64: AttributeError"),
    ],
)
def test_a_module_that_does_not_serve_says_why_in_one_line(files, change, message):
    assert change[0] in MODULE
    module, weights = files(MODULE.replace(*change))
    with pytest.raises(RecipeMismatch, match=message) as refused:
        own.load(module, weights)
    assert "\n" not in refused.value.what
    assert refused.value.at


def test_missing_and_damaged_files_of_an_own_network_are_told(files, tmp_path):
    module, weights = files()
    for pair in ((tmp_path / "no.py", weights), (module, tmp_path / "no.safetensors"), (tmp_path, weights)):
        with pytest.raises(InputMissing):
            own.load(*pair)
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(RecipeMismatch, match="damaged or no safetensors"):
        own.load(module, weights)
    files()
    text = tmp_path / "net.txt"
    text.write_text("DIMS = 3")
    save_file(files.weights, weights)
    with pytest.raises(RecipeMismatch, match="no Python module"):
        own.load(text, weights)


def test_an_own_network_refuses_images_it_cannot_take(files):
    network = own.load(*files())
    for images, reason in (
        (np.zeros((2, 9, 9)), Reason.DIMENSIONS),
        (np.full((1, 9, 9, 9), np.nan), Reason.NOT_FINITE),
    ):
        with pytest.raises(DataInvalid) as refused:
            network(images)
        assert refused.value.reason is reason
    with pytest.raises(RecipeMismatch, match="graph fails on images 1 x 1 x 9 x 9 x 2"):
        network(np.zeros((1, 9, 9, 2)))


# --- as published scripts take slices and voxels


def formula_network(images):
    """The reference's stand-in for a trained network."""
    weights = []
    for out, into, seed, scale in ((8, 3, 401, 0.5), (32, 8, 402, 0.25)):
        o, c, t = np.meshgrid(np.arange(out), np.arange(into), np.arange(9), indexing="ij")
        weights.append(torch.from_numpy((2 * _hash01(o, c, t, seed) - 1) * scale).reshape(out, into, 3, 3))
    maps = torch.from_numpy(images)
    for weight in weights:
        maps = torch.nn.functional.conv2d(maps, weight, stride=2).relu()
    return maps.mean(dim=(2, 3)).numpy()


def _hash01(i, j, k, seed):
    """The reference's integer hash, uniform in [0, 1)."""
    h = i * 73856093 % 2**32 ^ j * 19349663 % 2**32 ^ k * 83492791 % 2**32 ^ seed * 2654435761 % 2**32
    h = h.astype(np.uint64)
    for _ in range(2):
        for bits, prime in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ (h >> np.uint64(bits))) * np.uint64(prime) % np.uint64(2**32)
        h = h ^ (h >> np.uint64(16))
    return h / 2**32


@pytest.fixture(scope="module")
def reference(ctdata):
    """Values, and the real and made volumes they are of."""
    folder = ctdata.parent / "reference" / "scores"
    if not folder.is_dir():
        pytest.skip(f"no reference values at {folder}")
    stored = np.load(folder / "volumes.npz")
    a, b = stored["truth_A"], stored["truth_B"]
    made = [stored[f"pred_{case}"] for case in ("large_error", "out_of_range", "blurred", "translated")]
    return json.loads((folder / "values.json").read_text())["volume_sets"], [a, b, a[::-1], b[:, :, ::-1]], made


def test_slices_of_nv_generate_give_its_frechet_distances(reference):
    record, real, made = reference
    options = {
        "all_slices": {},
        "centre_0.4": {"centre": 0.4},
        "drop_empty": {"drop_empty": True},
        "every_2nd_needs_centre": {"centre": 1.0, "every": 2},
    }
    assert set(record) == {"fid_2p5d_formula_network", "linear_mmd_voxels"}
    assert set(record["fid_2p5d_formula_network"]) == set(options)
    for name, expected in record["fid_2p5d_formula_network"].items():
        found = []
        for number, direction in enumerate(nv_generate.AXES):
            rows = [
                np.concatenate([formula_network(nv_generate.slices(v, direction, **options[name])) for v in volumes])
                for volumes in (real, made)
            ]
            assert [len(part) for part in rows] == [expected["rows_real"][number], expected["rows_fake"][number]]
            found.append(frechet(*rows))
            assert found[-1] == pytest.approx(expected["exact_own"][number], rel=1e-9)
            assert found[-1] == pytest.approx(expected[f"fid_{direction}"], rel=1e-6)
            if direction == "xy":
                assert rows[1][0, :4] == pytest.approx(expected["first_fake_row_xy_first4"], rel=1e-12)
                assert rows[0].mean(axis=0)[:4] == pytest.approx(expected["real_feature_mean_xy_first4"], rel=1e-12)
        assert np.mean(found) == pytest.approx(expected["fid_avg"], rel=1e-6)


def test_voxels_as_features_give_the_linear_scores(reference):
    record, real, made = reference
    expected = record["linear_mmd_voxels"]
    rows = voxels.rows(real), voxels.rows(made)
    assert mmd_linear(*rows) == pytest.approx(expected["mmd_linear_unbiased_monai"], rel=1e-9)
    biased = mmd_linear(*rows, "biased")
    assert biased == pytest.approx(expected["mmd_linear_biased_3dbraingen_B4"], rel=1e-9)
    assert biased == pytest.approx(expected["mean_difference_norm_squared"], rel=1e-9)
    assert len(expected) == 3


def test_a_shift_of_all_hu_vanishes_in_slices_of_nv_generate():
    hu = np.random.default_rng(0).integers(-900, 800, (6, 7, 8))
    for direction, axis in nv_generate.AXES.items():
        found = nv_generate.slices(hu, direction)
        assert len(found) == hu.shape[axis]
        assert found == pytest.approx(nv_generate.slices(hu + 100, direction), abs=1e-12)


def test_slices_and_voxels_refuse_what_cannot_be_compared():
    with pytest.raises(UsageFault, match=re.escape("only where a centre is")):
        nv_generate.slices(np.zeros((3, 3, 3)), "xy", every=2)
    with pytest.raises(DataInvalid, match="no slice"):
        nv_generate.slices(np.full((3, 3, 3), -1000), "xy", drop_empty=True)
    with pytest.raises(DataInvalid, match="one grid"):
        voxels.rows([np.zeros((2, 2, 2)), np.zeros((2, 2, 3))])
