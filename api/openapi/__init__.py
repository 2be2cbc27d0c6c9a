"""The OpenAPI document: schemas of the routes, bodies of the dialects, and examples that tests run."""
