"""Generative models, one file per model: its config, its own parts, and `Model`."""
