"""The pipeline file: its shape, and loading it with errors that point at line and column."""
