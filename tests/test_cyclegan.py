"""CycleGAN: its networks, its pool, its game, and the radiographs it learns from."""

import json
import math
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import tiny
from tomogen.batch import Batch
from tomogen.cases.folder import CaseFolder
from tomogen.cases.radiographs import prepare_radiographs
from tomogen.cases.unpaired import Unpaired, narrowed
from tomogen.errors import DataInvalid, InputMissing, RecipeMismatch
from tomogen.layers.instancenorm import InstanceNorm
from tomogen.layers.pool import Pool
from tomogen.models.cyclegan import STYLES, Config, Generator, Model, ReflectedConv, mirrored
from tomogen.recipe import Recipe
from tomogen.run import Run, sha256
from tomogen.synthesizer import Turn
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game, train

GENERATORS, DISCRIMINATORS = Turn("generators"), Turn("discriminators", fresh=False)
SLIM: dict[str, Any] = {"shape": (24, 24), "width": 2, "blocks": 1, "discriminator_width": 2, "pool": 3}
TINY = """# A CycleGAN of a few hundred weights.
[model]
name = "cyclegan"
shape = [24, 24]
width = 2
blocks = 1
discriminator_width = 2
pool = 3

[data]
shift = 2

[training]
steps = 4
batch = 2
average = 0.9
checkpoint_every = 2
preview_every = 4

[optimizer]
lr = 1e-3
betas = [0.5, 0.999]
"""


def built(seed: int = 0, **config: Any) -> Model:
    torch.manual_seed(seed)
    return Model(Config(**(SLIM | config)))


def batch_for(model: Model, count: int = 2, seed: int = 1) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    radiograph, drr = (torch.rand(count, 1, *model.shape, generator=draws) * 2 - 1 for _ in STYLES)
    return Batch(radiograph, {"drr": drr}, tuple(range(seed, seed + count)))


