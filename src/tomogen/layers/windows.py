"""One image in several HU windows, as channels, and back: a narrow one shows what a wide one has no steps for."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MARGIN = 0.1
"""Of -1..1: so far from its ends a window's word begins to lose weight, down to nothing at the end itself."""

Range = tuple[float, float]
"""Lowest and highest HU."""


class Windows(nn.Module):
    """An image on -1..1 that stands for the HU of `span`, as channels that stand for those of `windows`, and back.

    A channel is the image clipped to its window. Together they hold all HU of their union exactly; what lies outside
    of it comes back as its nearest end.
    """

    def __init__(self, span: Range, windows: Sequence[Range]) -> None:
        super().__init__()
        low, high = span
        widest = sorted(range(len(windows)), key=lambda c: windows[c][0] - windows[c][1])
        self.order = widest
        """Channels, from the widest window to the narrowest."""
        # In units of the span: the windows' centres, and their halves.
        scale = 2 / (high - low)
        self.centres = [((a + b) - (low + high)) / 2 * scale for a, b in windows]
        self.halves = [(b - a) / 2 * scale for a, b in windows]

    def split(self, image: Tensor) -> Tensor:
        """`(B, 1, *space)` to `(B, windows, *space)`, each on -1..1."""
        pairs = zip(self.centres, self.halves, strict=True)
        return torch.cat([((image - centre) / half).clamp(-1, 1) for centre, half in pairs], 1)

    def join(self, channels: Tensor) -> Tensor:
        """`(B, windows, *space)` to `(B, 1, *space)`: every channel's word, weighted by its precision.

        From the widest to the narrowest: a channel counts by one over its window's width squared, as equal errors on
        -1..1 are errors in HU by the width. It counts nothing where it is saturated, nor where the wider ones agree
        on a value outside its window, or are saturated on the side that it does not reach beyond: there a network's
        error in it would be taken for the value. For channels that one image was split into, all that count say the
        same, and the image returns.
        """
        image = torch.zeros_like(channels[:, :1])
        precision = torch.zeros_like(image)
        least, most = torch.full_like(image, -math.inf), torch.full_like(image, math.inf)
        for c in self.order:
            centre, half, channel = self.centres[c], self.halves[c], channels[:, c : c + 1].clamp(-1, 1)
            reaches = (least < centre + half) & (most > centre - half)
            fits = torch.where(precision > 0, _inside((image - centre) / half), reaches.to(image.dtype))
            weight = _inside(channel) * fits / half**2
            least = torch.where(channel >= 1, least.clamp(min=centre + half), least)
            most = torch.where(channel <= -1, most.clamp(max=centre - half), most)
            total = precision + weight
            word = channel * half + centre
            image = torch.where(total > 0, torch.lerp(image, word, weight / total.clamp(min=1e-12)), image)
            precision = total
        return torch.where(precision > 0, image, self._ends(channels))

    def _ends(self, channels: Tensor) -> Tensor:
        """Where all are saturated: the highest of the ends that the value lies above, or else the lowest of all."""
        image = torch.full_like(channels[:, :1], min(c - h for c, h in zip(self.centres, self.halves, strict=True)))
        for c, (centre, half) in enumerate(zip(self.centres, self.halves, strict=True)):
            end = centre + half
            image = torch.where(channels[:, c : c + 1] > 0, image.clamp(min=end), image)
        return image


def _inside(value: Tensor) -> Tensor:
    """1 well inside -1..1, 0 at its ends and outside."""
    return ((1 - value.abs()) / MARGIN).clamp(0, 1)
