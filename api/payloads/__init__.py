"""Bytes of large files (batch inputs and outputs), as named objects in a folder, an S3 bucket or Redis.

Owns writing them completely or not at all, reading ranges, listing and deleting. Refuses to know what the bytes mean,
who may read them and when they are no longer needed.
"""
