"""What a fundus photograph is: bytes to pixels, field of view, ROI and its way back."""
