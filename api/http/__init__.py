"""HTTP itself: the protocol, middleware, request bodies, headers and error responses. Refuses to know jobs."""
