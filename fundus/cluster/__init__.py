"""What runs the nodes: how many are wanted, how they start, what happens when one goes."""
