"""Words: what a definition says, in one sentence for people."""

import itertools
from collections.abc import Sequence

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
    by = "standard" if definition.convention == "standard" else f"as {definition.convention} has it"
    hu = "HU as they are"
    if definition.range is not None:
        low, high = definition.range
        hu = f"HU {low:g}..{high:g}"
    voxels = "all voxels" if definition.mask == "none" else f"voxels of the mask {definition.mask}"
    parts = [by, hu, voxels, "3D" if definition.axis == "3d" else f"{definition.axis} slices", definition.reduction]
    if len(definition.n) == 2:
        parts.append(f"n = {definition.n[0]} real, {definition.n[1]} made")
    elif definition.n:
        parts.append(f"n = {', '.join(map(str, definition.n))}")
    parts.append(f"features {definition.features}" if definition.features else "")
    parts.append(definition.preprocessing)
    parts.append(", ".join(f"{name} {_number(value)}" for name, value in definition.parameters.items()))
    parts.append(f"departs from the standard: {definition.departs}" if definition.departs else "")
    return "; ".join(part.rstrip(".;") for part in parts if part)


def factored(texts: Sequence[str]) -> tuple[str, list[str]]:
    """What all of some `terms` say, once, and of each the rest; of a single one there is no rest to tell apart."""
    parts = [text.split("; ") for text in texts]
    if len(parts) < 2:
        return "", list(texts)
    shared = [part for part in parts[0] if all(part in others for others in parts)]
    return "; ".join(shared), ["; ".join(part for part in own if part not in shared) for own in parts]


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
