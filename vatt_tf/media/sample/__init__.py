"""Sample media: coloured shapes that move, sound and have captions."""
