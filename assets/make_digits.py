"""Build assets/digits-8x8.zip from scikit-learn's copy of the UCI handwritten digits.

Run from the root of the repository: `python -m assets.make_digits [DEST]`.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from data.convert import convert
from torch_utils.images import save_png


def make_digits(dest: str) -> int:
    """Write the 1,797 digits, 8x8 gray, with their classes, as a dataset; return the number."""
    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)  # stored values are 0..16
    with tempfile.TemporaryDirectory() as folder:
        for index, (image, label) in enumerate(zip(images, digits.target, strict=True)):
            save_png(Path(folder, str(label), f"{index:04d}.png"), image[None])
        return convert(folder, dest, overwrite=True)


if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("digits-8x8.zip"))
    print(f"wrote {make_digits(path)} images to {path}")
