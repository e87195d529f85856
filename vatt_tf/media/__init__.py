"""From media files to records."""
