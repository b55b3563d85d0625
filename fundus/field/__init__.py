"""The field of view of a frame, its quality and laterality, and the ROI."""
