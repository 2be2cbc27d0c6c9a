"""The worker: claims shards from a model's queues, scores them with its engine, and reports the scores."""
