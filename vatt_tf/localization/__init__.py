"""Where in a picture it sounds: maps of clips, and videos that show them."""
