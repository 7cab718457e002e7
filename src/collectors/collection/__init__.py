"""The collection layer: sources hand on bytes, chunk by chunk."""
