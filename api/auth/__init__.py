"""API keys: where they are stored, and who a request comes from. Refuses to know routes or dialects."""
