"""From HU to linear attenuation in 1/mm at one photon energy.

Water and cortical bone (ICRU-44, 1.92 g/cm3): total mass attenuation coefficients with coherent scattering, tables 4 of
Hubbell and Seltzer, NISTIR 5632 (NIST Standard Reference Database 126, 2004). Between the tabled energies log(mu) is
linear in log(E).

A scanner's HU are taken as attenuation relative to water at 70 keV, about the effective energy of 120 kV. Up to
100 HU tissue is water of another density: mu = mu_water(E) (1 + HU / 1000), nothing at -1000 HU and below (air's own
0.00002 / mm is left out). Above, it is a mixture of such tissue at 100 HU and cortical bone by volume, the fraction
being what explains its HU at 70 keV; at 70 keV all HU are therefore exactly mu_water (1 + HU / 1000). Contrast agent
and metal count as bone.
"""

import numpy as np
import torch
from torch import Tensor

from tomogen.errors import UsageFault

KEV = (20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
WATER = (0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505)
"""cm2/g at `KEV`."""
BONE = (4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480)
"""cm2/g at `KEV`."""
BONE_DENSITY = 1.92
"""g/cm3."""

SCANNER = 70.0
"""keV at which HU are measured."""
TISSUE = 100.0
"""HU above which there is bone."""
ENERGY = 60.0
"""keV that radiographs are computed at unless told: about the mean of a chest radiograph's beam."""


def attenuation(hu: Tensor, energy: float = ENERGY) -> Tensor:
    """Linear attenuation in 1/mm of any shape of HU at `energy` keV; differentiable, float32 or wider.

    Raises:
        UsageFault: an energy outside the table.
    """
    water, bone = of_water(energy), of_bone(energy)
    dense = 1 + TISSUE / 1000
    cortical = of_bone(SCANNER) / of_water(SCANNER)
    steep = (bone - dense * water) / (cortical - dense)
    hu = hu if hu.is_floating_point() else hu.to(torch.float32)
    tissue = (hu + 1000).clamp(0, 1000 + TISSUE) * (water / 1000)
    return tissue + (hu - TISSUE).clamp(min=0) * (steep / 1000)


def of_water(energy: float) -> float:
    """1/mm at `energy` keV.

    Raises:
        UsageFault: an energy outside the table.
    """
    return _interpolated(energy, WATER) / 10


def of_bone(energy: float) -> float:
    """1/mm of cortical bone at `energy` keV.

    Raises:
        UsageFault: an energy outside the table.
    """
    return _interpolated(energy, BONE) * BONE_DENSITY / 10


def _interpolated(energy: float, tabled: tuple[float, ...]) -> float:
    if not KEV[0] <= energy <= KEV[-1]:
        raise UsageFault(f"--energy is {KEV[0]:g} to {KEV[-1]:g} keV, not {energy:g}")
    return float(np.exp(np.interp(np.log(energy), np.log(KEV), np.log(tabled))))
