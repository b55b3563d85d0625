"""Detector, segmenter, discriminators, losses, and the bundle that they are shipped in."""
