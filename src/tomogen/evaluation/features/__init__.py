"""Networks that turn scans and slices into rows of features, each named and known by its hash."""
