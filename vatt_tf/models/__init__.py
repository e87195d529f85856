"""Towers, the models that consist of them, and their sizes."""
