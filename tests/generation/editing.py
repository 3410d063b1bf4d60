"""What the tests of modes that edit images share: masks and command lines."""

from pathlib import Path

import numpy as np

from torch_utils.images import save_png

HEIGHT, WIDTH = 8, 6  # of the snapshots


def draw_mask(path: Path, columns: slice = slice(3, None), width: int = WIDTH) -> Path:
    pixels = np.zeros((1, HEIGHT, width), np.uint8)
    pixels[:, :, columns] = 255
    path.parent.mkdir(exist_ok=True)
    save_png(path, pixels)
    return path


def options(network: Path, outdir: Path, mode: str, *arguments: object) -> list[str]:
    where = [f"--network={network}", f"--outdir={outdir}", f"--mode={mode}"]
    return [*where, *map(str, arguments)]
