"""The towers, the heads and the sizes they come in."""
