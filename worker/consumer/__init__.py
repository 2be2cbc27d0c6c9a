"""Celery's side of the worker: the task, the queue order, and patches of kombu's Redis transport."""
