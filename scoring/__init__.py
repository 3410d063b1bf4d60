"""Scoring images and models: what `fid.py` and the training loop share.

Opens images, networks and references, runs the one pass of the detector over all processes, and
says what came of it. The mathematics is in `metrics`.
"""
