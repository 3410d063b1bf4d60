"""Dataset zips and folders: reading, subsets, labels, and writing them from other images."""
