"""Public data sets: one file for each, which reads the lists of its owner."""
