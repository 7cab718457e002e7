"""One file a processor; the file's name is its type."""
