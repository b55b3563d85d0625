"""What has been screened: rows, who may write them, which are done, and the pointer to them."""
