"""Differentiable line integrals through a voxel grid, for all views of a geometry."""

from typing import Any

import torch
from torch import Tensor

from tomogen.radiography.banded import Banded
from tomogen.radiography.geometry import Geometry
from tomogen.radiography.rays import rays_of
from tomogen.radiography.slanted import Slanted
from tomogen.volume import Affine


class Projector:
    """The linear map A from attenuation on a grid to line integrals, and its adjoint.

    `projector(mu)` takes `mu (B, depth, height, width)` or `(B, 1, depth, height, width)` in 1/mm on the grid of
    `shape` and `affine` (index to LPS mm) and gives `(B, views, rows, columns)` without unit: no exp, no inverse
    square. Voxels tile the grid: a slab of constant mu, along the rays' main axis, is as thick as its voxels.

    Gradients are the exact adjoint, computed as such (nothing of the forward pass is kept), and can be
    differentiated again. mu in float64 is computed in float64; in bfloat16, for previews and training, products
    are rounded to bfloat16 and summed in float32; otherwise in float32. Views along the grid take `banded`, all
    others `slanted`, which has no bfloat16 and then computes in float32.

    Raises:
        DataInvalid: the source lies within the grid, or rays are nearly parallel to its slices.
    """

    def __init__(self, geometry: Geometry, shape: tuple[int, int, int], affine: Affine) -> None:
        self.geometry = geometry
        self.shape = shape
        self._rays = [rays_of(view, geometry, shape, affine) for view in geometry.views]
        self._plans: dict[tuple[torch.dtype, torch.device], list[Banded | Slanted]] = {}

    def __call__(self, mu: Tensor) -> Tensor:
        """Line integrals `(B, views, rows, columns)`; ValueError where mu has another shape than the grid."""
        if mu.dim() == 5 and mu.shape[1] == 1:
            mu = mu[:, 0]
        if mu.dim() != 4 or tuple(mu.shape[1:]) != self.shape:
            raise ValueError(f"mu is (B, depth, height, width) on a grid of {self.shape}, not {tuple(mu.shape)}")
        if not mu.is_floating_point():
            raise ValueError(f"mu is floating, not {mu.dtype}")
        projected: Tensor = _Project.apply(mu, self)  # type: ignore[no-untyped-call]
        return projected

    def adjoint(self, images: Tensor) -> Tensor:
        """A^T: `(B, views, rows, columns)` smeared back along the rays onto `(B, depth, height, width)`."""
        wanted = (len(self.geometry.views), *self.geometry.size)
        if images.dim() != 4 or tuple(images.shape[1:]) != wanted:
            raise ValueError(f"images are (B, views, rows, columns) of {wanted}, not {tuple(images.shape)}")
        smeared: Tensor = _Smear.apply(images, self, images.dtype)  # type: ignore[no-untyped-call]
        return smeared

    def forward_of(self, mu: Tensor) -> Tensor:
        """A without a gradient."""
        return torch.stack([plan.forward(mu.to(_able(plan, mu.dtype))) for plan in self._planned(mu)], dim=1)

    def adjoint_of(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """A^T without a gradient, its sums in `dtype`, or float32 if that is narrower."""
        wide = dtype if dtype == torch.float64 else torch.float32
        out = torch.zeros(len(images), *self.shape, dtype=wide, device=images.device)
        for plan, image in zip(self._planned(out), images.to(wide).unbind(1), strict=True):
            plan.adjoint(image, out)
        return out.to(dtype)

    def _planned(self, like: Tensor) -> list[Banded | Slanted]:
        key = like.dtype, like.device
        if key not in self._plans:
            self._plans[key] = [
                Banded(rays, self.shape, like)
                if rays.across
                else Slanted(rays, self.shape, like.new_empty(0, dtype=_able(None, like.dtype)))
                for rays in self._rays
            ]
        return self._plans[key]


def _able(plan: Banded | Slanted | None, dtype: torch.dtype) -> torch.dtype:
    """What a plan computes in."""
    if dtype == torch.float64 or (dtype == torch.bfloat16 and isinstance(plan, Banded)):
        return dtype
    return torch.float32


class _Project(torch.autograd.Function):
    """A, whose gradient is A^T."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, projector: Projector) -> Tensor:
        ctx.projector, ctx.dtype = projector, mu.dtype
        return projector.forward_of(mu)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Smear.apply(grad, ctx.projector, ctx.dtype), None  # type: ignore[no-untyped-call]


class _Smear(torch.autograd.Function):
    """A^T, whose gradient is A."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, projector: Projector, dtype: torch.dtype) -> Tensor:
        ctx.projector, ctx.dtype = projector, images.dtype
        return projector.adjoint_of(images, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Project.apply(grad, ctx.projector).to(ctx.dtype), None, None  # type: ignore[no-untyped-call]
