"""A run folder -> images."""
