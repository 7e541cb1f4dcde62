"""A recipe and prepared cases -> a run folder."""
