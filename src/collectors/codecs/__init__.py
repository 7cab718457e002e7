"""The border between bytes and Arrow tables; one file a format, the file's name is its type."""
