"""How good are generated digits? Judged by an independent classifier, by Frechet distances, and by
whether they lie nearer to the training images than unseen digits do.

    python -m benchmarks.digits_quality --images=runs/demo/images --grid=runs/demo/grid.png

Reads <images>/<class>/<seed>.png as `generate.py --class=each` writes them. Needs scikit-learn.
"""

from pathlib import Path

import click
import numpy as np

from data.dataset import ImageDataset
from metrics.detectors import load
from metrics.evaluate import evaluate
from metrics.frechet import frechet_distance
from metrics.memorization import memorization_ratio
from metrics.scores import classifier_score, probabilities
from torch_utils.command import Command
from torch_utils.grids import save_grid

DIGITS = Path(__file__).parents[1] / "assets" / "digits-8x8.zip"
NUM_TRAIN = 1437  # configs/digits.yaml trains on four fifths


def judge() -> tuple[object, float]:
    """A support vector classifier trained on real training digits, and its held-out accuracy."""
    from sklearn.svm import SVC

    train = ImageDataset(DIGITS, use_labels=True, max_size=NUM_TRAIN)
    held_out = ImageDataset(DIGITS, use_labels=True, max_size=NUM_TRAIN, held_out=True)
    assert train.labels is not None
    assert held_out.labels is not None
    classifier = SVC(gamma="scale", C=10.0).fit(_vectors(train.load()), train.labels.argmax(1))
    accuracy = classifier.score(_vectors(held_out.load()), held_out.labels.argmax(1))
    return classifier, float(accuracy)


def _vectors(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


def frechet(detector: str, images: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between two sets of images under a detector."""
    found = [
        evaluate(load(detector, "cpu"), [part], part.shape[1:]).statistics.finalize()
        for part in (images, reference)
    ]
    return frechet_distance(*found)


@click.command(cls=Command)
@click.option("--images", metavar="DIR", required=True, help="Folder with a folder a class.")
@click.option("--grid", metavar="FILE", required=True, help="PNG to write: one row a class.")
def main(images: str, grid: str) -> None:
    """Print a table of scores of generated digits and write a grid of them."""
    generated = ImageDataset(images)
    classes = np.array([int(Path(name).parts[0]) for name in generated.names])
    pictures = generated.load()
    real = ImageDataset(DIGITS).load()
    train = ImageDataset(DIGITS, max_size=NUM_TRAIN).load()
    held_out = ImageDataset(DIGITS, max_size=NUM_TRAIN, held_out=True).load()

    classifier, accuracy = judge()
    agreement = float((classifier.predict(_vectors(pictures)) == classes).mean())  # type: ignore[attr-defined]
    order = np.random.RandomState(0).permutation(len(real))
    halves = frechet("pixels", real[order[::2]], real[order[1::2]])
    memory = memorization_ratio(pictures / 255.0, train / 255.0, held_out / 255.0)
    found = evaluate(load("digits", "cpu"), [pictures], pictures.shape[1:])
    real_found = evaluate(load("digits", "cpu"), [real], real.shape[1:])
    assert found.logits is not None
    assert real_found.logits is not None

    rows = [
        ("", "generated", "real digits"),
        ("class agreement (SVC)", f"{agreement:.1%}", f"{accuracy:.1%} held out"),
        (
            "frechet distance (pixels)",
            f"{frechet('pixels', pictures, real):.4f}",
            f"{halves:.4f} between two halves",
        ),
        (
            "frechet distance (digits)",
            f"{frechet('digits', pictures, real):.3f}",
            f"{frechet('digits', real[order[::2]], real[order[1::2]]):.3f} between two halves",
        ),
        (
            "classifier score (digits)",
            f"{classifier_score(probabilities(found.logits)):.2f}",
            f"{classifier_score(probabilities(real_found.logits)):.2f}",
        ),
        (
            "nearest training / nearest held-out",
            f"{memory.ratio:.2f}",
            f"{memory.baseline:.2f} (0 would be copies)",
        ),
    ]
    print(f"{len(pictures)} generated digits against {len(real)} real ones")
    for name, value, reference in rows:
        print(f"  {name:<36} {value:>10}   {reference}")
    shown = np.concatenate([pictures[classes == digit][:16] for digit in range(10)])
    save_grid(grid, shown, 16, row_names=[str(digit) for digit in range(10)])
    print(f"grid: {grid}")


if __name__ == "__main__":
    main()
