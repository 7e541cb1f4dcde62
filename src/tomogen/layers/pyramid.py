"""The shape of a network that halves an image down to a seed grid, or doubles one up to an image."""

from dataclasses import dataclass

from tomogen.errors import RecipeMismatch


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """The size of the images and the channels at each halving; the `Config` of a model may extend it."""

    shape: tuple[int, ...] = (64, 64)
    """Voxels per axis, slow axis first; each a multiple of 2^doublings."""
    doublings: int = 4
    """How often the seed grid of shape / 2^doublings is doubled up to the image."""
    width: int = 64
    """Channels at half the image's size; they double with every halving."""
    widest: int = 512
    """Channels at most."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if len(self.shape) not in (2, 3):
            raise RecipeMismatch(f"`shape`: {len(self.shape)} axes; an image has 2 or 3")
        for name in ("doublings", "width", "widest"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        step = self.step
        for size in self.shape:
            if size < step or size % step:
                nearest = max(1, round(size / step)) * step
                raise RecipeMismatch(f"`shape`: {size} is not a multiple of {step}; nearest {nearest}")

    @property
    def step(self) -> int:
        """What the voxels of each axis are a multiple of."""
        return 1 << self.doublings

    @property
    def dims(self) -> int:
        """Axes of an image: 2 or 3."""
        return len(self.shape)

    @property
    def seed(self) -> tuple[int, ...]:
        """Voxels per axis of the grid that doubling starts from."""
        return tuple(size // 2**self.doublings for size in self.shape)

    @property
    def widths(self) -> list[int]:
        """Channels at shape / 2, / 4 and so on, down to the seed."""
        return [min(self.width * 2**level, self.widest) for level in range(self.doublings)]
