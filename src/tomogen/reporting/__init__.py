"""A run -> one self-contained HTML page."""
