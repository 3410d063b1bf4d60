"""Names of published systems that are called otherwise here.

Messages about an unknown option, key or value, the keys that importers translate and the tables of
docs/migration.md are all made from this table. Flags of command lines are written without dashes
and with underscores. Names that are the same here are not listed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """A published name.

    Attributes:
        systems: whose it is.
        ours: the option or key that does the same here, or the reason why nothing does.
        exists: whether there is such an option or key.
    """

    systems: tuple[str, ...]
    ours: str
    exists: bool = True


SA = ("SA-DPM",)
VD = ("v-diffusion",)
DI = ("DDPM implementation",)
CDM = ("CDM",)
SYSTEMS = (*SA, *VD, *DI, *CDM, "EDM")

_NO_OVERWRITING = "run directories are never overwritten"
_AVERAGED = "snapshots hold averaged weights"
_OF_SAMPLING = "it changes nothing there; of sampling it is an option of generate.py"
_NO_BLOCKS = "blocks of one size are computed, whatever the number of images"
_DECODED = "images are decoded once and kept in memory"

SPELLINGS: dict[str, Spelling] = {
    # sections
    "optim": Spelling(SA, "the section optimizer"),
    "training": Spelling(SA, "the section run"),
    "diffusion": Spelling((*SA, *VD, *DI), "the section preconditioning"),
    "dataloader": Spelling(DI, _DECODED, exists=False),
    # runs
    "doc": Spelling(SA, "--desc"),
    "exp_name": Spelling(VD, "--desc"),
    "ckpt_name": Spelling(VD, "--desc"),
    "chkpt_dir": Spelling(VD, "--outdir"),
    "chkpt_name": Spelling(VD, "--desc"),
    "exp": Spelling(SA, "--outdir"),
    "exp_dir": Spelling((*VD, *DI), "--outdir"),
    "ckpt_dir": Spelling(VD, "--outdir"),
    "image_dir": Spelling(VD, "--outdir"),
    "config_path": Spelling(VD, "--config"),
    "config_dir": Spelling(VD, "--config"),
    "default_config_path": Spelling(VD, "the defaults are not in a file", exists=False),
    "comment": Spelling(SA, "--desc"),
    "verbose": Spelling(SA, "what is printed does not depend on an option", exists=False),
    "experiment_name": Spelling(CDM, "--desc"),
    "wandb_id": Spelling(CDM, "runs are logged to files and TensorBoard only", exists=False),
    "ni": Spelling((*SA, *DI), _NO_OVERWRITING, exists=False),
    "no_interaction": Spelling(DI, _NO_OVERWRITING, exists=False),
    "resume_training": Spelling(SA, "--resume=latest"),
    "from_ckpt": Spelling(VD, "--resume"),
    "num_process_per_node": Spelling(SA, "torchrun --nproc_per_node"),
    "num_proc_node": Spelling(SA, "torchrun --nnodes"),
    "master_address": Spelling(SA, "torchrun --master_addr"),
    "node_rank": Spelling(SA, "torchrun --node_rank"),
    "local_rank": Spelling(SA, "torchrun --nproc_per_node"),
    "distributed": Spelling(VD, "torchrun --nproc_per_node"),
    "train_device": Spelling(VD, "--device"),
    "eval_device": Spelling(VD, "--device"),
    "n_epochs": Spelling(SA, "run.duration=...ep"),
    "epochs": Spelling(VD, "run.duration=...ep"),
    "n_steps": Spelling(DI, "run.duration=...it"),
    "batch_size": Spelling(
        (*SA, *VD, *DI), "--batch; of training the global batch (SA-DPM: that of one process)"
    ),
    "num_accum": Spelling(VD, "run.batch_gpu, the size of a micro-batch"),
    "micro_batch": Spelling(DI, "run.batch_gpu in training, --batch in generating"),
    "snapshot_freq": Spelling(SA, "run.snap=...ep and run.dump=...ep"),
    "image_intv": Spelling(VD, "run.snap=...ep"),
    "ckpt_intv": Spelling(VD, "run.dump=...ep"),
    "chkpt_intv": Spelling(VD, "run.dump=...ep"),
    "eval_intv": Spelling(VD, "evaluate.every, in snapshots"),
    "save_rng_state": Spelling(VD, "random numbers are functions of progress", exists=False),
    "save_freq": Spelling(DI, "run.snap=...it and run.dump=...it"),
    "sample_freq": Spelling(DI, "run.snap=...it"),
    "print_freq": Spelling(DI, "run.tick=...it"),
    "max_ckpts_kept": Spelling(VD, "run.keep_states and run.keep_snapshots"),
    "num_save_images": Spelling(VD, "the grids of a run have a fixed size", exists=False),
    "sample_bsz": Spelling(VD, "the grids of a run have a fixed size", exists=False),
    "allow_bf16": Spelling(VD, "--precision=bf16"),
    "allow_fp16": Spelling(VD, "--precision=fp16"),
    "allow_tf32": Spelling(VD, "--precision=bf16 is faster", exists=False),
    "cudnn_benchmark": Spelling(VD, "--bench"),
    "use_xformers": Spelling(VD, "attention is PyTorch's own", exists=False),
    "fp16": Spelling(("EDM",), "--precision=fp16"),
    # data
    "dataset": Spelling((*SA, *VD), "--data"),
    "root": Spelling((*VD, *DI), "--data"),
    "data_root": Spelling(VD, "--data"),
    "dataroot": Spelling(DI, "--data"),
    "image_size": Spelling(SA, "dataset_tool.py --resolution"),
    "img_size": Spelling(DI, "dataset_tool.py --resolution"),
    "random_flip": Spelling(SA, "augment.set=flips"),
    "num_workers": Spelling((*SA, *VD, *DI), _DECODED, exists=False),
    "workers": Spelling(("EDM",), _DECODED, exists=False),
    "cache": Spelling(("EDM",), _DECODED, exists=False),
    # network
    "ch": Spelling(SA, "network.model_channels"),
    "hid_channels": Spelling(VD, "network.model_channels"),
    "dim": Spelling(DI, "network.model_channels"),
    "ch_mult": Spelling(SA, "network.channel_mult"),
    "ch_multipliers": Spelling(VD, "network.channel_mult"),
    "dim_mults": Spelling(DI, "network.channel_mult"),
    "num_res_blocks": Spelling((*SA, *VD, *DI), "network.num_blocks"),
    "apply_attn": Spelling(VD, "network.attn_resolutions"),
    "use_attn": Spelling(DI, "network.attn_resolutions"),
    "n_heads": Spelling(DI, "network.num_heads"),
    "attn_head_dims": Spelling(DI, "network.head_dim"),
    "embedding_dim": Spelling(VD, "network.emb_channels"),
    "drop_rate": Spelling(VD, "network.dropout"),
    "multitags": Spelling(VD, "network.multi_tags"),
    "resamp_with_conv": Spelling(SA, "network.resampler: conv (true) or pool"),
    "resblock_updown": Spelling(DI, "network.resampler: block (true) or conv"),
    # diffusion and loss
    "beta_schedule": Spelling((*SA, *DI), "preconditioning.schedule: beta_linear, beta_quad, ..."),
    "num_diffusion_timesteps": Spelling(SA, "preconditioning.schedule={name: ..., num_steps: ...}"),
    "total_steps": Spelling(DI, "preconditioning.schedule={name: ..., num_steps: ...}"),
    "logsnr_schedule": Spelling(
        VD,
        "preconditioning.schedule: logsnr_cosine, logsnr_alpha2_linear (linear), logsnr_linear"
        " (sigmoid), logsnr_legacy",
    ),
    "model_out_type": Spelling(VD, "preconditioning.output: x0, eps, v, x0_eps (both)"),
    "objective": Spelling(DI, "preconditioning.output: eps, x0, v"),
    "train_timesteps": Spelling(
        VD, "loss.noise_level={name: uniform_time, num_steps: ...}, 0 for continuous time"
    ),
    "reweight_type": Spelling(
        VD, "loss.weight: constant, snr, snr_trunc (truncated_snr), snr_1plus (alpha2)"
    ),
    "loss_type": Spelling(VD, "loss.terms: denoising (mse) or vlb (kl)"),
    "x0eps_coef": Spelling(VD, "output x0_eps weights by noise level", exists=False),
    "allow_rescale": Spelling(VD, "--clip is the only rule for large values", exists=False),
    "p_uncond": Spelling((*VD, *DI), "run.label_dropout"),
    "use_cfg": Spelling(VD, "--cond=1 with run.label_dropout, then --guidance"),
    # optimizer and average
    "beta1": Spelling((*SA, *VD), "optimizer.betas"),
    "beta2": Spelling((*SA, *VD), "optimizer.betas"),
    "grad_clip": Spelling(SA, "optimizer.clip_norm"),
    "grad_norm": Spelling(VD, "optimizer.clip_norm"),
    "clip_grad_norm": Spelling(DI, "optimizer.clip_norm"),
    "ema_rate": Spelling(SA, "ema.decay with ema.kind=constant and ema.starts=first_step"),
    "ema_decay": Spelling((*VD, *DI), "ema.decay with ema.kind=ramp"),
    "ema_gradual": Spelling(DI, "ema.kind: ramp (true) or constant"),
    "use_ema": Spelling(VD, _AVERAGED, exists=False),
    "load_ema": Spelling(DI, _AVERAGED, exists=False),
    "model_ema": Spelling(SA, _AVERAGED, exists=False),
    # generating
    "ckpt_id": Spelling(SA, "--network=SNAPSHOT"),
    "ckpt_path": Spelling(VD, "--network=SNAPSHOT"),
    "image_folder": Spelling(SA, "--outdir"),
    "save_dir": Spelling((*VD, *DI), "--outdir"),
    "uncond": Spelling(VD, "--guidance=0"),
    "n_denoise": Spelling(DI, "--frames with --mode=denoise"),
    "n_progressive": Spelling(DI, "--frames with --mode=progressive"),
    "n_interpolate": Spelling(DI, "--frames with --mode=interpolate"),
    "input_dir": Spelling(DI, "--images with --mode=reconstruct"),
    "num_samples": Spelling(SA, "--seeds of generate.py and fid.py gen, 0-49999 for 50000"),
    "n_samples": Spelling(DI, "--seeds of generate.py, 0-49999 for 50000"),
    "total_size": Spelling(VD, "--seeds of generate.py, 0-49999 for 50000"),
    "sample_type": Spelling(
        SA, "--sampler=ddim (generalized); --sampler=ddpm with sampler.variance=large (ddpm_noisy)"
    ),
    "use_ddim": Spelling(VD, "--sampler=ddim"),
    "model_var_type": Spelling(VD, "sampler.variance: small, large, interpolated (medium)"),
    "var_type": Spelling(DI, "sampler.variance: small or large"),
    "intp_frac": Spelling(VD, "sampler.fraction"),
    "timesteps": Spelling(SA, "sampler.steps or --steps"),
    "sample_timesteps": Spelling(VD, "sampler.steps or --steps"),
    "respace_steps": Spelling(DI, "sampler.steps or --steps"),
    "skip_steps": Spelling(DI, "sampler.steps or --steps"),
    "skip_type": Spelling(
        (*SA, *DI), "--spacing: leading (uniform), linspace (uniform2), quad, all (unset)"
    ),
    "respace_type": Spelling(DI, "--spacing: leading, linspace, trailing, quad, all (none)"),
    "ddim_eta": Spelling(DI, "--eta"),
    "clip_denoised": Spelling(DI, "sampler.clip or --clip"),
    "w_guide": Spelling(VD, "sampler.guidance={w: ...} or --guidance=w=..."),
    "guidance_scale": Spelling(DI, "--guidance"),
    # scoring
    "fid_log": Spelling(SA, "fid.py gen --log"),
    "eval_batch_size": Spelling(VD, "fid.py --batch"),
    "eval_total_size": Spelling(VD, "fid.py --num"),
    "eval_dir": Spelling(VD, "fid.py --images"),
    "folder_name": Spelling(VD, "fid.py --images"),
    "precomputed_dir": Spelling(VD, "fid.py --ref; what is computed is kept in the cache"),
    "nhood_size": Spelling(VD, "fid.py --metrics=pr has the published 3", exists=False),
    "row_batch_size": Spelling(VD, _NO_BLOCKS, exists=False),
    "col_batch_size": Spelling(VD, _NO_BLOCKS, exists=False),
}


# command-line options only: here these are keys, or options of another program
FLAG_SPELLINGS: dict[str, Spelling] = {
    "logsnr_max": Spelling(VD, "preconditioning.schedule={name: logsnr_cosine, logsnr_max: ...}"),
    "logsnr_min": Spelling(VD, "preconditioning.schedule={name: logsnr_cosine, logsnr_min: ...}"),
    "weight_decay": Spelling(VD, "optimizer.weight_decay with optimizer.name=adamw"),
    "eval": Spelling(VD, "a separate command: fid.py gen"),
    "config": Spelling((*SA, *DI), "snapshots hold their config", exists=False),
    "c": Spelling(DI, "--config of train.py; snapshots hold their config"),
    "e": Spelling(DI, "--outdir, with --nosubdir for the folder itself"),
    "r": Spelling(DI, "--resume"),
    "i": Spelling(SA, f"--outdir; -ni has no counterpart: {_NO_OVERWRITING}"),
    "weights": Spelling(DI, "--network=SNAPSHOT"),
    "mode": Spelling(DI, "--mode of generate.py, with generate for sample"),
    "S_churn": Spelling(CDM, _OF_SAMPLING, exists=False),
    "S_min": Spelling(CDM, _OF_SAMPLING, exists=False),
    "S_max": Spelling(CDM, _OF_SAMPLING, exists=False),
    "S_noise": Spelling(CDM, _OF_SAMPLING, exists=False),
}

# values: the kind of name that is asked for -> published value -> ours
VALUES: dict[str, dict[str, str]] = {
    "preconditioning": {
        "cdm": "edm and the term consistency: --precond=cdm, or loss.terms=[denoising, consistency]"
    },
    "preconditioning.output": {
        "x_0": "x0",
        "both": "x0_eps",
        "pred_eps": "eps",
        "pred_x0": "x0",
        "pred_v": "v",
    },
    "network": {"SongUNet": "ddpmpp or ncsnpp", "DhariwalUNet": "adm"},
    "weight": {"truncated_snr": "snr_trunc", "alpha2": "snr_1plus"},
    "loss term": {"mse": "denoising", "simple": "denoising", "kl": "vlb", "sa": "sequence_aware"},
    "sampler": {"generalized": "ddim", "ddpm_noisy": "ddpm with variance=large"},
    "spacing": {"uniform": "leading", "uniform2": "linspace"},
    "mode": {"sample": "generate", "reconstruction": "reconstruct"},
    "variance": {
        "fixed_small": "small",
        "fixed_large": "large",
        "fixed_medium": "interpolated",
    },
}


def explain(kind: str, name: str) -> str | None:
    """What a published name is called here, as the end of a sentence; None if it is not one.

    Args:
        kind: what is named, e.g. "sampler" or "variance of sampler ddpm:"; it starts with "option"
            or "key" if it is one.
        name: a value; or a flag, with its dashes; or a dotted key.
    """
    if kind.split()[0] not in ("option", "key"):
        ours = VALUES.get(kind.split(" of ")[0], {}).get(name)
        return None if ours is None else f"here that is {ours}"
    key = name.lstrip("-").split(".")[-1].split("=")[0].replace("-", "_")
    flags = FLAG_SPELLINGS if name.startswith("-") else {}
    found = SPELLINGS.get(key) or flags.get(key)
    if found is None:
        return None
    published = f"{key} of {', '.join(found.systems)}"
    if found.exists:
        return f"here {published} is {found.ours}"
    return f"{published} has no counterpart here: {found.ours}"


def renamed(system: str, section: str) -> dict[str, str]:
    """A system's names of the keys in a section of ours -> the last part of our names."""
    start = f"{section}."
    return {
        name: row.ours.removeprefix(start)
        for name, row in SPELLINGS.items()
        if system in row.systems and row.ours.startswith(start) and " " not in row.ours
    }
