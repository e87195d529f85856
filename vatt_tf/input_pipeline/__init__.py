"""From records to the dictionary of tensors that the model takes."""
