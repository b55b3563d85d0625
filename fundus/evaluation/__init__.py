"""How well a bundle does: the tables, the worst eyes, detection, and the risk's calibration."""
