"""The processing layer: tables change."""
