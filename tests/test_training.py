"""The loop and its rules, on games small enough to work out by hand."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import tiny
from tomogen import device
from tomogen.batch import Batch, normal, seed_of
from tomogen.errors import (
    DataInvalid,
    DependencyMissing,
    OutOfSpace,
    RecipeMismatch,
    TrainingDiverged,
    UsageFault,
)
from tomogen.intensity import Window
from tomogen.recipe import Recipe
from tomogen.run import Run, sha256
from tomogen.synthesizer import Synthesizer, Turn
from tomogen.training import checkpoint, devices, memory, plots, previews, start, watch
from tomogen.training.trainer import Game, Step, train


class Toy(Synthesizer):
    """Two linear players that learn the mean of the images and of noise."""

    players = ("left", "right")
    averaged = ("right",)
    shape = (2, 2)

    def __init__(self, moves: tuple[Turn, ...] = (Turn("left"), Turn("right", fresh=False))) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 1), nn.Linear(3, 1)
        self.moves = moves
        self.met: list[tuple[Turn, Tensor, Tensor]] = []
        self.obeyed: list[Turn] = []

    def turns(self, step: int) -> Iterator[Turn]:
        yield from self.moves

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        noise = batch.normal("noise", 3)
        self.met.append((turn, batch.image, noise))
        if turn.player == "left":
            return {"fit": (self.left(batch.image.flatten(1)) - 1).square().mean()}
        return {
            "fit": (self.right(noise) - self.left(batch.image.flatten(1))).square().mean(),
            "bias": self.right.bias[0],
        }

    def after(self, turn: Turn) -> None:
        self.obeyed.append(turn)
        self.left.weight.clamp_(-0.4, 0.4)

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return count, 3

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return self.right(noise).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def game(toy: Toy, *set: str) -> Game:
    torch.manual_seed(0)
    for parameter in toy.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Game(toy, Recipe.load("wgan3d", ["training.batch=4", "training.average=0.5", *set]), fabric())


def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def images(start: int = 0, batch: int = 4) -> Iterator[Batch]:
    for number in itertools.count(start, batch):
        rows = [normal([seed_of("image", n)], "x", (1, 2, 2))[0] for n in range(number, number + batch)]
        yield Batch(torch.stack(rows), {})


def played(toy: Toy, *set: str, steps: int = 3) -> tuple[Game, list[Step]]:
    made = game(toy, *set, f"training.steps={steps}")
    return made, list(train(made, images()))


def weights(made: Game) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in made.synthesizer.parameters()])


def test_a_step_yields_every_term_by_player_and_counts_its_images() -> None:
    _, steps = played(Toy())
    assert [(step.step, step.images) for step in steps] == [(1, 4), (2, 8), (3, 12)]
    assert set(steps[0].losses) == {"left/fit", "right/fit", "right/bias"}


def test_the_first_losses_are_those_of_the_formula() -> None:
    toy = Toy()
    game(toy)
    batch = next(images())
    expected = (toy.left(batch.image.flatten(1)) - 1).square().mean().detach()
    _, steps = played(Toy(), steps=1)
    assert steps[0].losses["left/fit"] == pytest.approx(float(expected))


def test_only_the_moving_player_moves() -> None:
    toy = Toy((Turn("right"),))
    made = game(toy, "training.steps=2")
    before = toy.left.weight.detach().clamp(-0.4, 0.4).clone(), toy.right.weight.detach().clone()
    list(train(made, images()))
    assert torch.equal(toy.left.weight, before[0])
    assert not torch.equal(toy.right.weight, before[1])


def test_a_turn_that_is_not_fresh_meets_the_same_images_and_the_same_draws() -> None:
    toy = Toy((Turn("left"), Turn("right", fresh=False), Turn("right")))
    played(toy, steps=1)
    (_, a, noise_a), (_, b, noise_b), (_, c, noise_c) = toy.met
    assert torch.equal(a, b)
    assert torch.equal(noise_a, noise_b)
    assert not torch.equal(a, c)
    assert not torch.equal(noise_a, noise_c)


def test_a_step_never_begins_with_the_batch_of_the_step_before() -> None:
    toy = Toy((Turn("right", fresh=False),))
    _, steps = played(toy, steps=2)
    assert steps[-1].images == 8
    assert not torch.equal(toy.met[0][1], toy.met[1][1])


def test_weights_obey_the_model_after_every_move() -> None:
    toy = Toy()
    played(toy, "optimizer.lr=1.0")
    assert toy.obeyed == [Turn("left"), Turn("right", fresh=False)] * 3
    assert toy.left.weight.abs().max() <= 0.4


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_give_the_losses_and_weights_of_the_whole_batch(micro: int) -> None:
    whole, expected = played(Toy(), "optimizer.eps=1e-3")
    parts, found = played(Toy(), "optimizer.eps=1e-3", f"training.micro_batch={micro}")
    for a, b in zip(expected, found, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-5)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-5, atol=1e-6)


def test_the_gradient_is_clipped_at_its_norm() -> None:
    toy = Toy((Turn("left"),))
    made = game(toy, "training.steps=1", "training.clip_gradient=0.01", "optimizer.kind=rmsprop")
    list(train(made, images()))
    norm = torch.cat([parameter.grad.flatten() for parameter in toy.left.parameters() if parameter.grad is not None])
    assert float(norm.norm()) == pytest.approx(0.01, rel=1e-4)


def test_the_average_follows_its_formula() -> None:
    toy = Toy()
    made = game(toy, "training.steps=4", "training.average=0.3")
    expected = toy.right.weight.detach().clone()
    for number, _ in enumerate(train(made, images())):
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * toy.right.weight.detach()
    assert made.average is not None
    torch.testing.assert_close(made.average.tensors["right.weight"], expected)
    assert set(made.average.tensors) == {"right.weight", "right.bias"}


def test_generation_uses_the_average_and_leaves_the_weights_as_they_were() -> None:
    made, _ = played(Toy())
    assert made.average is not None
    before, noise = weights(made), torch.ones(1, 3)
    made_of_average = made.generate(noise, {})[0, 0, 0, 0]
    expected = made.average.tensors["right.weight"].sum() + made.average.tensors["right.bias"][0]
    torch.testing.assert_close(made_of_average, expected)
    assert torch.equal(weights(made), before)
    assert made.synthesizer.training


def test_a_state_that_is_restored_goes_on_as_if_nothing_had_happened() -> None:
    whole, expected = played(Toy(), steps=4)
    half, _ = played(Toy(), steps=2)
    resumed = game(Toy(), "training.steps=4")
    resumed.restore(half.state())
    found = list(train(resumed, images(8), step=2, images=8))
    assert found == expected[2:]
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize(("kind", "state"), [("adam", "exp_avg_sq"), ("rmsprop", "square_avg")])
def test_the_optimizer_is_the_recipes(kind: str, state: str) -> None:
    made, _ = played(Toy(), f"optimizer.kind={kind}", "optimizer.left.lr=0.5")
    assert f"left/{state}/weight" in made.state()["optimizers"]
    assert made.raw["left"].param_groups[0]["lr"] == 0.5
    assert made.raw["right"].param_groups[0]["lr"] == 2e-4


def test_a_players_rate_is_that_of_the_step() -> None:
    made = game(Toy(), "optimizer.decay=linear", "optimizer.decay_start=2", "optimizer.decay_steps=4")
    assert [group["lr"] for group in made.raw["left"].param_groups] == [2e-4]
    list(train(made, images(), step=3, images=12, stop=iter([False, True]).__next__))
    assert [group["lr"] for group in made.raw["left"].param_groups] == pytest.approx([2e-4 * 3 / 4])


def test_what_one_turn_hands_on_the_next_is_given_once_and_by_its_images() -> None:
    toy, batch = Toy(), Batch(torch.zeros(2, 1, 2, 2), {}, (1, 2))
    made = torch.ones(2, requires_grad=True)
    toy.hand_on(batch, made)
    assert not toy.handed(batch).requires_grad
    with pytest.raises(KeyError):
        toy.handed(batch)


def test_draws_depend_on_the_images_seed_and_the_draws_name_alone() -> None:
    image = torch.zeros(3, 1, 2, 2)
    batch = Batch(image, {}, (7, 8, 9))
    torch.manual_seed(1)
    a = batch.normal("noise", 5)
    torch.manual_seed(2)
    assert torch.equal(a, batch.normal("noise", 5))
    assert torch.equal(a[1:], Batch(image[1:], {}, (8, 9)).normal("noise", 5))
    assert not torch.equal(a, batch.normal("other", 5))
    assert not torch.equal(batch.uniform("share"), batch.uniform("shares"))
    many = Batch(torch.zeros(4000, 1), {}, tuple(range(4000)))
    assert abs(float(many.normal("n", 4).mean())) < 0.03
    assert abs(float(many.normal("n", 4).std()) - 1) < 0.03
    assert abs(float(many.uniform("u").mean()) - 0.5) < 0.03


# What is said early


def log(leads: list[float], penalty: bool = True) -> list[dict[str, Any]]:
    more = {"critic/penalty": 0.1} if penalty else {}
    return [{"step": step + 1, "critic/adversarial": -lead} | more for step, lead in enumerate(leads)]


def test_a_critic_whose_lead_keeps_growing_has_won() -> None:
    growing = [10 + step**0.5 + step % 3 for step in range(6 * watch.WINDOW)]
    assert "critic is winning" in (watch.critic_won(log(growing)) or "")
    assert watch.critic_won(log(growing[: 4 * watch.WINDOW])) is None, "too early to tell"
    caught = growing + [20 - step / 10 for step in range(watch.WINDOW)]
    assert watch.critic_won(log(caught)) is None


def test_a_lead_that_rises_and_is_caught_up_with_is_healthy() -> None:
    healthy = [20 * (step / 40) * 2.718 ** (1 - step / 40) + 1 for step in range(8 * watch.WINDOW)]
    for steps in range(0, len(healthy), 10):
        assert watch.words(log(healthy[:steps]), []) == {}


def test_an_estimate_that_does_not_move_is_stuck_unless_it_has_fallen_far() -> None:
    flat = [5.0 + 0.01 * (step % 3) for step in range(6 * watch.WINDOW)]
    assert "stays at 5" in (watch.stuck(log(flat)) or "")
    assert watch.stuck(log([50.0] * watch.WINDOW + flat)) is None
    assert watch.stuck(log([10 - step / 50 for step in range(6 * watch.WINDOW)])) is None
    assert watch.stuck(log(flat, penalty=False)) is None


def judged(steps: int, sure: float, made: float) -> list[dict[str, Any]]:
    """A log in which the discriminator's loss and the generator's move around two values, with spikes."""
    return [
        {
            "step": step + 1,
            "discriminator/real": sure / 2 * (0.5 + step % 3 / 2),
            "discriminator/fake": 1.9 if step % 40 == 7 else sure / 2,
            "generator/adversarial": made + (3 if step % 40 == 7 else step % 3 - 1),
        }
        for step in range(steps)
    ]


def test_a_discriminator_that_is_certain_for_long_has_won_as_in_the_published_run() -> None:
    enough = 2 * watch.PATIENCE * watch.WINDOW
    text = watch.words(judged(enough, 0.1, 5), [])["discriminator_won"]
    assert "its loss is 0.1 and the generator's 5" in text
    for remedy in ("label_smoothing", "instance_noise", "optimizer.discriminator.lr", "discriminator_norm=spectral"):
        assert remedy in text
    assert watch.discriminator_won(judged(enough - 1, 0.1, 5)) is None, "too early to tell"


@pytest.mark.parametrize(("sure", "made"), [(1.39, 0.69), (0.8, 2.0), (0.1, 2.0), (1.0, 5.0)])
def test_a_discriminator_that_errs_or_a_generator_that_is_believed_is_healthy(sure: float, made: float) -> None:
    assert watch.words(judged(1000, sure, made), []) == {}


def test_a_discriminator_that_was_certain_and_is_no_more_has_not_won() -> None:
    lines = judged(600, 0.1, 5) + judged(watch.WINDOW, 1.0, 2.0)
    assert watch.discriminator_won(lines[:600])
    assert watch.discriminator_won(lines) is None


def test_samples_that_stay_alike_have_collapsed() -> None:
    seen = [{"step": 10 * number, "event": "preview", "variety": 0.05} for number in range(5)]
    assert "collapsed" in (watch.collapsed(seen) or "")
    assert watch.collapsed(seen[:4]) is None, "the first preview is of a model that has learnt nothing"
    assert watch.collapsed([*seen, {"step": 60, "event": "preview", "variety": 0.5}]) is None
    assert watch.collapsed([{"step": 5, "event": "preview", "variety": None}] * 9) is None


# What is drawn


def test_previews_show_volumes_upright_in_true_proportions_and_films_run_in_step_order(tmp_path: Path) -> None:
    from PIL import Image

    volumes = torch.full((1, 1, 8, 8, 8), -1.0)
    volumes[0, 0, -1] = 1  # the highest slice: on top in the planes seen from in front and aside
    previews.write(previews.Shown(volumes, volumes), Window(), (6.0, 3.0, 3.0), tmp_path / "step-000000.png")
    with Image.open(tmp_path / "step-000000.png") as picture:
        grey = torch.tensor(list(picture.convert("L").get_flattened_data())).view(picture.height, picture.width)
    frontal = grey[:, int(grey.shape[1] * 0.45)]
    assert frontal.argmax() < 40, "twice as high as wide: an eighth of 128 pixels, from the top"
    assert frontal[64:128].max() < 30
    for step, level in ((2, 0.0), (10, 0.9)):
        slices = torch.full((5, 1, 8, 8), level)
        shown = previews.Shown(slices, slices)
        previews.write(shown, Window(), (1.0, 1.0, 1.0), tmp_path / f"step-{step:06d}.png")
    assert previews.film(tmp_path, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        means = []
        for frame in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(frame)
            means.append(sum(film.convert("L").histogram()[128:]))
    assert means == sorted(means)
    assert not previews.film(tmp_path / "nothing", tmp_path / "none.gif")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8)])
def test_real_images_stand_beside_made_ones_and_only_the_last_preview_is_kept(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    from PIL import Image

    real = torch.ones(4, 1, *shape)
    for step in (0, 2):
        shown = previews.Shown(torch.full_like(real, step / 2 - 1), real)
        previews.write(shown, Window(), (1.0, 1.0, 1.0), tmp_path / f"step-{step:06d}.png")
        with Image.open(tmp_path / previews.COMPARED) as both, Image.open(tmp_path / f"step-{step:06d}.png") as made:
            half = made.width, made.height
            right = both.crop((both.width - made.width, both.height - made.height, both.width, both.height))
            assert list(right.get_flattened_data()) == list(made.get_flattened_data())
            left = both.crop((0, both.height - half[1], half[0], both.height)).histogram()
            assert left[255] > sum(left[64:255]), "the real images are white"
            assert right.histogram()[255] < left[255] / 4
    assert len(list(tmp_path.iterdir())) == 3
    assert previews.film(tmp_path, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == half, "the film shows the made images alone"


def test_what_was_given_stands_left_of_real_and_made(tmp_path: Path) -> None:
    from PIL import Image

    volumes = torch.zeros(2, 1, 8, 8, 8)
    xrays = torch.ones(2, 2, 8, 8)
    xrays[1] = -1
    previews.write(previews.Shown(volumes, volumes, {"xrays": xrays}), Window(), (1.0, 1.0, 1.0), tmp_path / "a.png")
    with Image.open(tmp_path / previews.COMPARED) as sheet, Image.open(tmp_path / "a.png") as made:
        assert sheet.height == made.height + 16
        across = sheet.width - 2 * (made.width + 8)
        upper, lower = (sheet.crop((20, top, across - 8, top + 40)) for top in (40, 16 + made.height // 2 + 20))
    assert upper.getextrema() == (255, 255), "both views of the first volume, in its row"
    assert lower.getextrema() == (0, 0)


def test_the_variety_of_samples_is_a_share_of_that_of_the_real_images(tmp_path: Path) -> None:
    toy = Toy()
    first = Batch(torch.stack([torch.full((1, 2, 2), value) for value in (-0.5, 0.5)]), {}, (1, 2))
    seen = previews.Previews(game(toy), first)
    assert torch.equal(seen.images().real, first.image)
    assert seen.variety(previews.Shown(first.image / 4, first.image)) == pytest.approx(0.25)
    assert seen.variety(previews.Shown(first.image[:1], first.image[:1])) is None
    assert seen.variety(previews.Shown(first.image, first.image * 0)) is None


def test_a_plot_needs_something_to_plot(tmp_path: Path) -> None:
    lines = [{"step": step, "seconds": 0.1, "a/b": step**2, "c/d": None} for step in range(1, 500)]
    assert not plots.losses(lines[:1], tmp_path / "losses.png")
    assert plots.losses(lines, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


# A whole run


def test_a_run_holds_all_that_comes_after_needs(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None, str]] = []
    result = tiny.trained(tmp_path, "run", progress=lambda *now: seen.append(now), set=["training.keep=2"])
    run = Run.open(result.run)
    assert [line["step"] for line in run.log()] == [1, 2, 3, 4, 5, 6]
    assert run.log()[-1]["images"] == result.images == 6 * 2 * 4
    assert {"seconds", "memory", "critic/adversarial", "critic/penalty", "generator/adversarial"} <= set(run.log()[0])
    assert [line["step"] for line in run.events()] == [0, 2, 4, 6]
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == ["step-000004", "step-000006"]
    assert len(list((run.path / "previews").glob("step-*.png"))) == 4
    assert (run.path / "progress.gif").exists()
    assert (run.path / "losses.png").exists()
    assert run.spacing == (4.0, 3.0, 3.0)
    assert run.environment["threads"] == 1
    assert run.identifier == result.sha256[:16]  # type: ignore[index]
    assert seen[-1][:2] == (6, 6)
    assert not list(run.path.rglob("*.partial"))
    assert not [path for path in run.path.rglob("*") if path.suffix in (".pt", ".pkl", ".ckpt", ".bin")]


def test_a_model_of_slices_trains_on_the_same_cases(tmp_path: Path) -> None:
    from PIL import Image

    result = tiny.trained(tmp_path, "run", steps=2, set=["model.shape=[8,8]", "training.batch=5"])
    assert result.images == 2 * 2 * 5
    with Image.open(tmp_path / "run" / "previews" / "step-000002.png") as grid:
        assert min(grid.size) >= 2 * previews.LEGIBLE


def test_a_run_of_no_steps_has_the_weights_it_was_born_with(tmp_path: Path) -> None:
    born = tiny.trained(tmp_path, "run", steps=0)
    assert (born.steps, born.images, born.losses) == (0, 0, {})
    assert tiny.trained(tmp_path, "run", steps=1, resume=True).sha256 != born.sha256
    assert tiny.trained(tmp_path, "two", steps=1).sha256 == sha256(tmp_path / "run" / "weights.safetensors")


def test_published_weights_are_the_average_over_the_models(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    result = tiny.trained(tmp_path, "run")
    last = checkpoint.read(tmp_path / "run" / "checkpoints" / "step-000006").tensors()
    published = load_file(result.weights)  # type: ignore[arg-type]
    assert published.keys() == last["model"].keys()
    for name, tensor in published.items():
        assert torch.equal(tensor, last["average"].get(name, last["model"][name]))


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path) -> None:
    result = tiny.trained(tmp_path, "run", dry_run=True)
    assert (result.steps, result.images, result.cases, result.dry_run) == (6, 48, 6, True)
    assert result.parameters.keys() == {"critic", "generator"}
    assert not (tmp_path / "run").exists()
    real = tiny.trained(tmp_path, "run")
    size = sum(path.stat().st_size for path in (real.run / "checkpoints" / "step-000006").iterdir())
    assert size == pytest.approx(result.checkpoint_bytes, abs=10_000), "names and state.json aside"


def test_bf16_keeps_weights_and_averages_in_float32(tmp_path: Path) -> None:
    tiny.trained(tmp_path, "run", precision="bf16", steps=2)
    state = checkpoint.read(tmp_path / "run" / "checkpoints" / "step-000002").tensors()
    assert {tensor.dtype for part in state.values() for tensor in part.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("player", "what"), [("critic", "critic/adversarial is nan"), ("generator", "a weight is not finite")]
)
def test_what_is_no_number_stops_with_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, player: str, what: str
) -> None:
    play = Game.play

    def poisoned(self: Game, turn: Turn, batch: Batch, step: int, index: int) -> dict[str, Tensor]:
        losses = play(self, turn, batch, step, index)
        if step == 4 and turn.player == player:
            next(self.synthesizer.get_submodule(player).parameters()).data.fill_(torch.nan)
        return losses

    monkeypatch.setattr(Game, "play", poisoned)
    said = rf"{what} in step 5; stopped; last good checkpoint: step-000004"
    with pytest.raises(TrainingDiverged, match=said) as end:
        tiny.trained(tmp_path, "run", set=["training.checkpoint_every=1"])
    assert end.value.exit_code == 4
    kept = checkpoint.list_of(tmp_path / "run" / "checkpoints")
    assert kept[-1].name == "step-000004"
    for tensors in checkpoint.read(kept[-1]).tensors().values():
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_fewer_images_than_a_batch_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"6 volumes.*batch 8"):
        tiny.trained(tmp_path, "run", set=["training.batch=8"])
    assert not (tmp_path / "run").exists()


def test_cases_smaller_than_the_model_name_the_way_to_prepare_them(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid) as refused:
        tiny.trained(tmp_path, "run", set=["model.shape=[16,16,16]"])
    assert "prepare" in (refused.value.fix or "")


def test_a_slip_in_an_override_touches_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeMismatch):
        tiny.trained(tmp_path, "run", set=["training.btch=8"])
    assert not (tmp_path / "run").exists()


def test_an_occupied_output_is_refused_and_overwritten_on_demand(tmp_path: Path) -> None:
    first = tiny.trained(tmp_path, "run", steps=1)
    with pytest.raises(UsageFault) as refused:
        tiny.trained(tmp_path, "run", steps=1)
    assert refused.value.exit_code == 2
    assert tiny.trained(tmp_path, "run", steps=1, overwrite=True).sha256 == first.sha256
    with pytest.raises(UsageFault, match="exclude"):
        tiny.trained(tmp_path, "run", steps=1, overwrite=True, resume=True)


def test_a_disk_that_is_too_small_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutOfSpace, match=r"need 17 MB, 1 MB are free") as refused:
        tiny.trained(tmp_path, "run")
    assert refused.value.exit_code == 6
    assert not (tmp_path / "run").exists()


def test_a_seed_makes_the_run(tmp_path: Path) -> None:
    one, again, other = (tiny.trained(tmp_path, str(n), seed=seed, steps=2) for n, seed in enumerate((5, 5, 6)))
    assert one.sha256 == again.sha256 != other.sha256


def test_tensorboard_gets_the_losses_and_its_absence_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.trained(tmp_path, "run", steps=2, tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyMissing, match="tensorboard") as missing:
        tiny.trained(tmp_path, "other", steps=2, tensorboard=True)
    assert missing.value.exit_code == 7


# Devices, memory


def test_cuda_on_a_build_without_it_names_build_driver_and_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    with pytest.raises(DependencyMissing, match=r"2\.13\.0\+cpu is a build without CUDA; an NVIDIA driver") as missing:
        device.resolved("cuda")
    assert missing.value.exit_code == 7
    assert "pip install --force-reinstall torch==2.13.0" in (missing.value.fix or "")
    assert device.resolved("auto") == "cpu"


def test_torchrun_and_slurm_decide_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices._launched() is None
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert devices._launched() == (4, 2)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    for name, value in {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert devices._launched() == (2, 3)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert devices._launched() is None


def test_running_out_of_memory_names_step_peak_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Game, *anything: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Game, "play", full)
    with pytest.raises(OutOfSpace, match=r"out of memory on cpu in step 1; peak \d+\.\d of \d+\.\d GB") as end:
        tiny.trained(tmp_path, "run")
    assert end.value.exit_code == 6
    assert "micro_batch" in (end.value.fix or "")
    assert memory.out_of_memory(RuntimeError("shapes differ"), 1, torch.device("cpu")) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_the_allocator_takes_its_settings() -> None:
    code = (
        "import resource, torch; from tomogen.training.allocator import keep_freed_memory as keep; assert keep();"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
        "torch.ones(2**24).add_(1); before = faults();"
        # 100 tensors of 16384 pages each: 1.6 million faults without the settings
        "[torch.ones(2**24).numel() for _ in range(100)]; assert faults() - before < 300000, faults() - before"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)


def test_training_leaves_torchs_settings_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    tiny.trained(tmp_path, "run", steps=1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_run_does_not_go_into_its_own_cases(tmp_path: Path) -> None:
    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path)
    with pytest.raises(UsageFault, match="one folder"):
        tiny.trained(tmp_path, "cases", overwrite=True)
    assert not (tmp_path / "cases" / "recipe.toml").exists()
