"""What the API and the workers agree on: contracts, keys, the ledger, the queue. Imports neither side."""
