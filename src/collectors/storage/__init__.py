"""The storage layer: tables come to rest."""
