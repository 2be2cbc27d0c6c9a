"""The worker: takes shards from a model's queues, has its engine score them, writes the scores back."""
