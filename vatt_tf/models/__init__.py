"""The towers, the models made of them, and the sizes they come in."""
