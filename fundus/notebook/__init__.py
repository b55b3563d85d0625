"""What notebooks call: one picture measured, and a results place read. No Ray."""
