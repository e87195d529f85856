"""Measures of what a model has learned."""
