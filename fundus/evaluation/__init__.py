"""Evaluation of a bundle: tables, worst eyes, detection; calibration of risk and structures."""
