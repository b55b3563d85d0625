"""Disc and cup: labels, post-processing, measures and scores."""
