"""Prompts and scores for each kind of model: cross-encoders, bi-encoders, late interaction, listwise.

Refuses to import an engine library: it receives the loaded model as a `ModelView`.
"""