class Lifted(nn.Module):
    """A generator that adds a number and nothing else."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, picture: Tensor) -> Tensor:
        return picture + self.by


def lifting(radiograph: float, drr: float, **config: Any) -> Model:
    model = built(**config)
    model.generators["radiograph"], model.generators["drr"] = Lifted(radiograph), Lifted(drr)
    return model


# ---- the generators ----


def test_the_networks_have_the_published_layers_and_numbers_of_weights() -> None:
    """11.38 and 2.76 million with three channels and with biases that instance norm takes off."""
    with torch.device("meta"):
        model = Model(Recipe.load("cyclegan").config)
    generator, discriminator = model.generators["drr"], model.discriminators["drr"]
    shapes = [tuple(weight.shape) for name, weight in generator.named_parameters() if "bias" not in name]
    body = [(256, 256, 3, 3)] * 18
    down, up = [(128, 64, 3, 3), (256, 128, 3, 3)], [(128, 256, 3, 3), (64, 128, 3, 3)]
    assert shapes == [(64, 1, 7, 7), *down, *body, *up, (1, 64, 7, 7)]
    biases = 64 + 128 + 256 + 18 * 256 + 128 + 64 + 2
    colour = 2 * 2 * 64 * 49
    assert sum(weight.numel() for weight in generator.parameters()) + biases + colour == 11_378_179
    assert sum(weight.numel() for weight in discriminator.parameters()) + 128 + 256 + 512 + 2 * 64 * 16 == 2_764_737


@given(st.integers(8, 41), st.integers(8, 41))
@settings(max_examples=25)
def test_a_picture_comes_out_as_large_as_it_went_in(rows: int, columns: int) -> None:
    with torch.no_grad():
        made = Generator(2, 1)(torch.zeros(2, 1, rows, columns))
    assert made.shape == (2, 1, rows, columns)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_mirrored_margin_is_numpys_and_the_same_for_any_number_of_channels(channels: int) -> None:
    image = torch.randn(2, channels, 8, 9)
    expected = np.pad(image.numpy(), [(0, 0), (0, 0), (3, 3), (3, 3)], mode="reflect")
    assert np.array_equal(mirrored(image, 3).numpy(), expected)
    for kernel in (3, 7):
        layer = ReflectedConv(channels, 4, kernel)
        assert layer(image).shape == (2, 4, 8, 9)
        flat = layer(torch.ones(1, channels, 8, 9))
        torch.testing.assert_close(flat, flat[..., :1, :1].expand_as(flat))  # no zeros come in at the edges


def test_the_figure_of_the_paper_written_plainly_gives_the_same() -> None:
    """On sizes of every remainder by 4."""
    torch.manual_seed(0)
    generator, norm = Generator(3, 2).double(), nn.functional.instance_norm
    for weight in generator.parameters():
        nn.init.normal_(weight, 0, 0.3)
    for size in (16, 17, 18, 19):
        picture = torch.randn(1, 1, size, size + 1, dtype=torch.float64)
        x = F.relu(norm(F.conv2d(F.pad(picture, [3] * 4, mode="reflect"), generator.enter.conv.weight)))
        sizes = []
        for layer in generator.down:
            sizes.append(x.shape)
            x = F.relu(norm(F.conv2d(x, layer.weight, stride=2, padding=1)))
        for block in generator.body:
            y = F.relu(norm(F.conv2d(F.pad(x, [1] * 4, mode="reflect"), block.first.conv.weight)))
            x = x + norm(F.conv2d(F.pad(y, [1] * 4, mode="reflect"), block.second.conv.weight))
        for layer in generator.up:
            rows, columns = sizes.pop()[2:]
            twice = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.relu(norm(F.conv2d(twice, layer.weight, padding=1)[..., :rows, :columns]))
        head = generator.leave
        plain = F.conv2d(F.pad(x, [3] * 4, mode="reflect"), head.weight, head.bias).tanh()
        torch.testing.assert_close(generator(picture), plain.float(), rtol=1e-4, atol=1e-5)


def test_a_picture_does_not_depend_on_those_beside_it() -> None:
    model = built().eval()
    pictures = torch.rand(3, 1, 24, 24) * 2 - 1
    together = model.restyle(pictures, "drr")
    torch.testing.assert_close(model.restyle(pictures[1:2], "drr"), together[1:2], rtol=1e-4, atol=1e-5)


def test_a_score_judges_70_by_70_pixels() -> None:
    """Of 30 x 30 scores on 256 pixels; the norms, which see everything, are taken out."""
    torch.manual_seed(0)
    judge = Model(Config(shape=(128, 128), width=1, blocks=1, discriminator_width=1)).discriminators["drr"]
    with torch.no_grad():
        assert judge(torch.zeros(1, 1, 256, 256))[-1].shape == (1, 1, 30, 30)
    for block in judge.blocks:
        block.norm = None
    picture = torch.randn(1, 1, 128, 128, requires_grad=True)
    judge(picture)[-1][0, 0, 7, 7].backward()
    assert picture.grad is not None
    rows = picture.grad[0, 0].any(dim=1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_generate_makes_radiographs_and_restyle_goes_both_ways() -> None:
    model = lifting(0.25, -0.5)
    picture = torch.zeros(1, 1, 24, 24)
    assert model.generate(torch.zeros(1, 0), {"drr": picture}).unique().tolist() == [0.25]
    assert model.restyle(picture, towards="radiograph").unique().tolist() == [0.25]
    assert model.restyle(picture, towards="drr").unique().tolist() == [-0.5]


# ---- the pool ----


def numbered(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count, dtype=torch.float32).view(count, 1, 1, 1)


def test_the_first_images_pass_through_and_are_kept() -> None:
    pool = Pool(50, (1, 1, 1))
    draws = torch.rand(50, 2)
    assert torch.equal(pool(numbered(0, 30), draws[:30]), numbered(0, 30))
    assert torch.equal(pool(numbered(30, 20), draws[30:]), numbered(30, 20))
    assert torch.equal(pool.images, numbered(0, 50))


def test_a_full_pool_exchanges_by_its_draws() -> None:
    """A first draw below a half exchanges; the second says with which."""
    pool = Pool(4, (1, 1, 1))
    pool(numbered(0, 4), torch.rand(4, 2))
    handed = pool(numbered(4, 4), torch.tensor([[0.49, 0.5], [0.5, 0.5], [0.0, 0.9999], [0.2, 0.5]]))
    assert handed.flatten().tolist() == [2, 5, 3, 4], "the last draws what the first put there"
    assert pool.images.flatten().tolist() == [0, 1, 7, 6]


def test_half_of_what_a_full_pool_hands_out_is_old_and_each_image_at_most_twice() -> None:
    pool, count = Pool(50, (1, 1, 1)), 4000
    torch.manual_seed(0)
    handed = torch.cat([pool(numbered(first, 4), torch.rand(4, 2)) for first in range(0, count, 4)]).flatten()
    fresh = handed == torch.arange(count)
    assert fresh[:50].all()
    assert float(fresh[50:].float().mean()) == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(count))
    assert (handed <= torch.arange(count)).all(), "nothing from the future"
    assert handed.unique(return_counts=True)[1].max() == 2
    ages = (torch.arange(count) - handed)[~fresh]
    assert float(ages.mean()) == pytest.approx(100, rel=0.15), "a place lasts 50 draws of which half exchange"


def test_a_pool_goes_on_from_its_state() -> None:
    first, second = Pool(3, (1, 2, 2)), Pool(3, (1, 2, 2))
    images, draws = torch.rand(5, 1, 2, 2), torch.rand(5, 2)
    first(images, draws)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    assert torch.equal(first(images.flip(0), draws), second(images.flip(0), draws))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_have_the_pool_of_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, draws = torch.rand(6, 4, 1, 2, 2), torch.rand(6, 4, 2)
    alone = Pool(5, (1, 2, 2))
    expected = torch.stack([alone(*round) for round in zip(images, draws, strict=True)])

    def share(rank: int) -> None:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=rank, world_size=2)
        pool, mine = Pool(5, (1, 2, 2)), slice(2 * rank, 2 * rank + 2)
        handed = [pool(image[mine], draw[mine]) for image, draw in zip(images, draws, strict=True)]
        torch.save((torch.stack(handed), pool.images), tmp_path / f"{rank}.pt")

    numbers = []
    for rank in range(2):
        number = os.fork()
        if number == 0:
            code = 1
            try:
                share(rank)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        numbers.append(number)
    assert [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers] == [0, 0]
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(torch.cat([handed for handed, _ in halves], 1), expected)
    assert all(torch.equal(kept, alone.images) for _, kept in halves)


# ---- the game ----


def test_generators_that_change_nothing_lose_nothing_in_cycle_and_identity() -> None:
    model = lifting(0.0, 0.0)
    losses = model(GENERATORS, batch_for(model))
    assert {name: losses[name].item() for name in losses if "adversarial" not in name} == {
        f"{term}_{style}": 0 for term in ("identity", "cycle") for style in STYLES
    }


def test_the_generators_terms_are_those_of_the_paper() -> None:
    """Lifted by 0.25 and by 0.5, a picture comes back 0.75 too bright, and one that had the look changes by its own."""
    model = lifting(0.25, 0.5, cycle=8.0, identity=3.0)
    batch = batch_for(model)
    losses = model(GENERATORS, batch)
    assert [losses[f"cycle_{style}"].item() for style in STYLES] == pytest.approx([6, 6], rel=1e-5)
    assert [losses[f"identity_{style}"].item() for style in STYLES] == pytest.approx([0.75, 1.5], rel=1e-5)
    for style, made in (("radiograph", batch.condition["drr"] + 0.25), ("drr", batch.image + 0.5)):
        scores = model.discriminators[style](made)[-1]
        torch.testing.assert_close(losses[f"adversarial_{style}"], (scores - 1).square().mean())


def test_without_identity_it_is_not_computed() -> None:
    calls = []
    model = built(identity=0)
    for style in STYLES:
        model.generators[style].register_forward_pre_hook(lambda *_: calls.append(1))
    losses = model(GENERATORS, batch_for(model))
    assert len(calls) == 4
    assert not [name for name in losses if "identity" in name]


def test_the_discriminators_terms_are_half_of_least_squares_on_real_and_pooled_pictures() -> None:
    model = lifting(0.25, -0.5)
    batch = batch_for(model)
    model(GENERATORS, batch)
    losses = model(DISCRIMINATORS, batch)
    shown = {
        "radiograph": (batch.image, batch.condition["drr"] + 0.25),
        "drr": (batch.condition["drr"], batch.image - 0.5),
    }
    for style, (real, fake) in shown.items():
        judge = model.discriminators[style]
        torch.testing.assert_close(losses[f"real_{style}"], (judge(real)[-1] - 1).square().mean() / 2)
        torch.testing.assert_close(losses[f"fake_{style}"], judge(fake)[-1].square().mean() / 2)
        assert torch.equal(model.pools[style].images[:2], fake)


def test_once_the_pool_is_full_the_discriminators_see_old_pictures_half_of_the_time() -> None:
    model = built(pool=2)
    seen: list[Tensor] = []
    model.discriminators["drr"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    made: list[Tensor] = []
    ages = []
    for number in range(12):
        batch = batch_for(model, 2, seed=1 + 2 * number)
        model(GENERATORS, batch)
        made += list(seen[-1])
        model(DISCRIMINATORS, batch)
        for row, shown in enumerate(seen[-1][2:]):
            ages.append(2 * number + row - next(n for n, one in enumerate(made) if torch.equal(one, shown)))
    assert ages[:2] == [0, 0]
    assert 5 <= sum(age > 0 for age in ages) <= 17


def test_the_discriminators_see_what_was_made_before_the_generators_moved() -> None:
    losses = []
    for moved in (False, True):
        model = built()
        batch = batch_for(model)
        model(GENERATORS, batch)
        if moved:
            for weight in model.generators.parameters():
                weight.data += 1
        losses.append({name: loss.item() for name, loss in model(DISCRIMINATORS, batch).items()})
    assert losses[0] == losses[1]


def test_two_halves_of_a_batch_have_the_losses_of_the_whole_old_pictures_included() -> None:
    whole, halved = built(), built()
    for number in range(4):
        batch = batch_for(whole, 4, seed=1 + 4 * number)
        rows = [slice(0, 2), slice(2, 4)]
        halves = [Batch(batch.image[r], {"drr": batch.condition["drr"][r]}, batch.seeds[r]) for r in rows]
        for turn in (GENERATORS, DISCRIMINATORS):
            together = whole(turn, batch)
            parts = [halved(turn, half) for half in halves]
            for name, loss in together.items():
                torch.testing.assert_close(sum(part[name] for part in parts) / 2, loss, rtol=1e-4, atol=1e-6)


def test_two_halves_of_a_batch_have_the_gradients_of_the_whole() -> None:
    """A batch of one in channels-last memory included, of which torch's own instance norm has another gradient."""
    model = built(shape=(48, 48))
    whole = batch_for(model, 2)
    halves = [
        Batch(whole.image[n : n + 1], {"drr": whole.condition["drr"][n : n + 1]}, whole.seeds[n : n + 1])
        for n in (0, 1)
    ]
    found = []
    for batches in ([whole], halves):
        model.zero_grad()
        for batch in batches:
            (sum(model(GENERATORS, batch).values()) / len(batches)).backward()
        found.append([weight.grad.clone() for weight in model.generators.parameters() if weight.grad is not None])
    for together, apart in zip(*found, strict=True):
        assert float((together - apart).norm() / together.norm()) < 1e-3


