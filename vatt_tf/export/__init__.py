"""Exports models as SavedModels, for TF Serving and other programs."""
