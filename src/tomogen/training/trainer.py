"""The one training loop: it plays a synthesizer's turns and knows no loss."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from tomogen.batch import Batch, seed_of
from tomogen.recipe import Optimizer, Recipe
from tomogen.synthesizer import Synthesizer, Turn
from tomogen.training.average import Average


class Step(NamedTuple):
    """What a step of training came to."""

    step: int
    """Steps done."""
    images: int
    """Images taken, over all processes."""
    losses: dict[str, float]
    """Each loss term as `player/term`: mean over the processes and over the player's turns in this step."""


class Game:
    """A synthesizer under Fabric, with an optimizer for each player and the average of weights.

    Every process of a run holds one and makes the same calls on it.
    """

    def __init__(self, synthesizer: Synthesizer, recipe: Recipe, fabric: Fabric) -> None:
        self.fabric = fabric
        self.recipe = recipe
        self.synthesizer = synthesizer
        # Wrapped before the optimizers are made: FSDP replaces the parameters. All players as one module, so that
        # losses that pass through several of them need nothing special.
        self.module = fabric.setup_module(synthesizer)
        self.settings = {player: recipe.optimizer_of(player) for player in synthesizer.players}
        self.raw = {
            player: optimizer(settings, synthesizer.get_submodule(player)) for player, settings in self.settings.items()
        }
        self.optimizers = {player: fabric.setup_optimizers(raw) for player, raw in self.raw.items()}
        decay = recipe.training.average
        self.average = Average(synthesizer, decay) if decay and synthesizer.averaged else None

    def play(self, turn: Turn, batch: Batch, step: int, index: int) -> dict[str, Tensor]:
        """One player's move, turn `index` of a step, on this process's share of a batch: new weights.

        Returns the loss terms, detached.
        """
        player = self.synthesizer.get_submodule(turn.player)
        for parameter in self.synthesizer.parameters():
            parameter.requires_grad_(False)
        for parameter in player.parameters():
            parameter.requires_grad_(True)
        for wrapped in self.optimizers.values():
            wrapped.zero_grad()  # the other players' too: this turn can use the memory
        losses: dict[str, Tensor] = {}
        portions = list(_portions(batch, self.recipe.training.micro_batch or len(batch.image)))
        for number, portion in enumerate(portions):
            # For what draws from torch's global generator, such as dropout; all else draws by the images' seeds.
            torch.manual_seed(seed_of(self.recipe.training.seed, step, index, number, self.fabric.global_rank))
            weight = len(portion.image) / len(batch.image)
            with self._unsynced(number < len(portions) - 1):
                terms = {name: term * weight for name, term in self.module(turn, portion).items()}
                self.fabric.backward(torch.stack(list(terms.values())).sum())
            for name, term in terms.items():
                losses[name] = losses.get(name, 0) + term.detach()
        self._free_gathered()
        if self.recipe.training.clip_gradient:
            torch.nn.utils.clip_grad_norm_(player.parameters(), self.recipe.training.clip_gradient)
        for group in self.raw[turn.player].param_groups:
            group["lr"] = self.settings[turn.player].rate(step)
        self.optimizers[turn.player].step()
        with torch.no_grad():
            self.synthesizer.after(turn)
        return losses

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images by the averaged weights where there are some, on the CPU in float32. All processes take part."""
        device = self.fabric.device
        condition = {name: tensor.to(device) for name, tensor in condition.items()}
        with self._averaged():
            return self.synthesizer.generate(noise.to(device), condition).float().cpu()

    def remake(self, batch: Batch) -> Tensor | None:
        """What the model makes of a batch whose truth is known, as `generate` does; None where it has no truth."""
        with self._averaged():
            images = self.synthesizer.remade(self.fabric.to_device(batch))
            return None if images is None else images.float().cpu()

    @torch.no_grad()
    def finish(self, weights: Mapping[str, Tensor], images: Iterator[Tensor]) -> dict[str, Tensor]:
        """Weights as they are published once training is over: with what the model fits by them to training images.

        What training goes on from stays as it is, bit by bit. All processes take part.
        """
        live = self.synthesizer.state_dict()
        kept = {name: live[name].detach().clone() for name in weights}
        self.synthesizer.eval()
        try:
            for name, whole in weights.items():
                _fill(live[name], whole)
            # Without autocast: it is done once, and what is fitted should not be rounded.
            with self._gathered():
                self.synthesizer.finish(image.to(self.fabric.device) for image in images)
            return {name: _whole(live[name]).clone() for name in weights}
        finally:
            for name, tensor in kept.items():
                live[name].copy_(tensor)
            self.synthesizer.train()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training goes on from, by file name: whole tensors on the CPU. All processes take part."""
        model = {name: _whole(tensor) for name, tensor in self.synthesizer.state_dict().items()}
        optimizers = {
            f"{player}/{entry}/{name}": _whole(value)
            for player, raw in self.raw.items()
            for name, parameter in self.synthesizer.get_submodule(player).named_parameters()
            for entry, value in raw.state.get(parameter, {}).items()
        }
        return {"model": model, "optimizers": optimizers, "average": self._average()}

    def weights(self) -> dict[str, Tensor]:
        """What generation uses, averages where there are some: whole tensors on the CPU. All processes take part."""
        private = tuple(f"{name}." for name in self.synthesizer.private)
        model = {name: _whole(tensor) for name, tensor in self.synthesizer.state_dict().items()}
        used = model | self._average()
        return {name: tensor for name, tensor in used.items() if not name.startswith(private)}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Set everything to what `state` gave."""
        for name, tensor in self.synthesizer.state_dict().items():
            _fill(tensor, state["model"][name])
        for player, raw in self.raw.items():
            parameters = dict(self.synthesizer.get_submodule(player).named_parameters())
            for key, value in state["optimizers"].items():
                owner, entry, name = key.split("/")
                if owner == player:
                    raw.state[parameters[name]][entry] = _like(parameters[name], value)
        if self.average:
            for name, tensor in self.average.tensors.items():
                _fill(tensor, state["average"][name])

    def parameters(self) -> dict[str, int]:
        """How many weights each player has."""
        players = {player: self.synthesizer.get_submodule(player) for player in self.synthesizer.players}
        return {name: sum(weight.numel() for weight in player.parameters()) for name, player in players.items()}

    def bytes(self) -> int:
        """Size of a checkpoint: weights, averages, what each optimizer keeps of every weight, and the best weights."""
        kept = {"adam": 2, "rmsprop": 1}
        optimizers = sum(n * kept[self.settings[name].kind] for name, n in self.parameters().items())
        model = sum(int(tensor.numel()) for tensor in self.synthesizer.state_dict().values())
        average = sum(int(tensor.numel()) for tensor in self.average.tensors.values()) if self.average else 0
        best = model if self.recipe.training.publish == "best" else 0
        return 4 * (optimizers + model + average + best)

    def finite(self) -> bool:
        """Whether all weights are finite numbers, on every process."""
        sums = [local(parameter.detach()).sum(dtype=torch.float64) for parameter in self.synthesizer.parameters()]
        return math.isfinite(float(self.fabric.all_reduce(torch.stack(sums).sum().float(), reduce_op="sum")))

    def _unsynced(self, wanted: bool) -> contextlib.AbstractContextManager[Any]:
        if not wanted or self.fabric.world_size == 1:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.fabric.no_backward_sync(self.module)
        return context

    def _average(self) -> dict[str, Tensor]:
        return {name: _whole(tensor) for name, tensor in self.average.tensors.items()} if self.average else {}

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model as generation uses it: in evaluation, by averaged weights, in the recipe's precision."""
        self.synthesizer.eval()
        average = self.average.applied() if self.average else contextlib.nullcontext()
        with torch.no_grad(), average, self.fabric.autocast(), self._gathered():
            yield
        self.synthesizer.train()

    @contextlib.contextmanager
    def _gathered(self) -> Iterator[None]:
        """Under FSDP: the whole weights in every process, freed in the end."""
        if isinstance(self.synthesizer, FSDPModule):
            self.synthesizer.unshard()
        yield
        self._free_gathered()

    def _free_gathered(self) -> None:
        """Under FSDP: free the gathered weights, so that none outlives a change of the shards it came from."""
        if isinstance(self.synthesizer, FSDPModule):
            self.synthesizer.reshard()