def test_each_direction_learns_and_a_turn_moves_its_player_only() -> None:
    model = built()
    batch = batch_for(model)
    for parameter in model.discriminators.parameters():
        parameter.requires_grad_(False)
    sum(model(GENERATORS, batch).values()).backward()
    for style in STYLES:
        assert all(weight.grad is not None and weight.grad.any() for weight in model.generators[style].parameters())
    for parameter in model.parameters():
        parameter.grad = None
        parameter.requires_grad_(True)
    sum(model(DISCRIMINATORS, batch).values()).backward()
    assert all(weight.grad is None for weight in model.generators.parameters())
    assert all(weight.grad is not None for weight in model.discriminators.parameters())


def test_weights_are_born_as_published() -> None:
    for layer in Model(Config(shape=(32, 32), blocks=2)).modules():
        weight = getattr(layer, "weight", None)
        if weight is not None:
            error = 5 / math.sqrt(weight.numel())
            assert weight.mean().item() == pytest.approx(0, abs=0.02 * error)
            assert weight.std().item() == pytest.approx(0.02, rel=error)
        if getattr(layer, "bias", None) is not None:
            assert not layer.bias.any()
        if isinstance(layer, InstanceNorm):
            assert not list(layer.parameters())


def test_the_published_recipe_plays_by_the_published_rules() -> None:
    recipe = Recipe.load("cyclegan")
    config, optimizer = recipe.config, recipe.optimizer
    assert (config.shape, config.width, config.blocks, config.discriminator_width) == ((256, 256), 64, 9, 64)
    assert (config.cycle, config.identity, config.pool, recipe.training.batch) == (10, 5, 50, 1)
    assert (optimizer.kind, optimizer.lr, optimizer.betas, optimizer.decay) == ("adam", 2e-4, (0.5, 0.999), "linear")
    assert [optimizer.rate(step) for step in (0, 100_000, 150_000)] == pytest.approx([2e-4, 2e-4, 1e-4])
    assert 0 < optimizer.rate(recipe.training.steps - 1) < 1e-8


