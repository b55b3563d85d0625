"""Containers: the members of zips and tars, and the location of their bytes."""
