"""Helpers for all other packages, which use none of these packages."""
