"""From uint8 images to numbers: detectors, statistics, distances, scores, memorisation.

Needs `torch_utils` only; images come in as plain arrays, so any source can be measured.
"""
