"""Programs that are run: how they are started and ended, what they say, what is handed to them in secret."""
