"""Glaucoma screening from colour fundus photographs that survives a new camera."""

__version__ = "0.1.0"
