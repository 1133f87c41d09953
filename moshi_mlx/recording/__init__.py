"""A conversation on disk. Imports no MLX and no session."""
