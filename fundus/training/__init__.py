"""Training and adaptation with Ray Train, from data sets to a bundle."""
