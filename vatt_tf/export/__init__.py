"""Models as SavedModels, for TF Serving and for everything else."""
