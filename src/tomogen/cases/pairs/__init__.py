"""Two scans of one patient: which belong together, whether they lie voxel upon voxel, how they become one case."""
