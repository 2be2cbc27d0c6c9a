"""The door: speaks the dialects, keeps the promise of an answer or a job. Never imports the worker or a model."""

VERSION = "0.1.0"
