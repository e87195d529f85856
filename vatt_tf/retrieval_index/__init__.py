"""Search in embeddings: an index, queries, and a web page."""
