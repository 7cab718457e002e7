"""One file a source; the file's name is its type."""
