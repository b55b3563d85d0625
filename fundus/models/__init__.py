"""Detector, segmenter, discriminators, losses, and the bundle that contains the networks."""
