"""Promises that every recipe keeps; a new file in recipes/ is tested without a word here."""

import contextlib
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tomogen import recipes
from tomogen.batch import Batch
from tomogen.errors import RecipeMismatch
from tomogen.recipe import Recipe, names
from tomogen.synthesizer import Synthesizer, Turn

RECIPES = sorted(names())
SMALLEST = {"shape": 8}
"""No number of a model is made smaller than 2, and no side of an image smaller than this."""
FLAT = {"wgan2d_mlp": {"critic.5.bias"}}
"""By recipe: parameters that no loss depends on, for a reason: the published bias of a Wasserstein score."""


@functools.cache
def shrunk(name: str) -> Recipe:
    """The recipe with every whole number of its model halved for as long as the model takes it."""
    config = Recipe.load(name).config
    while (smaller := next(_smaller(config), None)) is not None:
        config = smaller
    given = {key: value for key, value in asdict(config).items() if value is not None}
    return Recipe.load(name, [f"model.{key}={json.dumps(value)}" for key, value in given.items()])


def _smaller(config: Any) -> Iterator[Any]:
    """The configuration with one number halved, for each with which the model still fits."""
    for key, value in asdict(config).items():
        half = halved(value, SMALLEST.get(key, 2))
        if half != value:
            with contextlib.suppress(RecipeMismatch):
                yield replace(config, **{key: half})