def test_the_light_recipe_has_three_blocks_and_falls_over_its_latter_half() -> None:
    recipe = Recipe.load("cyclegan_light")
    assert recipe.config.blocks == 3
    assert recipe.optimizer.decay_start + recipe.optimizer.decay_steps == recipe.training.steps


def test_two_pairs_of_generators_learn_a_style() -> None:
    """Bright squares on the left, dark ones on the right look, anywhere: in 30 steps each is made from the other."""
    torch.manual_seed(0)
    values = ["shape=[24,24]", "width=4", "blocks=1", "discriminator_width=4", "pool=8"]
    settings = ["training.steps=30", "training.batch=2", "optimizer.lr=3e-3", "training.precision='fp32'"]
    recipe = Recipe.load("cyclegan_light", [*(f"model.{value}" for value in values), *settings])
    game = Game(recipe.build(), recipe, fabric_of("cpu"))
    random = np.random.default_rng(0)

    def drawn() -> tuple[Tensor, Tensor]:
        squares = torch.zeros(2, 1, 24, 24)
        for square in squares:
            row, column = random.integers(2, 14, 2)
            square[0, row : row + 8, column : column + 8] = 1
        return squares, squares * 1.2 - 0.6

    def batches() -> Any:
        while True:
            yield Batch(drawn()[1], {"drr": -drawn()[1]})

    list(train(game, batches()))
    squares, bright = drawn()
    with torch.no_grad():
        radiograph = game.synthesizer.restyle(-bright, "radiograph")
        drr = game.synthesizer.restyle(bright, "drr")
    inside = squares == 1
    assert radiograph[inside].mean() - radiograph[~inside].mean() > 0.3, "dark squares became bright"
    assert drr[inside].mean() - drr[~inside].mean() < -0.3, "and bright ones dark"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"shape": (24, 32)}, "square"),
        ({"shape": (16, 16)}, "at least 24"),
        ({"shape": (24, 24, 24)}, "square"),
        ({"views": ()}, "frontal, lateral or both"),
        ({"views": ("frontal", "frontal")}, "frontal, lateral or both"),
        ({"geometry": "kitchen"}, "chest"),
        ({"energy": 5.0}, "keV"),
        ({"blocks": 0}, "`blocks`"),
        ({"pool": 0}, "`pool`"),
        ({"cycle": -1.0}, "`cycle`"),
        ({"identity": math.nan}, "`identity`"),
    ],
)
def test_what_fits_no_network_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeMismatch, match=said):
        Config(**config)


