"""The API's Prometheus metrics: what its processes count, and what they read from Redis when they are scraped.

Owns the names and the exposition. Refuses labels that a caller can make up: labels are routes, dialects, statuses,
classes, models and error codes.
"""
