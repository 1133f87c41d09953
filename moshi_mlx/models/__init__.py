"""Maths on arrays: what Mimi and Moshi compute. Imports MLX and `moshi_mlx.frame` only; all state is an argument."""
