"""The Ray Data chain: inventory, decode, detect, crop, segment, measure, write."""
