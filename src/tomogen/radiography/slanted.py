"""Views at any angle: every slice is sampled where the rays cross it, bilinear, nothing beyond its edge."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tomogen.radiography.rays import Rays
from tomogen.radiography.slices import Order, gathered, groups, scattered


class Slanted:
    """Projection of one view and its adjoint; crossings are computed slice by slice and not kept."""

    def __init__(self, rays: Rays, shape: tuple[int, int, int], like: Tensor) -> None:
        u, v = (axis for axis in range(3) if axis != rays.axis)
        self.order: Order = (rays.axis, u, v)
        self.slices = rays.slices
        self.plane = shape[u], shape[v]
        # grid_sample's coordinates, (v, u), run from -1 to 1 between the outer edges of the outer voxels.
        scale = torch.tensor([2 / shape[v], 2 / shape[u]], dtype=torch.float64)
        mid = torch.as_tensor(rays.mid.copy()).flip(-1) * scale + (scale / 2 - 1)
        step = torch.as_tensor(rays.step.copy()).flip(-1) * scale
        self.mid, self.step, self.length = (
            part.to(like.device, like.dtype)[None] for part in (mid, step, torch.as_tensor(rays.length))
        )
        self.ends = (
            tuple(torch.as_tensor(end).to(like.device, like.dtype)[None] for end in (rays.first, rays.last))
            if rays.cut
            else None
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """Line integrals `(B, rows, columns)` of `(B, depth, height, width)`."""
        out = volumes.new_zeros(1, len(volumes), *self.length.shape[1:])
        for some in groups(0, self.slices):
            slices = [gathered(volume, self.order, some) for volume in volumes]
            for n, planes in zip(range(some.start, some.stop), zip(*slices, strict=True), strict=True):
                plane = torch.stack(planes)[None]
                crossed = F.grid_sample(plane, self._grid(n), padding_mode="zeros", align_corners=False)
                out += crossed if self.ends is None else crossed * self._met(n)
        return (out * self.length)[0]

    def adjoint(self, images: Tensor, volumes: Tensor) -> None:
        """Add the adjoint of `(B, rows, columns)` to `volumes (B, depth, height, width)`."""
        images = (images[None] * self.length).contiguous()
        empty = volumes.new_empty(1, len(volumes), *self.plane)
        for some in groups(0, self.slices):
            spread = []
            for n in range(some.start, some.stop):
                met = images if self.ends is None else images * self._met(n)
                # bilinear (0), zeros (0), corners not aligned; the gradient of the slice alone
                slice_, _ = torch.ops.aten.grid_sampler_2d_backward(
                    met, empty, self._grid(n), 0, 0, False, [True, False]
                )
                spread.append(slice_[0])
            for slices, volume in zip(torch.stack(spread, dim=1), volumes, strict=True):
                scattered(slices, volume, self.order, some)

    def _grid(self, n: int) -> Tensor:
        return torch.add(self.mid, self.step, alpha=n - (self.slices - 1) / 2)

    def _met(self, n: int) -> Tensor:
        """1 for rays that cross slice n between source and detector."""
        first, last = self.ends or (self.length, self.length)
        return ((first <= n) & (n <= last)).to(self.length.dtype)[None]
