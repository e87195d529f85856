"""Turns records into the dictionaries of tensors that models take."""
