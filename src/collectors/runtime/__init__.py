"""How data moves; the only code that knows all layers."""
