"""Models, images and a mask for the modes that edit images."""

from pathlib import Path

import numpy as np
import pytest

from tests.generation.editing import HEIGHT, WIDTH, draw_mask
from tests.test_generate_cli import write_snapshot
from torch_utils.images import save_png


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("models") / "cond.safetensors", 3, steps=4)


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("models") / "uncond.safetensors", 0, steps=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images in the folders of two classes, whose numbers the model has otherwise."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("bee/0.png", "bee/1.png", "cow/0.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        save_png(folder / name, random.integers(0, 256, (1, HEIGHT, WIDTH), np.uint8))
    return folder


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The right half is white."""
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    return draw_mask(path)
