"""Adapters from golden cases to Driftless, one function a kind; each returns the case's error."""

from tests.parity.kinds.data import augmentation, dataset_tool
from tests.parity.kinds.diffusers import diffusers
from tests.parity.kinds.few_step import few_step
from tests.parity.kinds.losses import training_losses
from tests.parity.kinds.networks import networks_ddpm, networks_edm
from tests.parity.kinds.samplers import samplers
from tests.parity.kinds.snapshots import edm_snapshot, generated
from tests.parity.kinds.training import training

KINDS = {
    "augment": augmentation,
    "dataset-tool": dataset_tool,
    "diffusers": diffusers,
    "edm-snapshot": edm_snapshot,
    "few-step": few_step,
    "generate": generated,
    "networks-ddpm": networks_ddpm,
    "networks-edm": networks_edm,
    "samplers": samplers,
    "losses": training_losses,
    "training": training,
}
