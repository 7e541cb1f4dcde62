"""Scans of nobody: chest anatomy by formula."""

from tomogen.phantoms.render import chest

__all__ = ["chest"]