# ---- the feed ----


def radiographs(folder: Path, frontal: int = 5, lateral: int = 3) -> Path:
    """Pictures of nobody: a frontal one has two dark lungs, a lateral one."""
    folder.mkdir()
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    lines = ["file,view"]
    for number in range(frontal + lateral):
        middles = (-0.45, 0.45) if number < frontal else (0.0,)
        lung = np.min([(columns - x) ** 2 * (5 + number) + rows**2 * 2 for x in middles], axis=0)
        grey = 40 + 200 * lung.clip(0, 1) - 3 * number * (rows > 0.8)
        name, view = f"{number}.png", "pa" if number < frontal else "lateral"
        Image.fromarray(grey.astype(np.uint8)).save(folder / name)
        lines.append(f"{name},{view}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepared(place: Path, frontal: int = 5, lateral: int = 3) -> CaseFolder:
    """Cases with radiographs, all of them to train on."""
    folder = tiny.folder(place / "cases")
    source = radiographs(place / "radiographs", frontal, lateral)
    prepare_radiographs([source], folder.path, split=(1, 0, 0), size=48)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CaseFolder:
    return prepared(tmp_path_factory.mktemp("unpaired"))


def unpaired(folder: CaseFolder, **options: Any) -> Unpaired:
    return Unpaired(folder, 24, **options)


def test_image_n_is_a_function_of_the_seed_and_n_alone(folder: CaseFolder) -> None:
    first, second = unpaired(folder, shift=3), unpaired(folder, shift=3)
    ahead = [first.draw(7, number) for number in range(12)]
    for number in (11, 3, 0, 8):
        again = second.draw(7, number)
        assert np.array_equal(again.image, ahead[number].image)
        assert np.array_equal(again.condition["drr"], ahead[number].condition["drr"])
    others = [first.draw(8, number) for number in range(12)]
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(ahead, others, strict=True))


