"""Losses: plain functions of tensors."""
