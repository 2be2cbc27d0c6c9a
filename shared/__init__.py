"""Code that the API and the workers share: contracts, errors, the ledger, the queue and pools. Imports neither."""
