"""Drawing an eye as a camera would show it: arithmetic, no files."""
