"""HTTP: the protocol class, middleware, request bodies and headers, responses. Does not use the ledger."""
