"""Decoding of one picture file: from its bytes to pixels, by its own headers."""
