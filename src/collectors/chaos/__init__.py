"""Kills a copy of a pipeline at every moment that matters, and compares what is stored with what should be."""
