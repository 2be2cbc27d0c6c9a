"""`make bench-batch`: how fast batches run, what they cost, and what interactive callers notice of them."""
