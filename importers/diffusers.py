"""Folders of the library diffusers: UNet2DModel with its scheduler.

A folder of a pipeline has model_index.json and a folder for each part, or, as early ones have it,
the files of all parts side by side; the folder of a network alone has config.json and the weights.
Nothing in them is executed.
"""

import os
from pathlib import Path

from torch import Tensor

from importers.diffusers_export import write_diffusers as write_diffusers
from importers.diffusers_files import (
    INDEX,
    NETWORK_CONFIG,
    NETWORK_FOLDER,
    SCHEDULER_CONFIG,
    SCHEDULER_FOLDER,
    class_of,
    find_weights,
    open_weights,
    part,
    read_config,
)
from importers.diffusers_names import sources_of, with_new_names
from importers.diffusers_schedulers import LEFT_OUT, SchedulerReading, read_scheduler
from importers.diffusers_unet import CLASS, UNetReading, read_unet
from importers.families import check_match
from importers.interface import ForeignModel
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from models.snapshot import SnapshotInfo
from networks.unet import UNet
from torch_utils.errors import UserError

FAMILY = "diffusers"
PIPELINES = ("DDPMPipeline", "DDIMPipeline")
_NO_SCHEDULER = (
    "the folder has no scheduler: the network is taken to predict noise over DDPM's linear betas"
)


def is_diffusers(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder that says that the library diffusers wrote it."""
    path = Path(folder)
    if (path / INDEX).is_file():
        return True
    config = part(path, NETWORK_FOLDER) / NETWORK_CONFIG
    try:
        return config.is_file() and "_class_name" in read_config(config)
    except UserError:
        return False


def read_diffusers(folder: str | os.PathLike[str]) -> ForeignModel:
    """Read a folder.

    Args:
        folder: of a pipeline or of a network.

    Returns:
        The model; its `sampling` is what the folder's pipeline does.

    Raises:
        UserError: files are missing or damaged, a part is of a class that is not known here, an
            option is one that our networks do not have, or tensors do not fit the config.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"there is no folder {path}")
    if (path / INDEX).is_file():
        kind = class_of(read_config(path / INDEX))
        if kind not in PIPELINES:
            raise UserError(
                f"{path / INDEX}: the pipeline is {kind}: known are {' and '.join(PIPELINES)}"
            )
    network = part(path, NETWORK_FOLDER)
    reading = _read_network(network / NETWORK_CONFIG)
    scheduler = part(path, SCHEDULER_FOLDER) / SCHEDULER_CONFIG
    is_described = scheduler.is_file() or (path / INDEX).is_file()
    told = read_scheduler(read_config(scheduler) if is_described else {}, str(scheduler))
    notes = [*told.notes, *([] if is_described else [_NO_SCHEDULER])]
    model = _model_config(reading, told)
    state = _weights(find_weights(network), model, reading)
    if reading.out_channels > reading.img_channels and LEFT_OUT not in notes:
        notes.append(LEFT_OUT)
    info = SnapshotInfo(
        model,
        sampling=told.sampling,
        label_kind="class" if reading.num_classes else None,
        label_dropout=0.0 if reading.num_classes else None,
    )
    return ForeignModel(FAMILY, info, state, tuple(notes))


def _read_network(path: Path) -> UNetReading:
    config = read_config(path)
    if class_of(config) != CLASS:
        raise UserError(f"{path}: the network is {class_of(config)}: known is {CLASS}")
    return read_unet(config, str(path))


def _model_config(reading: UNetReading, told: SchedulerReading) -> ModelConfig:
    return ModelConfig(
        network=reading.network,
        preconditioning=PreconditioningConfig(
            name="ddpm", output=told.prediction, schedule=told.schedule
        ),
        img_resolution=reading.img_resolution,
        img_channels=reading.img_channels,
        label_dim=reading.num_classes,
    )


def _weights(path: Path, model: ModelConfig, reading: UNetReading) -> dict[str, Tensor]:
    """The weights under the names of our denoiser.

    Raises:
        UserError: the config is impossible, or the tensors do not fit it.
    """
    shapes, read = open_weights(path)
    least = reading.network["num_blocks"] * reading.num_levels
    if least > len(shapes):  # before anything is made for the sizes that a config names
        raise UserError(
            f"{path} has {len(shapes)} tensors: its config asks for {least} blocks and more"
        )
    try:
        denoiser = build(model, empty=True)
        renamed = with_new_names(shapes)
        network = denoiser.model
        assert isinstance(network, UNet)
        sources = sources_of(network, reading.num_levels, reading.network["num_blocks"])
        ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        found = {renamed[name]: shape for name, shape in shapes.items()}
        expected = dict(ours)
        for name in ("out_conv.weight", "out_conv.bias"):
            expected[name] = (reading.out_channels, *ours[name][1:])
        check_match(FAMILY, found, expected, sources)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    tensors = {renamed[name]: tensor for name, tensor in read().items()}
    state = {name: source.tensor(tensors) for name, source in sources.items()}
    for name in ("out_conv.weight", "out_conv.bias"):  # without the variance, if there is one
        state[name] = state[name][: reading.img_channels].clone()
    return {f"model.{name}": tensor for name, tensor in state.items()}
