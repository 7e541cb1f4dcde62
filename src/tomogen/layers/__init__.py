"""Network parts, named once for 2D and 3D."""