def test_pictures_are_on_minus_one_to_one_and_of_the_size(folder: CaseFolder) -> None:
    for number in range(6):
        sample = unpaired(folder, shift=2).draw(0, number)
        for picture in (sample.image, sample.condition["drr"]):
            assert picture.shape == (1, 24, 24)
            assert picture.dtype == np.float32
            assert -1 <= picture.min() < picture.max() <= 1


def test_kinds_take_turns_and_the_two_pictures_are_of_one_kind(
    folder: CaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shot, read = [], []
    real, computed = Unpaired.real, Unpaired.computed
    monkeypatch.setattr(Unpaired, "real", lambda self, entry: read.append(entry.view) or real(self, entry))
    monkeypatch.setattr(Unpaired, "computed", lambda self, *what: shot.append(what[1]) or computed(self, *what))
    feed = unpaired(folder)
    for number in range(8):
        feed.draw(0, number)
    assert shot == ["frontal", "lateral"] * 4
    assert read == ["pa", "lateral"] * 4


def test_each_radiograph_comes_once_in_every_pass_over_its_kind(folder: CaseFolder) -> None:
    feed = unpaired(folder, kinds=("frontal",))
    passes = [{feed.draw(3, number).image.tobytes() for number in range(first, first + 5)} for first in (0, 5)]
    assert [len(each) for each in passes] == [5, 5]
    assert passes[0] == passes[1]


def test_a_shift_cuts_parts_out_of_larger_pictures_at_places_of_their_own(folder: CaseFolder) -> None:
    feed = unpaired(folder, kinds=("frontal",), shift=4)
    whole = {
        "real": [feed.real(entry) for entry in feed.pictures["frontal"]],
        "computed": [feed.computed(case, "frontal") for case in feed.cases],
    }
    assert whole["real"][0].shape == whole["computed"][0].shape == (32, 32)

    def place(cut: NDArray[np.float32], pictures: list[NDArray[np.float32]]) -> tuple[int, int]:
        for picture in pictures:
            for row, column in np.ndindex(9, 9):
                if np.allclose(picture[row : row + 24, column : column + 24], (cut + 1) / 2, atol=1e-6):
                    return row, column
        pytest.fail("a part of no picture")

    samples = [feed.draw(0, number) for number in range(20)]
    real = [place(sample.image[0], whole["real"]) for sample in samples]
    computed = [place(sample.condition["drr"][0], whole["computed"]) for sample in samples]
    assert min(len(set(real)), len(set(computed))) > 10
    assert real != computed


def test_a_drr_is_that_of_its_scan_without_an_empty_margin(folder: CaseFolder) -> None:
    """The smallest ball is bright in the middle, where rays are longest, and reaches to the edges."""
    feed = unpaired(folder)
    for kind in ("frontal", "lateral"):
        drr = feed.computed(feed.cases[0], kind)
        assert drr[11:13, 11:13].min() > 0.9
        assert max(drr[0, 0], drr[23, 23]) < 0.05
        assert drr[12, [1, 22]].min() > 0
        assert drr[[1, 22], 12].min() > 0


def test_a_short_scan_is_shown_no_wider_than_a_radiograph() -> None:
    wide, high = np.tile(np.arange(150, dtype=np.float32), (100, 1)), np.zeros((150, 60), np.float32)
    assert narrowed(wide)[0].tolist() == list(range(10, 140))
    assert narrowed(high).shape == high.shape


def test_a_batch_larger_than_a_pass_is_refused(folder: CaseFolder) -> None:
    unpaired(folder).enough(6)
    with pytest.raises(DataInvalid, match="6 radiographs"):
        unpaired(folder).enough(7)


def test_cases_without_radiographs_say_how_to_prepare_them(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "cases")
    with pytest.raises(InputMissing) as error:
        unpaired(folder)
    assert "--radiographs" in (error.value.fix or "")


def test_a_kind_of_which_there_are_none_is_named_and_may_be_left_out(tmp_path: Path) -> None:
    folder = prepared(tmp_path, frontal=3, lateral=0)
    with pytest.raises(DataInvalid, match="no real lateral radiographs") as error:
        unpaired(folder)
    assert """--set 'model.views=["frontal"]'""" in (error.value.fix or "")
    assert unpaired(folder, kinds=("frontal",)).draw(0, 0).image.shape == (1, 24, 24)


# ---- a run ----


def trained(place: Path, out: str, **options: Any) -> Run:
    if not (place / "cases").exists():
        prepared(place)
    tiny.recipe(place, TINY)
    return Run.open(tiny.trained(place, out, **options).run)


def test_a_resumed_run_equals_the_unbroken_one_pools_included(tmp_path: Path) -> None:
    whole = trained(tmp_path, "whole")
    trained(tmp_path, "broken", steps=3)
    broken = trained(tmp_path, "broken", resume=True)
    for part in (
        "weights.safetensors",
        *(f"checkpoints/step-000004/{name}.safetensors" for name in ("model", "optimizers")),
    ):
        assert sha256(broken.path / part) == sha256(whole.path / part), part
    assert {f"generators/{term}_{style}" for term in ("adversarial", "cycle", "identity") for style in STYLES} <= set(
        whole.log()[0]
    )
    assert (whole.path / "previews" / "step-000004.png").is_file()


def test_published_weights_hold_no_picture_made_of_a_patients(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from tomogen.generation.load import load

    run = trained(tmp_path, "run")
    assert not [name for name in load_file(run.weights) if "pool" in name]
    kept = load_file(sorted((run.path / "checkpoints").iterdir())[-1] / "model.safetensors")
    assert [name for name in kept if name.startswith("pools.")]
    assert load(run.path, "cpu").synthesizer.restyle(torch.zeros(1, 1, 24, 24), "drr").shape == (1, 1, 24, 24)


def test_a_run_does_not_go_on_with_other_radiographs(tmp_path: Path) -> None:
    trained(tmp_path, "run", steps=2)
    prepare_radiographs([tmp_path / "radiographs"], tmp_path / "cases", split=(1, 0, 0), size=40, overwrite=True)
    with pytest.raises(RecipeMismatch, match="what lies beside"):
        trained(tmp_path, "run", resume=True)


def test_previews_do_without_held_out_radiographs_where_a_small_split_lacks_a_kind(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    catalog = folder.path / "catalog.json"
    told = json.loads(catalog.read_text())
    told["cases"][0]["split"] = "val"  # a scan is held out, and no radiograph
    catalog.write_text(json.dumps(told))
    assert (trained(tmp_path, "run").path / "previews" / "step-000004.png").is_file()
