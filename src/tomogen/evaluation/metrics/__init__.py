"""Metrics against truth under the standard definition, one file each: `measure(pair)` yields readings."""
