"""How weights are born where networks follow the patch discriminators' kin."""

from torch import nn

DEVIATION = 0.02
"""Of the weights (Isola 2017, section 6.2; Zhu 2017, appendix 7.1; X2CT-GAN's released code)."""


def draw(network: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0, from torch's global generator."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, 0.0, DEVIATION)
