"""pix2pix in 3D: windows and back, the networks, the losses, what training adds, and the published defects.

Defects of the published system that cannot occur here, by who sees to it: pairs matched by rank alone, without a look
at geometry (`prepare --pairs`; tests/test_pairs.py); the first file's rescale used for all, compressed files, DICOM
identifiers and types (formats/dicom; tests/test_dicom_in.py, tests/test_dicom_out.py); no validation split
(cases/split; tests/test_split.py); short series written as 0 HU and edges averaged less (generation/tiles;
tests/test_tiles.py).
"""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.batch import Batch
from tomogen.errors import RecipeMismatch
from tomogen.intensity import Window
from tomogen.layers.scaling import FEW, DoublingConv, HalvingConv
from tomogen.layers.windows import Windows
from tomogen.losses.labels import cross_entropy, least_squares
from tomogen.losses.matching import matching_loss
from tomogen.losses.scales import multiscale_ssim_loss
from tomogen.losses.similarity import ssim_loss, structure
from tomogen.models import pix2pix3d
from tomogen.models.pix2pix3d import Config, Model
from tomogen.recipe import Recipe
from tomogen.synthesizer import Turn

SPAN = (-1024.0, 3071.0)
SMALL = Config(shape=(4, 32, 32), levels=3, width=4, widest=8, judge_width=4)
G, D = Turn("generator"), Turn("discriminator", fresh=False)


def model(**changes: object) -> Model:
    torch.manual_seed(0)
    return Model(replace(SMALL, **changes))  # type: ignore[arg-type]


def batch(config: Config = SMALL, count: int = 2, seed: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    source, target = (torch.rand(count, 1, *config.shape, generator=draw) * 1.6 - 0.9 for _ in range(2))
    return Batch(target, {"source": source}, tuple(range(count)))


def hu(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1, 1)


# Windows


@given(
    st.lists(st.tuples(st.integers(-1024, 3070), st.integers(1, 4095)), min_size=1, max_size=5),
    st.lists(st.integers(-1024, 3071), min_size=1, max_size=20),
)
def test_windows_return_every_hu_of_their_union(cuts: list[tuple[int, int]], values: list[int]) -> None:
    pairs = [(float(low), float(min(3071, low + width))) for low, width in cuts]
    try:
        Config(windows=tuple(pairs))
    except RecipeMismatch:
        return  # a hole between them
    windows, span = Windows(SPAN, pairs), Window(*SPAN)
    there = hu(*values)
    back = span.to_hu(windows.join(windows.split(span.to_unit(there))))
    expected = there.clamp(min(low for low, _ in pairs), max(high for _, high in pairs))
    assert (back - expected).abs().max() < 0.01


def test_windows_are_those_of_the_scan() -> None:
    span = Window(*SPAN)
    channels = Windows(SPAN, [SPAN, (-300, 700)]).split(span.to_unit(hu(-1024, -300, 200, 700, 3071)))
    assert torch.allclose(channels[0, 1].flatten(), torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]), atol=1e-5)
    assert torch.allclose(span.to_hu(channels[0, 0]).flatten(), hu(-1024, -300, 200, 700, 3071).flatten(), atol=1e-3)


def test_every_window_counts_in_the_output_by_its_precision() -> None:
    span, pairs = Window(*SPAN), [SPAN, (-300.0, 700.0), (-200.0, 300.0)]
    windows = Windows(SPAN, pairs)
    channels = windows.split(span.to_unit(hu(40)))
    weights = [1 / (high - low) ** 2 for low, high in pairs]
    for channel, (low, high) in enumerate(pairs):
        moved = channels.clone()
        moved[:, channel] += 20 / (high - low)  # by 10 HU
        found = span.to_hu(windows.join(moved)).item()
        assert found == pytest.approx(40 + 10 * weights[channel] / sum(weights), abs=0.01)


@pytest.mark.parametrize("value", [-1024, -1000, 1000, 3000, 3071])
def test_a_narrow_window_is_not_believed_where_the_wide_one_says_that_it_is_saturated(value: int) -> None:
    span, windows = Window(*SPAN), Windows(SPAN, [SPAN, (-1024, -200), (-200, 300)])
    channels = windows.split(span.to_unit(hu(value)))
    channels[:, 2] *= 0.9  # a network does not quite reach the end
    assert span.to_hu(windows.join(channels)).item() == pytest.approx(value, abs=0.1)


