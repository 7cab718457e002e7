"""One file a backend; the file's name is its type."""
