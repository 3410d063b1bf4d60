"""From a resolved config to a trainer: model, objective, first weights."""

import torch
from torch import Tensor

import losses
from diffusion import preconditioning
from diffusion.denoiser import Denoiser
from diffusion.preconditioning import Preconditioning
from importers.opening import find_model, open_model
from losses.objective import Objective
from models.build import build
from models.config import ModelConfig
from networks.blocks import set_remat
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.seeding import Stream, derive_seed
from training.config import ResolvedConfig, TrainingConfig, model_config
from training.data import TrainingData
from training.judging import check_evaluation
from training.preview import plan_preview
from training.trainer import Trainer


def create_objective(config: TrainingConfig, scalings: Preconditioning | None = None) -> Objective:
    """The objective of a config.

    Noise level, weighting and reduction are those that the preconditioning was published with
    unless the config says otherwise; the weighting assumes the model's sigma_data, the noise level
    the model's schedule.

    Args:
        config: the experiment.
        scalings: the preconditioning that it describes, if a denoiser has it already.

    Raises:
        UserError: unknown names or options, or ones that do not go together.
    """
    scalings = scalings or preconditioning.create(**config.preconditioning.model_dump())
    published = losses.PUBLISHED_OBJECTIVES[config.preconditioning.name]
    loss = config.loss.model_dump()
    for key in ("noise_level", "weight", "reduction"):
        if loss[key] is None:
            loss[key] = getattr(published, key)
    return losses.create(**loss, sigma_data=scalings.sigma_data, schedule=scalings.schedule)


def model_of(config: TrainingConfig, data: TrainingData) -> ModelConfig:
    """The model that a config and its data determine."""
    return model_config(config, image_shape=data.image_shape, label_dim=data.label_dim)


def checked_model(config: TrainingConfig, data: TrainingData) -> Denoiser:
    """Check that a config can be trained on its data, before anything is written.

    Returns:
        The model, without weights.

    Raises:
        UserError: unknown names or options, or sizes that the network cannot have.
    """
    settings, model = generation_settings(config.sampler), model_of(config, data)
    denoiser = build(model, empty=True)
    create_objective(config, denoiser.preconditioning)
    if config.run.label_dropout and not config.data.cond:
        raise UserError("run.label_dropout has no effect without labels: set data.cond")
    sampling_of(settings, denoiser)
    if config.preview.enabled:
        plan_preview(config.preview, config.sampler, denoiser)
    check_evaluation(config)
    return denoiser


def create_trainer(config: ResolvedConfig, model: ModelConfig, world: World) -> Trainer:
    """Build the model with weights drawn from the run's seed, and all that trains it."""
    torch.manual_seed(derive_seed(config.run.seed, Stream.INIT))
    denoiser = build(model)
    set_remat(denoiser.model, config.run.remat)
    objective = create_objective(config, denoiser.preconditioning)
    return Trainer(denoiser, objective, config, world)


def transferable(path: str, denoiser: Denoiser) -> dict[str, Tensor]:
    """The tensors that a model shares by name with another one, ours or foreign.

    Args:
        path: anything that `importers.opening.find_model` finds.
        denoiser: the model.

    Raises:
        UserError: no model, a tensor of another shape, or no common tensor.
    """
    source = open_model(find_model(path)).denoiser
    ours = denoiser.state_dict()
    common = {name: tensor for name, tensor in source.state_dict().items() if name in ours}
    for name, tensor in common.items():
        if tensor.shape != ours[name].shape:
            raise UserError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, "
                f"the model's has {tuple(ours[name].shape)}"
            )
    if not common:
        raise UserError(f"{path} has no tensor in common with the model")
    return common


def transfer(trainer: Trainer, path: str) -> str:
    """Start from a snapshot's weights, tensor by tensor by name, in weights and average alike.

    Returns:
        A line that lists the tensors that the snapshot does not have.

    Raises:
        UserError: as `transferable`.
    """
    common = transferable(path, trainer.denoiser)
    for module in (trainer.denoiser, trainer.average):
        module.load_state_dict(common, strict=False)
    missing = sorted(trainer.denoiser.state_dict().keys() - common.keys())
    return (
        f"transferred {len(common)} tensors from {path}; "
        f"left as initialised: {', '.join(missing) or 'none'}"
    )
