"""The verb `evaluate`: pairs, sets and runs are scored, and the page about them is written."""
