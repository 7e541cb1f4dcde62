"""The knobs of `sample`: what may be set beside a seed, and what a run makes with it."""

import difflib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from tomogen.batch import normal, seed_of
from tomogen.cases.labels import LABEL
from tomogen.errors import RecipeMismatch, UsageFault
from tomogen.generation.load import Loaded
from tomogen.layers.style import mixed, truncated

_VERBS = {
    "xrays": "tomogen reconstruct RUN OUT --frontal PICTURE --lateral PICTURE",
    "source": "tomogen translate RUN SCAN OUT",
    "drr": "tomogen reconstruct RUN OUT --style THIS_RUN",
}
"""What a run is for that starts from a condition."""

_STYLED = "a run of stylegan2: tomogen train stylegan2_light CASES RUN"
_CLASSED = "a run with classes: tomogen train stylegan2_light CASES RUN --set data.labels=FILE.csv"


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What is set beside the seed; None is as the model was trained."""

    truncation: float | None = None
    """How far styles go from their mean, 0 to 1. Below 1 samples are more alike and more typical."""
    mix: tuple[int, int] | None = None
    """Two samples of the seed: the style of the first in the coarse layers, of the second in the others."""
    crossover: int | None = None
    """Of `mix`: how many layers are the first's."""
    noise: str | None = None
    """Which layers have noise: `all`, `none`, or their numbers by comma, from 0, coarse first."""
    label: str | None = None
    """Name of a class."""
    around: str | Path | None = None
    """A scan, or its code: samples are drawn around it, not from noise alone."""
    alpha: float | None = None
    """Of `around`: deviations of the code's posterior; 0 gives the reconstruction, None the posterior's own 1."""

    def __post_init__(self) -> None:
        """Refuse what no run can do.

        Raises:
            UsageFault: a number out of its range, or a knob that lacks another.
        """
        if self.truncation is not None and not 0 <= self.truncation <= 1:
            nearest = 1.0 if self.truncation > 1 else 0.0
            raise UsageFault(
                f"truncation {self.truncation:g}: from 0 (the mean scan) to 1 (as trained)",
                fix=f"--truncation {nearest:g}",
            )
        if self.mix is not None and min(self.mix) < 1:
            raise UsageFault(
                f"samples {self.mix[0]} and {self.mix[1]} cannot be mixed: they are numbered from 1", fix="--mix 1 2"
            )
        if self.crossover is not None and self.mix is None:
            raise UsageFault(
                "a crossover is where two samples are mixed", fix=f"--mix 1 2 --crossover {self.crossover}"
            )
        if self.noise is not None and not _layers_or_word(self.noise):
            raise UsageFault(
                f"noise {self.noise!r}: all, none, or numbers of layers by comma, from 0", fix="--noise 0,1,2"
            )
        if self.alpha is not None and self.around is None:
            raise UsageFault("alpha is how far from a scan", fix=f"--around SCAN --alpha {self.alpha:g}")
        if self.alpha is not None and not 0 <= self.alpha < math.inf:
            raise UsageFault(
                f"alpha {self.alpha:g}: 0 (the reconstruction) or more, 1 for a draw of the posterior",
                fix=f"--alpha {0 if self.alpha < 0 else 1}",
            )

    @property
    def given(self) -> dict[str, Any]:
        """Those that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def spelled(self) -> str:
        """Those that are set, as a file's description has them: `truncation 0.7, mix 3 8, crossover 4`."""
        return ", ".join(f"{name} {_spelled(value)}" for name, value in self.given.items())


PLAIN = Knobs()
"""None set."""


