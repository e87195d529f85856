"""Records: what one clip is on disk, how it is written and how it is read."""
