"""Whether a DICOM radiograph is one of a human chest, as far as its tags tell."""

import re
from pathlib import Path
from typing import Any

from tomogen.errors import DataInvalid, Reason
from tomogen.formats.dicom.header import Header
from tomogen.formats.dicom.words import spoken

TAKEN = ("CR", "DX", "RG")
"""Modalities of radiographs (PS3.3 C.7.3.1.1.1); `DR`, which is none, is in use all the same."""
OTHER = ("OT", "")
"""Modalities of pictures of any origin: believed where they say that they show a chest."""

_CHEST = (
    "CHEST THORAX LUNG LUNGS BREASTCHEST HEART RIB RIBS STERNUM CHESTABDOMEN CHESTABDPELVIS THORACOABDOMINAL TRUNK BODY"
    " WHOLEBODY"
)
"""Defined terms of BodyPartExamined (PS3.16 annex L), and words in use, for what a chest is in."""
_ELSEWHERE = (
    "ABDOMEN ANKLE ARM BREAST CALCANEUS CALF CERVICAL CLAVICLE COCCYX CSPINE DENTAL ELBOW EXTREMITY FACE FEMUR FINGER"
    " FOOT FOREARM HAND HEAD HIP HUMERUS JAW KNEE KUB LEG LOWERLEG LSPINE LUMBAR MANDIBLE MAXILLA NECK ORBIT PATELLA"
    " PELVIS RADIUS SACRUM SCAPULA SHOULDER SKULL TARSUS TEETH THIGH THUMB TIBIA TOE TOES ULNA WRIST ZYGOMA"
)
"""Words for what is no chest. A message repeats these alone: any other text may name somebody."""
_ANIMALS = (
    "ANIMAL AVIAN BIRD BOVINE CANINE CANIS CAPRINE CATTLE DOG EQUINE EQUUS FELINE FELIS HORSE LEPORINE OVINE PORCINE"
    " RABBIT REPTILE RODENT SHEEP VETERINARY"
)
_HUMANS = "HOMO HUMAN SAPIENS"
_HUMAN_CODES = ("337915000", "L-85B00")
"""Homo sapiens in SNOMED CT and SNOMED RT (CID 7454)."""
_TOLD = ("AcquisitionDeviceProcessingDescription", "ProtocolName", "SeriesDescription", "StudyDescription")
"""Free texts in which machines write the examination."""
_OTHER_FILE = "a frontal or lateral radiograph of a human chest; if this is one, mend its tags"


def refuse_others(header: Header, dataset: Any, at: Path) -> None:
    """Pass a radiograph of a human chest, or one that says nothing else.

    Raises:
        DataInvalid: another modality, an animal, another part of the body, or a picture that does not say what of.
    """
    said = spoken(dataset, "Modality").upper()
    if header.modality == "CT":
        raise DataInvalid(
            "a CT given where a radiograph belongs", reason=Reason.MODALITY, at=at, fix="tomogen xray makes radiographs"
        )
    if header.modality not in TAKEN + OTHER and said != "DR":
        name = header.modality if header.modality != "unknown" else "of no known name"
        raise DataInvalid(
            f"modality {name}, a radiograph (CR, DX) expected", reason=Reason.MODALITY, at=at, fix=_OTHER_FILE
        )
    _human(dataset, at)
    _of_the_chest(header, dataset, at)


def _human(dataset: Any, at: Path) -> None:
    species = _words(spoken(dataset, "PatientSpeciesDescription"))
    for item in dataset.get("PatientSpeciesCodeSequence") or ():
        species |= _words(spoken(item, "CodeMeaning")) if spoken(item, "CodeValue") not in _HUMAN_CODES else {"HUMAN"}
    animal = bool(species) and not species & _words(_HUMANS)
    told = set().union(*(_words(spoken(dataset, name)) for name in (*_TOLD, "BodyPartExamined")))
    if animal or spoken(dataset, "PatientBreedDescription") or told & _words(_ANIMALS):
        raise DataInvalid("a radiograph of an animal", reason=Reason.NOT_CHEST, at=at, fix=_OTHER_FILE)


def _of_the_chest(header: Header, dataset: Any, at: Path) -> None:
    """By BodyPartExamined, else by the coded region, else by free texts."""
    part = _words(spoken(dataset, "BodyPartExamined"))
    for item in dataset.get("AnatomicRegionSequence") or ():
        part |= _words(spoken(item, "CodeMeaning"))
    if part & _words(_CHEST) or any(word.startswith("THORA") for word in part):
        return
    if part & {"SPINE", "TSPINE"}:
        raise DataInvalid(
            "a radiograph of the spine, a chest expected", reason=Reason.NOT_CHEST, at=at, fix=_OTHER_FILE
        )
    told = set().union(*(_words(spoken(dataset, name)) for name in _TOLD))
    chest = bool(told & _words(_CHEST))
    elsewhere = sorted(part & _words(_ELSEWHERE)) or ([] if chest else sorted(told & _words(_ELSEWHERE)))
    if elsewhere or (part and not chest):
        what = f"a radiograph of the {elsewhere[0].lower()}" if elsewhere else "BodyPartExamined names no chest"
        fix = _OTHER_FILE if elsewhere else "BodyPartExamined CHEST in the file, if it shows one"
        raise DataInvalid(f"{what}, a chest expected", reason=Reason.NOT_CHEST, at=at, fix=fix)
    if header.modality in OTHER and not chest:
        raise DataInvalid(
            "a picture that does not say what it shows",
            reason=Reason.DERIVED,
            at=at,
            fix="BodyPartExamined CHEST in the file, if it shows one",
        )


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Z]+", text.upper()))
