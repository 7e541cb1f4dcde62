"""A run, or scores -> one self-contained HTML page."""
