"""Scans in another shape: other formats, pictures of their slices and back, or a picture to look at."""

from tomogen.conversion.converting import convert
from tomogen.conversion.result import ConvertResult
from tomogen.conversion.viewing import ViewResult, view

__all__ = ["ConvertResult", "ViewResult", "convert", "view"]
