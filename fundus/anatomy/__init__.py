"""What a disc and a cup are: labels, post-processing, measures and scores."""