@runtime_checkable
class Styled(Protocol):
    """What knobs for styles need of a model: from noise to styles, and from styles to images.

    A style is `(B, layers, width)`, coarse layers first; `layers.style.truncated` and `.mixed` change it.
    """

    style_layers: int
    """Layers of a style; a crossover lies from 0 to this."""
    noise_layers: Sequence[tuple[int, ...]]
    """Voxels per axis of each layer that takes noise."""

    def styles(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The styles of `noise` as `generate` takes it."""

    def middle(self, condition: Mapping[str, Tensor]) -> Tensor:
        """The mean style, `(1, layers, width)`; with classes that of each label, `(B, layers, width)`."""

    def synthesise(self, styles: Tensor, noise: Tensor | None = None, quiet: Sequence[int] = ()) -> Tensor:
        """Images of styles on -1..1. `noise`, as `generate` takes it, gives the fine detail; None for none.

        `quiet` numbers the layers that go without.
        """

    def crossed(self, first: Tensor, second: Tensor, crossover: int) -> Tensor:
        """Noise with the fine detail of `first` up to the style layer `crossover`, of `second` after it."""


class Tuned:
    """The model of a run with its knobs set: what it makes of a seed and a number.

    Truncation is that of styles alone, as published (Karras 2019, appendix B): fine noise belongs to the texture that
    the model was trained to make, and stays. At 0 there is one scan, the mean, so that noise is off as well, unless
    `noise` says otherwise. A mixture has, layer by layer, the noise of the sample that gives the style: at either end
    of the crossover it is that sample, bit for bit.

    Models without styles have no truncation: a GAN's z of small length is one that it never met, and there is no mean
    to go to.
    """

    def __init__(self, loaded: Loaded, knobs: Knobs) -> None:
        """Raises RecipeMismatch where the run has no such knob, UsageFault where it has it and not so far."""
        self.loaded, self.knobs = loaded, knobs
        model = loaded.synthesizer
        if given := [name for name in model.conditions if name != LABEL]:
            raise RecipeMismatch(
                f"the run makes scans of {', '.join(given)}, not of noise", at=loaded.run.path, fix=_VERBS.get(given[0])
            )
        self.condition = self._condition()
        self.styled = model if isinstance(model, Styled) else None
        if self.styled is None:
            for name in ("truncation", "mix", "noise"):
                if name in knobs.given:
                    raise self._without(f"--{name}", "styles", _STYLED)
            return
        self._fit_crossover(self.styled)
        self.quiet = self._quiet(self.styled)
        self.middle: Tensor | None = None
        if knobs.truncation is not None:
            with torch.inference_mode():
                self.middle = self.styled.middle(self.condition)

    def image(self, seed: int, index: int) -> Tensor:
        """Image `index` (from 1) of a seed, `shape`, on -1..1; the mixture if there is one."""
        if self.styled is None:
            return self.made(self.noise(seed, index))
        if self.knobs.mix is None or self.knobs.crossover is None:
            return self.shown(self.style(seed, index), self.noise(seed, index))
        crossover = self.knobs.crossover
        a, b = self.knobs.mix
        style = mixed(self.style(seed, a), self.style(seed, b), crossover)
        return self.shown(style, self.styled.crossed(self.noise(seed, a), self.noise(seed, b), crossover))

    def noise(self, seed: int, index: int) -> Tensor:
        """The noise `(1, ...)` of sample `index` of a seed."""
        return noise_of(self.loaded, seed, index)

    def made(self, noise: Tensor) -> Tensor:
        """The image of a noise, `shape`, on -1..1; of a model without styles."""
        with torch.inference_mode():
            return self.loaded.synthesizer.generate(noise, self.condition)[0, 0].float()

    def style(self, seed: int, index: int) -> Tensor:
        """The style `(1, layers, width)` of sample `index` of a seed, truncated; of a model with styles."""
        assert self.styled is not None
        with torch.inference_mode():
            style = self.styled.styles(self.noise(seed, index), self.condition)
            if self.middle is None or self.knobs.truncation is None:
                return style
            return truncated(style, self.middle, self.knobs.truncation)

    def shown(self, style: Tensor, noise: Tensor) -> Tensor:
        """The image of a style, `shape`, on -1..1, with noise in the layers that are to have it."""
        assert self.styled is not None
        with torch.inference_mode():
            return self.styled.synthesise(style, noise, self.quiet)[0, 0].float()

    def _condition(self) -> dict[str, Tensor]:
        """The label, if one is asked for; without, the model picks one by the noise."""
        if self.knobs.label is None:
            return {}
        if LABEL not in self.loaded.synthesizer.conditions:
            raise self._without("--label", "classes", _CLASSED)
        names: list[str] = self.loaded.run.data.get("labels", [])
        if self.knobs.label not in names:
            near = difflib.get_close_matches(self.knobs.label, names, 1, 0)
            raise UsageFault(
                f"no class {self.knobs.label!r}; classes: {', '.join(names) or 'data.json names none'}",
                at=self.loaded.run.path,
                fix=f"--label {shlex.quote(near[0])}" if near else "leave --label out: each sample then picks a class",
            )
        number = torch.tensor([names.index(self.knobs.label)])
        return {LABEL: F.one_hot(number, len(names)).float().to(self.loaded.device)}

    def _fit_crossover(self, styled: Styled) -> None:
        layers = styled.style_layers
        if self.knobs.mix is not None and self.knobs.crossover is None:
            raise UsageFault(
                f"--mix needs --crossover: from 0 (all of sample {self.knobs.mix[1]}) to {layers} (all of sample "
                f"{self.knobs.mix[0]}) layers",
                fix=f"--crossover {layers // 2}",
            )
        if self.knobs.crossover is not None and not 0 <= self.knobs.crossover <= layers:
            nearest = min(layers, max(0, self.knobs.crossover))
            raise UsageFault(
                f"crossover {self.knobs.crossover}: the run has {layers} layers", fix=f"--crossover {nearest}"
            )

    def _quiet(self, styled: Styled) -> list[int]:
        """Numbers of the layers that go without noise."""
        numbers = range(len(styled.noise_layers))
        word = self.knobs.noise or ("none" if self.knobs.truncation == 0 else "all")
        if word in _WORDS:
            return list(numbers) if word == "none" else []
        loud = [int(part) for part in word.split(",")]
        if beyond := [number for number in loud if number not in numbers]:
            sizes = [" x ".join(map(str, grid)) for grid in (styled.noise_layers[0], styled.noise_layers[-1])]
            raise UsageFault(
                f"noise in layer {beyond[0]}: the run has layers 0 ({sizes[0]}) to {numbers[-1]} ({sizes[1]})",
                fix=f"--noise {','.join(map(str, dict.fromkeys(min(number, numbers[-1]) for number in loud)))}",
            )
        return [number for number in numbers if number not in loud]

    def _without(self, flag: str, what: str, fix: str) -> RecipeMismatch:
        model = self.loaded.run.recipe.model
        return RecipeMismatch(f"{flag}: a run of {model} has no {what}", at=self.loaded.run.path, fix=fix)


def noise_of(loaded: Loaded, seed: int, index: int) -> Tensor:
    """The noise `(1, ...)` of sample `index` (from 1) of a seed, on the model's device."""
    rows = normal([seed_of("sample", seed, index)], "noise", loaded.synthesizer.noise_shape(1)[1:])
    return rows.to(loaded.device)


_WORDS = ("all", "none")


def _layers_or_word(text: str) -> bool:
    return text in _WORDS or all(part.strip().isdecimal() for part in text.split(","))


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
