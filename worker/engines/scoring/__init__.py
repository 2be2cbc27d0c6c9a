"""Prompts and scores for each kind of model: cross-encoders, bi-encoders, late interaction, listwise.

Refuses to import an engine library: the loaded model comes in as a `ModelView`.
"""
