"""Enhanced CT: a whole volume in one multi-frame file."""

from typing import TYPE_CHECKING

from tomogen.formats.dicom.grid import Stack
from tomogen.formats.dicom.origin import NEVER, Origin, code, describe, file_meta

if TYPE_CHECKING:
    from pydicom import Dataset

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"

_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]


def dataset(stack: Stack, origin: Origin) -> "Dataset":
    """The file, ready to be saved."""
    from pydicom import Dataset

    from tomogen.formats.dicom.writer import pixels

    file = Dataset()
    describe(file, origin, series="enhanced series", number=2)
    file.SOPClassUID, file.SOPInstanceUID = ENHANCED_CT, origin.uid("enhanced")
    file.file_meta = file_meta(ENHANCED_CT, file.SOPInstanceUID)
    file.Modality = "CT"
    file.ImageType = _TYPE
    file.PatientPosition = "HFS"
    file.InstanceNumber = 1
    file.ContentDate, file.ContentTime = NEVER
    file.AcquisitionNumber = 1
    # These two are never empty here: a name is demanded of every piece of equipment.
    file.Manufacturer = file.Manufacturer or "unknown"
    file.ManufacturerModelName = file.get("ManufacturerModelName") or "unknown"
    file.DeviceSerialNumber = file.get("DeviceSerialNumber") or "unknown"
    file.ContentQualification = "RESEARCH"
    file.PixelPresentation, file.VolumetricProperties = "MONOCHROME", "VOLUME"
    file.VolumeBasedCalculationTechnique = "NONE"
    file.PresentationLUTShape = "IDENTITY"
    file.AcquisitionContextSequence = []
    # This IOD has no DerivationDescription of its own.
    file.ImageComments = "; ".join(filter(None, [file.get("ImageComments"), file.DerivationDescription]))
    del file.DerivationDescription
    pixels(file, *stack.stored.shape[1:])
    file.NumberOfFrames = len(stack.stored)
    file.DimensionOrganizationSequence = [_organization(origin)]
    file.DimensionIndexSequence = _indices(origin)
    file.SharedFunctionalGroupsSequence = [_shared(stack, origin)]
    file.PerFrameFunctionalGroupsSequence = [_frame(stack, k) for k in range(len(stack.stored))]
    file.PixelData = stack.stored.astype("<i2", copy=False).tobytes()
    file["PixelData"].VR = "OW"
    return file


def _shared(stack: Stack, origin: Origin) -> "Dataset":
    """What holds for all frames."""
    from pydicom import Dataset

    from tomogen.formats.dicom.writer import WINDOWS, decimal

    step, row, column = stack.spacing
    measures = _item(
        PixelSpacing=[decimal(row), decimal(column)],
        SliceThickness=decimal(origin.acquisition.slice_thickness or step),
        SpacingBetweenSlices=decimal(step),
    )
    values = _item(RescaleSlope=decimal(stack.slope), RescaleIntercept=decimal(stack.intercept), RescaleType="HU")
    windows = _item(
        WindowCenter=[decimal(centre) for centre, _, _ in WINDOWS],
        WindowWidth=[decimal(width) for _, width, _ in WINDOWS],
        WindowCenterWidthExplanation=[name for _, _, name in WINDOWS],
    )
    anatomy = _item(FrameLaterality="U", AnatomicRegionSequence=[code("38266002", "SCT", "Entire body")])
    kind = _item(
        FrameType=_TYPE, PixelPresentation="MONOCHROME", VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )  # fmt: skip
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[decimal(x) for x in stack.orientation])]
    shared.PixelValueTransformationSequence = [values]
    shared.FrameVOILUTSequence = [windows]
    shared.FrameAnatomySequence = [anatomy]
    shared.CTImageFrameTypeSequence = [kind]
    shared.IrradiationEventIdentificationSequence = [_item(IrradiationEventUID=origin.uid("no irradiation"))]
    return shared


def _frame(stack: Stack, k: int) -> "Dataset":
    """Place and order of frame k."""
    from pydicom import Dataset

    from tomogen.formats.dicom.writer import decimal

    frame = Dataset()
    frame.FrameContentSequence = [_item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])]
    frame.PlanePositionSequence = [_item(ImagePositionPatient=[decimal(x) for x in stack.position(k)])]
    return frame


def _organization(origin: Origin) -> "Dataset":
    return _item(DimensionOrganizationUID=origin.uid("dimensions"))


def _indices(origin: Origin) -> "list[Dataset]":
    """Frames are found by stack, then by their place in it."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    group = Tag(tag_for_keyword("FrameContentSequence") or 0)
    return [
        _item(
            DimensionOrganizationUID=origin.uid("dimensions"),
            DimensionIndexPointer=Tag(tag_for_keyword(keyword) or 0),
            FunctionalGroupPointer=group,
            DimensionDescriptionLabel=keyword,
        )
        for keyword in ("StackID", "InStackPositionNumber")
    ]


def _item(**values: object) -> "Dataset":
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
