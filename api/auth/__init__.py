"""API keys: storage, authentication and the commands that manage them. Knows nothing of routes or dialects."""
