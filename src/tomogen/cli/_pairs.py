"""The flag of the verbs that take pairs of scans."""

PUBLISHED = "CT1,CT2"
"""The layout that `--pairs` alone means: that of published pairs."""

PAIRS = (
    "Scans are pairs: the names that tell source from target in their paths (CT1,CT2 if none are given), or a CSV "
    "with columns source, target and perhaps patient. Alone, put it last."
)
