"""What is done to pictures and masks on their way into a training."""
