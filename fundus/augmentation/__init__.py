"""Random changes of pictures and masks for training."""
