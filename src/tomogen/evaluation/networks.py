"""Which feature networks an evaluation uses: those that come with tomogen, or the user's own in the place of one."""

from pathlib import Path

from tomogen.errors import UsageFault
from tomogen.evaluation.features.network import FeatureNetwork
from tomogen.evaluation.features.random_conv import RandomConv


def networks_of(
    network: str | Path | None = None, weights: str | Path | None = None, sha256: str | None = None
) -> list[FeatureNetwork]:
    """One network for slices and one for volumes; a user's `network` takes the place of the one that sees the same.

    Raises:
        UsageFault: weights or a hash without a network, or a network without weights.
        InputMissing, DataInvalid, RecipeMismatch: as `features.own.load` says.
    """
    found: list[FeatureNetwork] = [RandomConv(2), RandomConv(3)]
    if network is None and weights is None and sha256 is None:
        return found
    if network is None or weights is None:
        raise UsageFault("a feature network of your own is a module and its weights", fix="--network and --weights")
    from tomogen.evaluation.features.own import load

    own = load(Path(network), Path(weights), sha256)
    return [own, *(one for one in found if one.dims != own.dims)]
