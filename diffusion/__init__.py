"""The mathematics of diffusion in one coordinate system: x = y + sigma n, data y in [-1, 1].

Everything here is a pure function or a thin module over one. No training, no sampling loop.
"""
