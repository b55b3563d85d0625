"""Access to storage: locations in folders and on S3, objects, conditional writes, retries."""
