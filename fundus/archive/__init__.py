"""An archive: listing of folders, buckets, lists and containers, and fetching of their objects."""
