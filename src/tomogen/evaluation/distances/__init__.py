"""Distances between two sets of feature rows: plain functions of matrices."""
