"""Words: what a definition says, in one sentence for people."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tomogen.evaluation.definition import Definition

_ACRONYMS = frozenset({"cnr", "fid", "hu", "kid", "mae", "mmd", "ms", "nmse", "nrmse", "psnr", "rbf", "rmse", "ssim"})


def sentence(definition: Definition) -> str:
    """What a score of this definition is: `PSNR in dB (higher is better), standard; HU -1024..3000; all voxels; ...`.

    A convention is followed by how it departs from the standard.
    """
    unit = f" in {definition.unit}" if definition.unit else ""
    better = f" ({definition.better} is better)" if definition.better else ""
    return f"{title(definition.metric)}{unit}{better}, {terms(definition)}"


def title(metric: str) -> str:
    """The metric's name as it is written: `ms_ssim` is `MS-SSIM`, `mae/soft_tissue` is `MAE/soft tissue`."""
    return "/".join(_written(part) for part in metric.split("/"))


def terms(definition: Definition) -> str:
    """The sentence without the metric, its unit and which way is better: what several metrics may share."""
    return "; ".join(part for parts in _parts(definition) for part in parts)


def _parts(definition: Definition) -> tuple[list[str], list[str]]:
    """The terms in two: what was looked at, which metrics have in common, and what a metric has of its own."""
    by = "standard" if definition.convention == "standard" else f"as {definition.convention} has it"
    hu = "HU as they are"
    if definition.range is not None:
        low, high = definition.range
        hu = f"HU {low:g}..{high:g}"
    voxels = "all voxels" if definition.mask == "none" else f"voxels of the mask {definition.mask}"
    view = [by, hu, voxels, "3D" if definition.axis == "3d" else f"{definition.axis} slices", definition.reduction]
    if len(definition.n) == 2:
        view.append(f"n = {definition.n[0]} real, {definition.n[1]} made")
    elif definition.n:
        view.append(f"n = {', '.join(map(str, definition.n))}")
    view.append(f"features {definition.features}" if definition.features else "")
    view.append(definition.preprocessing)
    own = [", ".join(f"{name} {_number(value)}" for name, value in definition.parameters.items())]
    own.append(f"departs from the standard: {definition.departs}" if definition.departs else "")
    told = [[part.rstrip(".;") for part in parts if part] for parts in (view, own)]
    return told[0], told[1]


@dataclass(frozen=True)
class Footnotes:
    """What the definitions of one table say, each thing once."""

    shared: str
    """What all of them say; nothing where there is but one."""
    marks: Mapping[str, tuple[str, ...]]
    """By `terms`: the footnotes that say the rest, none, one or two: `("A", "3")`."""
    words: Sequence[tuple[str, str]]
    """(mark, text): letters for what several metrics look at together, numbers for what is a metric's own."""

    @classmethod
    def of(cls, definitions: Sequence[Definition]) -> "Footnotes":
        """The footnotes of definitions, in their order."""
        told = {terms(one): tuple([*"; ".join(parts).split("; ")] for parts in _parts(one)) for one in definitions}
        lists = [view + own for view, own in told.values()]
        common = [part for part in lists[0] if all(part in others for others in lists)] if len(lists) > 1 else []
        kept = {
            text: tuple("; ".join(part for part in parts if part and part not in common) for parts in both)
            for text, both in told.items()
        }
        views = Counter(view for view, _ in kept.values())
        letters: dict[str, str] = {}
        numbers: dict[str, str] = {}
        marks = {}
        for text, (view, own) in kept.items():
            mark = []
            if view and views[view] > 1:
                mark.append(letters.setdefault(view, lettered(len(letters)).upper()))
            elif view:
                own = f"{view}; {own}" if own else view
            if own:
                mark.append(numbers.setdefault(own, str(len(numbers) + 1)))
            marks[text] = tuple(mark)
        words = [*_shortened(letters), *((mark, text) for text, mark in numbers.items())]
        return cls("; ".join(common), marks, words)


def _shortened(letters: Mapping[str, str]) -> list[tuple[str, str]]:
    """(letter, text) of each view; one that is much like an earlier one says by what it differs, if that is shorter."""
    words: list[tuple[str, str]] = []
    whole: list[tuple[str, list[str]]] = []
    for text, letter in letters.items():
        parts = text.split("; ")
        shortest = text
        for other, others in whole:
            more = "; ".join(part for part in parts if part not in others)
            less = "; ".join(part for part in others if part not in parts)
            changed = (
                f"but {more} in place of {less}" if more and less else f"and {more}" if more else f"without {less}"
            )
            shortest = min(shortest, f"as {other}, {changed}", key=len)
        if shortest == text:
            whole.append((letter, parts))
        words.append((letter, shortest))
    return words


def lettered(number: int) -> str:
    """a, b, ... z, aa, ab, ..., from 0 on."""
    rest, last = divmod(number, 26)
    return (lettered(rest - 1) if rest else "") + chr(ord("a") + last)


def _written(name: str) -> str:
    """Acronyms in capitals, neighbours among them joined by a hyphen; all other words by spaces."""
    words = name.split("_")
    written = words[0].upper() if words[0] in _ACRONYMS else words[0]
    for before, word in itertools.pairwise(words):
        joint = "-" if {before, word} <= _ACRONYMS else " "
        written += joint + (word.upper() if word in _ACRONYMS else word)
    return written


def _number(value: float | int | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
