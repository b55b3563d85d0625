"""Decoding of any bytes to pictures, in a process where they can do no harm."""
