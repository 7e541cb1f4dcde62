"""Scores: against truth, against many, against each other; each with its definition, interval and floors."""
