"""Whether a night's pictures still look like those that the bundle knows."""
