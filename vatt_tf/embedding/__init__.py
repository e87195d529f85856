"""Embeddings of media files and records, as Parquet files."""
