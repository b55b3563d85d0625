"""Functions for notebooks, without Ray: measure one picture, and read results."""
