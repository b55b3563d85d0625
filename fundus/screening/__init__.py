"""Screening as a chain of Ray Data: list, decode, detect, crop, segment, measure, write."""
