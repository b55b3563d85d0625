"""Where bytes lie: folders, S3 and archives; listing, fetching, conditional writes."""
