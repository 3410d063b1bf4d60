"""The images of a network that are kept while they are scored: in a folder, a zip or an .npz."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from samplers.beginning import Begun, begun
from samplers.destination import Destination, destination_of
from samplers.outputs import PictureWriter, failing, picture_name
from samplers.records import request_of
from samplers.requests import LabelWords
from samplers.starts import classes_of
from scoring.network import Network, samples_of
from torch_utils.distributed import World


@dataclass(frozen=True)
class Kept:
    """Images that are being kept; made by `keeping`.

    Attributes:
        destination: where.
        subdirs: a folder for every thousand seeds.
        begun: what there was before.
    """

    destination: Destination
    subdirs: bool
    begun: Begun

    @property
    def warnings(self) -> Sequence[str]:
        """Lines to print before the work."""
        return self.begun.warnings

    def name(self, seed: int) -> str:
        """The name of an image."""
        return picture_name(seed, "", subdirs=self.subdirs)

    def writer(self, batch: int) -> PictureWriter:
        """What writes them; see `PictureWriter`."""
        return PictureWriter(self.destination, batch)

    def finish(self, network: Network, seeds: Sequence[int], rng_device: str) -> None:
        """Put all images into the file, if they go into one; on the main process, at the end.

        Raises:
            Failure: it cannot be written.
        """
        if not self.destination.is_packed:
            return
        names, source = [self.name(seed) for seed in seeds], network.source
        classes: list[int] = []
        if source.dim and source.is_class and not network.sampling.ignores_labels:
            samples = samples_of(network, seeds)
            classes = classes_of(network.sampling, samples, source=source, rng_device=rng_device)
        with failing(self.destination.outdir):
            self.destination.pack(
                names,
                network.image_shape,
                self.begun.request,
                keep_old=False,
                classes=dict(zip(names, classes, strict=False)),
                class_names=source.names if source.is_class else (),
                advance=lambda num: None,
            )
        self.destination.remove_parts()


@contextlib.contextmanager
def keeping(
    outdir: str | None,
    network: Network,
    seeds: Sequence[int],
    world: World,
    *,
    subdirs: bool,
    rng_device: str,
) -> Iterator[Kept | None]:
    """Prepare to keep the images of seeds; None without an outdir. All processes must call.

    Args:
        outdir: where; `samplers.outputs.check_outputs` has accepted it.
        network: opened.
        seeds: all that will be scored.
        world: the processes.
        subdirs: a folder for every thousand seeds.
        rng_device: where random numbers are drawn.

    Raises:
        UserError: as of `samplers.beginning.begun`.
    """
    if outdir is None:
        yield None
        return
    destination, words = destination_of(outdir), LabelWords()
    with begun(
        destination,
        [picture_name(seed, "", subdirs=subdirs) for seed in seeds],
        network.image_shape,
        lambda: request_of(network.sampling, words, rng_device=rng_device, subdirs=subdirs),
        world=world,
    ) as found:
        yield Kept(destination, subdirs, found)
