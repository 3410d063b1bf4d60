"""Solvers: pure functions from a denoise function and noise levels to images, one a file."""