def halved(value: Any, least: int) -> Any:
    """A whole number over 2, or several together, where none falls below `least`; other values as they are."""
    if isinstance(value, tuple | list) and all(type(part) is int and part // 2 >= least for part in value):
        return type(value)(part // 2 for part in value)
    return value // 2 if type(value) is int and value // 2 >= least else value


def built(name: str, seed: int = 0) -> Synthesizer:
    """The recipe's model, shrunk."""
    torch.manual_seed(seed)
    return shrunk(name).build()


def batch_for(synthesizer: Synthesizer, count: int = 4) -> Batch:
    draw = torch.Generator().manual_seed(1)

    def drawn(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(count, *shape, generator=draw) * 2 - 1

    image = drawn((1, *synthesizer.shape))
    condition = {name: drawn(synthesizer.condition_shape(name)) for name in synthesizer.conditions}
    return Batch(image, condition, tuple(range(count)))


def distinct_turns(synthesizer: Synthesizer) -> list[Turn]:
    return list(dict.fromkeys(turn for step in range(32) for turn in synthesizer.turns(step)))


def before(synthesizer: Synthesizer, turn: Turn) -> list[Turn]:
    """The turns of a step that come before a turn which is not fresh: they may hand something on to it."""
    for step in range(32):
        turns = list(synthesizer.turns(step))
        if turn in turns:
            return [] if turn.fresh else turns[: turns.index(turn)]
    raise AssertionError(f"{turn} is in no step")


def play(synthesizer: Synthesizer, turn: Turn, batch: Batch) -> dict[str, torch.Tensor]:
    """A turn as the trainer plays it: gradients for its player alone."""
    for earlier in before(synthesizer, turn):
        synthesizer(earlier, batch)
    for parameter in synthesizer.parameters():
        parameter.requires_grad_(False)
    for parameter in synthesizer.get_submodule(turn.player).parameters():
        parameter.requires_grad_(True)
    losses = synthesizer(turn, batch)
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize("name", RECIPES)
def test_the_numbers_of_parameters_are_those_that_its_comment_states(name: str) -> None:
    text = (Path(recipes.__path__[0]) / f"{name}.toml").read_text()
    stated = re.search(r"^# Parameters: (.*?)[.(\n]", text, re.MULTILINE)
    assert stated, "no line '# Parameters: PLAYER NUMBER, PLAYER NUMBER'"
    with torch.device("meta"):
        synthesizer = Recipe.load(name).build()
    for player in synthesizer.players:
        count = sum(parameter.numel() for parameter in synthesizer.get_submodule(player).parameters())
        assert re.search(rf"\b{player} {count}\b", text), f"{player} has {count}"


@pytest.mark.parametrize("name", RECIPES)
def test_its_first_line_says_what_it_is(name: str) -> None:
    assert len(names()[name]) > 20


@pytest.mark.parametrize("name", RECIPES)
def test_every_turns_losses_are_finite_float32_scalars(name: str) -> None:
    synthesizer = built(name)
    for turn in distinct_turns(synthesizer):
        for term, loss in play(synthesizer, turn, batch_for(synthesizer)).items():
            assert loss.shape == (), term
            assert loss.dtype == torch.float32, term
            assert loss.isfinite(), term


@pytest.mark.parametrize("name", RECIPES)
def test_every_parameter_of_every_player_learns_in_some_turn(name: str) -> None:
    synthesizer = built(name)
    for turn in distinct_turns(synthesizer):
        play(synthesizer, turn, batch_for(synthesizer))
    gradients = {
        f"{player}.{path}": parameter.grad
        for player in synthesizer.players
        for path, parameter in synthesizer.get_submodule(player).named_parameters()
    }
    assert [path for path, gradient in gradients.items() if gradient is None] == []
    assert {path for path, gradient in gradients.items() if not gradient.any()} <= FLAT.get(name, set())


@pytest.mark.parametrize("name", RECIPES)
def test_a_turn_moves_its_player_only(name: str) -> None:
    for turn in distinct_turns(built(name)):
        synthesizer = built(name)
        play(synthesizer, turn, batch_for(synthesizer))
        moved = {path.split(".")[0] for path, parameter in synthesizer.named_parameters() if parameter.grad is not None}
        assert moved == {turn.player}


@pytest.mark.parametrize("name", RECIPES)
def test_a_steps_first_turn_is_fresh_and_every_player_moves(name: str) -> None:
    synthesizer = built(name)
    assert next(synthesizer.turns(0)).fresh
    assert {turn.player for turn in distinct_turns(synthesizer)} == set(synthesizer.players)
    assert set(synthesizer.averaged) <= set(synthesizer.players)


@pytest.mark.parametrize("name", RECIPES)
def test_generated_images_have_the_promised_shape_and_range_and_differ(name: str) -> None:
    synthesizer = built(name).eval()
    condition = batch_for(synthesizer, 3).condition
    with torch.no_grad():
        images = synthesizer.generate(torch.randn(synthesizer.noise_shape(3)), condition)
    assert images.shape == (3, 1, *synthesizer.shape)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seeds_give_the_same_weights_losses_and_gradients(name: str) -> None:
    first, second = built(name), built(name)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for turn in distinct_turns(first):
        ours, theirs = (play(model, turn, batch_for(model)) for model in (first, second))
        assert {term: loss.item() for term, loss in ours.items()} == {
            term: loss.item() for term, loss in theirs.items()
        }
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("name", RECIPES)
def test_bfloat16_changes_the_losses_by_its_rounding_only(name: str) -> None:
    synthesizer = built(name)
    for turn in distinct_turns(synthesizer):
        exact = play(synthesizer, turn, batch_for(synthesizer))
        with torch.autocast("cpu", torch.bfloat16):
            rough = play(synthesizer, turn, batch_for(synthesizer))
        for term, loss in exact.items():
            assert rough[term].dtype == torch.float32
            assert rough[term].item() == pytest.approx(loss.item(), rel=0.05, abs=0.02)


@pytest.mark.parametrize("name", RECIPES)
def test_its_state_is_plain_tensors_that_another_copy_takes_whole(name: str) -> None:
    first, second = built(name, seed=0), built(name, seed=1)
    state = {key: tensor.clone().contiguous() for key, tensor in first.state_dict().items()}
    second.load_state_dict(state)
    noise = torch.randn(first.noise_shape(2))
    condition = batch_for(first, 2).condition
    first.eval(), second.eval()
    assert torch.equal(first.generate(noise, condition), second.generate(noise, condition))


@pytest.mark.parametrize("section", ["model", "data", "training", "optimizer"])
@pytest.mark.parametrize("name", RECIPES)
def test_an_unknown_key_is_refused(name: str, section: str) -> None:
    with pytest.raises(RecipeMismatch, match="nonsense"):
        Recipe.load(name, [f"{section}.nonsense=1"]).config  # noqa: B018


@pytest.mark.parametrize("name", RECIPES)
def test_the_resolved_recipe_reads_back_as_itself(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    (tmp_path / "recipe.toml").write_text(recipe.resolved())
    assert Recipe.load(tmp_path / "recipe.toml").values() == recipe.values()
