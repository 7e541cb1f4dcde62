"""Recipes, one TOML file each."""
