"""What a model costs: parameters, tokens, FLOPs and memory."""
