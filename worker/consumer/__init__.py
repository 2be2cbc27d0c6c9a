"""Celery's side of the worker: the task, the queue order, and fixes for kombu's Redis transport."""
