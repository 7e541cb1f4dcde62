"""Texts and numbers of a parsed DICOM header, whatever is wrong with them."""

import math
from typing import Any


def spoken(dataset: Any, name: str) -> str:
    """The value of an element as text, several joined by a backslash; empty where it is absent or unreadable."""
    try:
        value = dataset.get(name)
    except Exception:  # the parser decodes an element when it is asked for, and raises anything
        return ""
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value).strip(" \0")
    return "\\".join(str(part).strip(" \0") for part in value)


def counted(dataset: Any, name: str) -> tuple[float, ...]:
    """The value of an element as finite numbers; none where one of them is none."""
    found = []
    for part in filter(None, spoken(dataset, name).split("\\")):
        try:
            found.append(float(part))
        except ValueError:
            return ()
    return tuple(found) if all(map(math.isfinite, found)) else ()
