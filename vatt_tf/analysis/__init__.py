"""The costs of a model, and reports of what it has learned."""
