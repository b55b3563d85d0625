"""Drawing of an eye as a camera would show it: arithmetic without files."""
