"""The terminal: one file a command, and the screens."""
