"""Losses: pure functions of embeddings and masks."""
