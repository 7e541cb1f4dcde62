"""Physics of a radiograph: where source and detector stand, what tissue absorbs, line integrals, the look."""
