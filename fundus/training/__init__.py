"""The steps and loops that Ray Train runs, from data to bundle."""
