"""Drift: comparison of a night's pictures with earlier ones and with those that a bundle knows."""
