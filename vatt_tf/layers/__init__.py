"""Layers: tokenizers, positions, attention, encoders, projection heads."""
