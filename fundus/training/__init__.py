"""The steps and loops that Ray Train runs, and the evaluation of what they yield."""
