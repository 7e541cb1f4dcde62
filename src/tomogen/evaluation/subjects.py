"""Subjects: what is scored, what was made and the floors beside it, by the names they have in scores and pages."""

MADE = "made"
RECONSTRUCTED = "reconstructed"
"""A held-out scan from its own code, beside what was made of noise."""

BLURRED = "floor: blurred truth"
INPUT = "floor: input"
"""The scan before translation."""
MEAN = "floor: mean of training"

REAL = "floor: real against real"
"""What no made set is to beat, and so never marked as best."""
UNTRAINED = "floor: untrained model"

EQUAL = "/equal n"
"""Ends the name of a metric of two sets that is scored at the floor's n."""
