"""Nodes of a cluster: how many a night needs, how they start, what happens when one is lost."""
