"""What every layer may use: errors, events, tasks."""
