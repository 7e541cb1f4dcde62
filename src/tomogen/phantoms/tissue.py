"""What the parts of a chest measure in HU, plain and with contrast.

Plain values: Hounsfield units of tissues at 120 kVp as textbooks give them (air -1000, fat about -100, muscle 50,
blood 40, liver 60, spleen 48). With iodine: the pulmonary arteries about 250 and the aorta about 350 in the
arterial phase, 150 in all vessels in the venous one.
"""

from dataclasses import asdict, dataclass

PHASES = ("arterial", "venous")
"""Phases of contrast."""

BLOOD = ("artery", "vein", "cava", "pulmonary", "return_")
"""Names of the tissues that fill vessels and heart chambers."""


@dataclass(frozen=True)
class Tissue:
    """HU of soft tissue; what contrast does not change has one value."""

    artery: float = 42.0
    """Left heart, aorta and its branches."""
    vein: float = 40.0
    """Veins of the body and the right heart."""
    cava: float = 41.0
    """Superior vena cava, where contrast arrives."""
    pulmonary: float = 41.0
    """Pulmonary arteries."""
    return_: float = 42.0
    """Pulmonary veins and left atrium."""
    myocardium: float = 46.0
    muscle: float = 52.0
    liver: float = 0.0
    """Above the plain liver, which differs from person to person."""
    portal: float = 38.0
    """Vessels of the liver."""
    spleen: float = 48.0
    kidney: float = 32.0
    thyroid: float = 105.0
    gland: float = 28.0
    skin: float = 10.0
    fat: float = -104.0
    mediastinum: float = -92.0
    """Fat between the lungs, with its strands."""
    wall: float = 38.0
    """Walls of airways, oesophagus and stomach."""
    cord: float = 32.0
    disc: float = 85.0
    cartilage: float = 95.0
    marrow: float = 190.0
    cortex: float = 900.0
    nodule: float = 32.0


_BY_PHASE = {
    None: Tissue(),
    "arterial": Tissue(
        artery=350, vein=75, cava=420, pulmonary=250, return_=320, myocardium=105, muscle=58, liver=12, portal=60,
        spleen=105, kidney=150, thyroid=170, gland=38, wall=52, nodule=58,
    ),
    "venous": Tissue(
        artery=150, vein=145, cava=150, pulmonary=150, return_=150, myocardium=110, muscle=64, liver=52, portal=150,
        spleen=120, kidney=170, thyroid=150, gland=48, wall=68, nodule=70,
    ),
}  # fmt: skip


def tissue(contrast: str | None, iodine: float = 1.0) -> Tissue:
    """The values of a phase; None is plain. `iodine` scales what contrast adds."""
    if contrast is None:
        return _BY_PHASE[None]
    plain, full = asdict(_BY_PHASE[None]), asdict(_BY_PHASE[contrast])
    return Tissue(**{name: value + iodine * (full[name] - value) for name, value in plain.items()})