@given(st.integers(-1024, 3071), st.lists(st.floats(-0.01, 0.01), min_size=3, max_size=3))
def test_what_a_network_errs_by_in_its_channels_the_joined_image_errs_by_no_more(
    value: int, errors: list[float]
) -> None:
    span, windows = Window(*SPAN), Windows(SPAN, [SPAN, (-1024, -200), (-300, 700)])
    channels = windows.split(span.to_unit(hu(value))) + torch.tensor(errors).view(1, 3, 1, 1, 1)
    assert abs(span.to_hu(windows.join(channels)).item() - value) <= 0.01 * 4095 / 2 + 0.1


# Networks


@pytest.mark.parametrize("size", [(3, 4, 5), (2, 3, 4)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (1, 1, 3)])
def test_a_doubling_convolution_is_nearest_doubling_and_a_convolution(
    kernel: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    layer = DoublingConv(3, 2, kernel).double()
    nn.init.normal_(layer.bias)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    assert (image[:, 0].numel() > FEW) == (size == (3, 4, 5)), "both ways are taken"
    factors = tuple(2.0 if k == 3 else 1.0 for k in kernel)
    doubled = F.interpolate(image, scale_factor=factors, mode="nearest")
    expected = F.conv3d(doubled, layer.weight, layer.bias, 1, [k // 2 for k in kernel])
    assert torch.allclose(layer(image), expected, atol=1e-12)


@pytest.mark.parametrize(("kernel", "size"), [((2, 4, 4), (4, 8, 6)), ((1, 4, 4), (8, 8, 6)), ((4, 4, 4), (4, 8, 6))])
def test_a_halving_convolution_halves_the_axes_of_its_even_kernel(
    kernel: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    assert HalvingConv(1, 2, kernel)(torch.randn(1, 1, 8, 16, 12)).shape == (1, 2, *size)


def test_depth_is_halved_while_it_lasts_and_seven_levels_leave_four_by_four() -> None:
    assert Config().depths == [16, 8, 4, 2, 1, 1, 1, 1]
    assert Config(shape=(12, 512, 512)).depths == [12, 6, 3, 3, 3, 3, 3, 3]
    assert Config(shape=(128, 128, 128)).depths == [128, 64, 32, 16, 8, 4, 2, 1]
    with torch.device("meta"):
        generator = Model(Config()).generator
        features = torch.empty(1, 3, 16, 512, 512)
        for down in generator.down:
            features = down.conv(features)
    assert features.shape == (1, 512, 1, 4, 4)


def test_the_discriminator_gives_features_and_the_published_map_of_scores() -> None:
    image = torch.randn(1, 3, 16, 64, 64)
    *features, scores = Model(replace(SMALL, shape=(16, 64, 64))).discriminator(image, image)
    assert [feature.shape[1] for feature in features] == [4, 8, 16, 32]
    assert scores.shape == (1, 1, 2, 6, 6)  # published 'same' padding: 8 x 8


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_patch_does_not_depend_on_those_beside_it(name: str) -> None:
    network = model().get_submodule(name).eval()
    images = torch.randn(2, 3, *SMALL.shape)
    together, alone = (network(*[part] * (1 if name == "generator" else 2)) for part in (images, images[:1]))
    pairs = [(together, alone)] if name == "generator" else zip(together, alone, strict=True)
    assert all(torch.allclose(a[:1], b, atol=1e-5) for a, b in pairs)


def test_coordinates_tell_the_network_where_in_the_patch_it_is() -> None:
    built = model(coordinates=True)
    assert built.generator.down[0].conv.weight.shape[1] == model().generator.down[0].conv.weight.shape[1] + 3
    flat = torch.zeros(1, 3, *SMALL.shape)
    before = built.generator(flat)
    for axis, place in enumerate(built.generator.places):
        assert place.shape[axis] == place.numel() == SMALL.shape[axis]
        assert torch.allclose(place.flatten()[[0, -1]], torch.tensor([-1.0, 1.0]))
        place.neg_()
        assert (built.generator(flat) - before).abs().max() > 1e-3
        place.neg_()


def test_a_residual_network_begins_near_its_input() -> None:
    pair = batch()
    given = pair.condition
    for detail in (0, 6):
        near, far = (model(residual=residual, detail=detail).eval() for residual in (True, False))
        with torch.no_grad():
            errors = [(each.generate(torch.empty(2, 0), given) - given["source"]).abs().mean() for each in (near, far)]
        assert errors[0] < 0.02
        assert errors[1] > 0.2


def test_what_is_finer_than_two_voxels_can_pass_beside_the_u_net() -> None:
    detail = model(detail=6).generator.detail
    low, high = SMALL.windows[2]
    image = torch.zeros(1, 3, *SMALL.shape)
    image[:, 2, 3, 10, 10] = 30 / ((high - low) / 2)  # 30 HU above its neighbours, as noise may be
    image[:, 2, 3, 20:, :] = 0.5  # an edge
    with torch.no_grad():
        for layer in (detail.mix, detail.image):
            layer.weight.zero_()
        for window in range(3):  # leaky(x) - leaky(-x) = 1.2 x
            for sign, feature in ((1, window), (-1, window + 3)):
                detail.mix.weight[feature, 6 + window, 1, 1, 1] = sign
                detail.image.weight[window, feature, 1, 1, 1] = sign / 1.2
        made = detail(torch.rand(1, 6, *SMALL.shape), image)[0, 2, 3]
    assert made[10, 10].item() == pytest.approx(math.tanh(30 * 24 / 25 / 50), abs=1e-5)
    assert made[10, 11].item() == pytest.approx(math.tanh(-30 / 25 / 50), abs=1e-5)
    assert made[5, 5] == 0, "what is even holds nothing fine"
    assert made.abs().max() <= 1, "an edge is not more than its share"
    assert made[20, 5] > 0.7


def test_dropout_is_in_the_deepest_doublings_and_in_training_alone() -> None:
    built = model(dropout=0.5)
    image = torch.rand(1, 3, *SMALL.shape)
    assert sum(isinstance(layer, nn.Dropout) for layer in built.modules()) == 2
    assert not torch.equal(built.generator(image), built.generator(image))
    built.eval()
    assert torch.equal(built.generator(image), built.generator(image))


def test_without_adversary_and_matching_there_is_no_discriminator() -> None:
    pair, alone = batch(), model(adversarial=0.0)
    assert list(alone.turns(0)) == [G]
    assert alone.players == ("generator",)
    assert not any(name.startswith("discriminator") for name in alone.state_dict())
    assert set(alone(G, pair)) == {"reconstruction"}
    assert not alone._handed, "nobody would take what is handed on"
    for judged in (model(), model(adversarial=0.0, matching=1.0)):
        assert [turn.player for turn in judged.turns(0)] == ["generator", "discriminator"] == list(judged.players)


@pytest.mark.parametrize("detail", [0, 4])
@pytest.mark.parametrize("depth", [8, 9])
def test_a_local_network_reaches_as_far_as_it_says_and_takes_any_even_size(depth: int, detail: int) -> None:
    built = model(shape=(depth, 32, 32), levels=1, detail=detail).eval()
    assert built.reach is not None
    image = torch.rand(1, 1, 24, 32, 40) * 1.6 - 0.8
    middle = [(12, 16, 20), (13, 17, 21), (12, 17, 20), (13, 16, 21)]  # even and odd places see unlike far
    far = torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        before = built.generate(torch.empty(1, 0), {"source": image})
        for place in middle:
            moved = image.clone()
            moved[0, 0, *place] -= 0.1
            after = built.generate(torch.empty(1, 0), {"source": moved})
            changed = (after != before)[0, 0].nonzero() - torch.tensor(place)
            far = torch.maximum(far, changed.abs().amax(0))
    assert far.tolist() == list(built.reach)


def test_a_network_with_norms_or_coordinates_reaches_over_its_patch() -> None:
    assert model().reach is None
    assert model(levels=1, coordinates=True).reach is None


# Losses


def test_the_generators_terms_are_their_formulas() -> None:
    pair, built = batch(), model(matching=10.0)
    losses = built(G, pair)
    made = built.handed(pair)
    true, given = (built.windows.split(image) for image in (pair.image, pair.condition["source"]))
    *features, scores = built.discriminator(made, given)
    *like, _ = built.discriminator(true, given)
    assert losses["reconstruction"].item() == pytest.approx(100 * (made - true).abs().mean().item(), rel=1e-5)
    assert losses["adversarial"].item() == pytest.approx(F.softplus(-scores).mean().item(), rel=1e-4)
    apart = [(a - b).abs().mean().item() for a, b in zip(features, like, strict=True)]
    assert losses["matching"].item() == pytest.approx(10 * sum(apart) / 4, rel=1e-4)


@pytest.mark.parametrize("game", ["cross_entropy", "least_squares"])
def test_the_discriminators_terms_are_half_of_each(game: str) -> None:
    pair, built = batch(), model(game=game)
    built(G, pair)
    made = built._handed[pair.seeds]
    losses = built(D, pair)
    true, given = (built.windows.split(image) for image in (pair.image, pair.condition["source"]))
    real, fake = built.discriminator(true, given)[-1], built.discriminator(made, given)[-1]
    if game == "cross_entropy":
        expected = F.softplus(-real).mean() / 2, F.softplus(fake).mean() / 2
    else:
        expected = (real - 1).square().mean() / 2, fake.square().mean() / 2
    assert losses["real"].item() == pytest.approx(expected[0].item(), rel=1e-4)
    assert losses["fake"].item() == pytest.approx(expected[1].item(), rel=1e-4)


@pytest.mark.parametrize(("kind", "loss"), [("ssim", ssim_loss), ("ms_ssim", multiscale_ssim_loss)])
def test_structure_is_mixed_with_the_error_as_published(kind: str, loss: object) -> None:
    pair, built = batch(), model(structure=kind)
    total = built(G, pair)["reconstruction"].item()
    made, true = built.handed(pair), built.windows.split(pair.image)
    error = (made - true).abs().mean()
    assert total == pytest.approx(100 * (0.15 * error + 0.85 * loss(made, true)).item(), rel=1e-4)  # type: ignore[operator]


def test_the_discriminator_judges_what_the_generator_made_before_it_moved() -> None:
    pair, built = batch(), model()
    built(G, pair)
    made = built._handed[pair.seeds]
    assert not made.requires_grad
    before = built.generator(built.windows.split(pair.condition["source"]))
    assert torch.allclose(made, before, atol=1e-6)


def test_equal_images_have_no_multiscale_loss_and_structure_counts_in_depth() -> None:
    draw = torch.Generator().manual_seed(0)
    image = F.avg_pool3d(torch.rand(1, 1, 20, 68, 68, generator=draw), 5, 1) * 2 - 1
    assert multiscale_ssim_loss(image, image).item() == pytest.approx(0, abs=1e-6)
    small, large = (
        multiscale_ssim_loss(image, (image + s * torch.randn(image.shape, generator=draw)).clamp(-1, 1)).item()
        for s in (0.05, 0.3)
    )
    assert 0 < small < large < 1
    # The same slices in another order: each slice keeps its structure, the volume does not.
    assert multiscale_ssim_loss(image, image[:, :, torch.randperm(16, generator=draw)]).item() > 0.1


def test_multiscale_ssim_is_its_formula_at_two_scales_halved_in_depth_too() -> None:
    x, y = (F.avg_pool3d(torch.rand(2, 1, 18, 24, 24), 3, 1) * 2 - 1 for _ in range(2))
    _, fine = structure(x, (x + y) / 2, stride=1)
    coarse, _ = structure(F.avg_pool3d(x, 2), F.avg_pool3d((x + y) / 2, 2), stride=1)
    share = 0.0448 / (0.0448 + 0.2856)
    expected = 1 - (fine**share * coarse ** (1 - share)).mean()
    assert multiscale_ssim_loss(x, (x + y) / 2, stride=1).item() == pytest.approx(expected.item(), abs=1e-6)


def test_multiscale_ssim_has_a_gradient_where_structure_is_opposite() -> None:
    image = torch.rand(1, 1, 16, 48, 48) * 2 - 1
    opposite = (-image).requires_grad_()
    loss = multiscale_ssim_loss(opposite, image)
    loss.backward()
    assert loss.item() > 0.9
    assert opposite.grad.isfinite().all()


def test_matching_is_the_mean_over_layers_and_follows_the_made_image_alone() -> None:
    made, true = [torch.zeros(2, 3, requires_grad=True), torch.zeros(5)], [torch.full((2, 3), 2.0), torch.ones(5)]
    true[0].requires_grad_()
    loss = matching_loss(made, true)
    assert loss.item() == 1.5
    loss.backward()
    assert true[0].grad is None
    assert made[0].grad.abs().sum() == pytest.approx(0.5)


def test_losses_with_labels_are_nothing_at_best() -> None:
    labels = torch.tensor([1.0, 0.95, 0.9, 0.0])
    best = torch.logit(labels).clamp(-80, 80)
    assert cross_entropy(best, labels).item() == pytest.approx(0, abs=1e-6)
    assert cross_entropy(best + 0.5, labels) > 1e-3
    assert least_squares(labels, labels) == 0
    assert least_squares(torch.zeros(4), torch.ones(4)) == 1


# What training adds


def test_labels_are_drawn_for_every_score_and_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published: drawn once for a whole run."""
    drawn: list[Tensor] = []

    def watch(scores: Tensor, labels: Tensor) -> Tensor:
        drawn.append(labels.expand_as(scores))
        return cross_entropy(scores, labels)

    monkeypatch.setattr(pix2pix3d, "cross_entropy", watch)
    built = model(label_smoothing=0.1)
    for seeds in ((1, 2), (3, 4)):
        pair = batch()._replace(seeds=seeds)
        built(G, pair)
        built(D, pair)
    real = [drawn[0], drawn[2]]
    assert not torch.equal(*real)
    assert real[0].unique().numel() == real[0].numel() > 2
    assert 0.9 <= real[0].min() < real[0].max() <= 1
    assert not drawn[1].any()


def test_smoothing_changes_the_loss_of_the_real_alone() -> None:
    found = []
    for smoothing in (0.0, 0.3):
        pair, built = batch(), model(label_smoothing=smoothing)
        built(G, pair)
        found.append(built(D, pair))
    assert found[0]["real"] != found[1]["real"]
    assert found[0]["fake"] == found[1]["fake"]


def test_noise_is_on_the_generators_input_alone_in_hu_and_in_training_alone() -> None:
    seen: dict[str, list[Tensor]] = {"generator": [], "discriminator": []}
    pair, built = batch(), model(noise=20.0)
    for player, network in (("generator", built.generator), ("discriminator", built.discriminator)):
        network.register_forward_pre_hook(lambda module, given, player=player: seen[player].append(given))
    built(G, pair)
    built(D, pair)
    true, given = (built.windows.split(image) for image in (pair.image, pair.condition["source"]))
    added = (seen["generator"][0][0] - given)[:, 0] * (SPAN[1] - SPAN[0]) / 2
    assert added.std().item() == pytest.approx(20, rel=0.05)
    assert torch.equal(seen["discriminator"][0][1], given)
    assert torch.equal(seen["discriminator"][1][0][:2], true)
    built.eval().generate(torch.empty(2, 0), pair.condition)
    assert torch.equal(seen["generator"][1][0], given)


# Config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (16, 500, 512)}, "`shape`: 500 .*nearest 512"),
        ({"shape": (16, 8, 512), "levels": 3}, "`shape`: 8 .*nearest 24"),
        ({"shape": (1, 512, 512)}, "1 slice"),
        ({"windows": ()}, "none; at least one"),
        ({"windows": ((-1024.0, 0.0), (100.0, 300.0))}, "none holds the HU from 0 to 100"),
        ({"windows": ((-2000.0, 0.0),)}, "does not rise within the span"),
        ({"windows": ((300.0, -200.0),)}, "does not rise within the span"),
        ({"span": (100.0, -100.0)}, "`span`"),
        ({"dropout": 1.0}, "`dropout`"),
        ({"label_smoothing": 0.6}, "`label_smoothing`"),
        ({"noise": -1.0}, "`noise`"),
        ({"flip": 1.5}, "`flip`"),
        ({"reconstruction": 0.0, "adversarial": 0.0}, "nothing to learn"),
        ({"levels": 0}, "`levels`"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeMismatch, match=message):
        Config(**changes)  # type: ignore[arg-type]


def test_a_span_that_is_not_the_datas_window_is_refused() -> None:
    recipe = Recipe.load("pix2pix3d", ["data.window=[-1000, 400]"])
    with torch.device("meta"):
        built = recipe.build()
    with pytest.raises(RecipeMismatch, match=r"`span`.*\[data\] window"):
        built.feed(None, recipe.data)  # type: ignore[arg-type]


def test_shift_and_flip_reach_the_feed_which_moves_both_halves_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.load("pix2pix3d", ["data.shift=7", "model.flip=0.25", "model.width=2"])
    given: dict[str, object] = {}
    monkeypatch.setattr(pix2pix3d, "Paired", lambda *args, **named: given.update(named, shape=args[1], window=args[2]))
    with torch.device("meta"):
        recipe.build().feed(None, recipe.data, "validation")  # type: ignore[arg-type]
    expected = {"shape": (16, 512, 512), "window": Window(*SPAN), "split": "validation", "shift": 7, "flip": 0.25}
    assert given == expected


def test_bone_and_metal_survive_the_windows() -> None:
    """Published: output clipped to +-1000 HU."""
    config = Recipe.load("pix2pix3d").config
    assert max(high for _, high in config.windows) == config.span[1] == 3071
    assert min(low for low, _ in config.windows) == config.span[0] == -1024


def test_the_rate_falls_as_published() -> None:
    optimizer = Recipe.load("pix2pix3d").optimizer
    epoch = optimizer.decay_start // 10
    assert optimizer.rate(10 * epoch) == optimizer.lr
    for later in (11, 20, 50):
        assert optimizer.rate(later * epoch) == pytest.approx(optimizer.lr / (1 + 0.1 * (later - 10)))
