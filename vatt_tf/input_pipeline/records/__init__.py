"""Records: the form of a clip on disk, with its writer and its readers."""
