"""Volumes -> a prepared folder -> Batches."""