def train(
    game: Game, batches: Iterator[Batch], *, step: int = 0, images: int = 0, stop: Callable[[], bool] = lambda: False
) -> Iterator[Step]:
    """Play from `step` to the recipe's last, yielding after each; `images` are those that `batches` start after.

    All that is random follows from the seed, the step and the images' numbers: a run that is resumed repeats the
    run that was never stopped.
    """
    training, fabric = game.recipe.training, game.fabric
    share = training.batch // fabric.world_size
    while step < training.steps and not stop():
        batch: Batch | None = None  # a step's first turn is always fresh: nothing must outlive a step
        turns: list[tuple[str, dict[str, Tensor]]] = []
        for index, turn in enumerate(game.synthesizer.turns(step)):
            if turn.fresh or batch is None:
                first = images + fabric.global_rank * share
                seeds = tuple(seed_of(training.seed, "image", first + row) for row in range(share))
                batch = fabric.to_device(next(batches))._replace(seeds=seeds)
                images += training.batch
            turns.append((turn.player, game.play(turn, batch, step, index)))
        if game.average:
            game.average.update(step)
        step += 1
        yield Step(step, images, _means(turns, fabric))


def optimizer(settings: Optimizer, player: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer of one player."""
    parameters = list(player.parameters())
    if settings.kind == "rmsprop":
        return torch.optim.RMSprop(parameters, settings.lr, settings.alpha, settings.eps)
    # Fused: 73 against 203 ms of processor time for 62 million parameters.
    return torch.optim.Adam(parameters, settings.lr, settings.betas, settings.eps, fused=True)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies in this process, where it may be spread over several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _means(turns: list[tuple[str, dict[str, Tensor]]], fabric: Fabric) -> dict[str, float]:
    """Loss terms as numbers: one transfer from the device and one exchange between processes for a whole step."""
    names = [f"{player}/{term}" for player, losses in turns for term in losses]
    values = torch.stack([term.float() for _, losses in turns for term in losses.values()])
    numbers = fabric.all_reduce(values, reduce_op="mean").tolist()
    gathered: dict[str, list[float]] = {}
    for name, number in zip(names, numbers, strict=True):
        gathered.setdefault(name, []).append(number)
    return {name: sum(found) / len(found) for name, found in gathered.items()}


def _portions(batch: Batch, size: int) -> Iterator[Batch]:
    for first in range(0, len(batch.image), size):
        rows = slice(first, first + size)
        yield Batch(
            batch.image[rows], {name: value[rows] for name, value in batch.condition.items()}, batch.seeds[rows]
        )


def _whole(tensor: Tensor) -> Tensor:
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu().contiguous()


def _fill(tensor: Tensor, whole: Tensor) -> None:
    if isinstance(tensor, DTensor):
        whole = distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(whole)


def _like(parameter: Tensor, whole: Tensor) -> Tensor:
    """Optimizer state, laid out in memory as its parameter is; single numbers stay as they are."""
    if whole.shape != parameter.shape:
        return whole.to(parameter.device)
    state = torch.empty_like(parameter, dtype=whole.dtype)
    _fill(state, whole)
    return state
