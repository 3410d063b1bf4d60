"""Names that the published systems gave to what has another name here.

Used where a name is unknown, and for docs/migration.md. Command-line flags stand without dashes and
with underscores. What has the same name here is not listed.
"""

# published name -> (whose, ours)
SPELLINGS: dict[str, tuple[str, str]] = {
    # SA-DPM: configs and train_ddp.py, generate.py
    "doc": ("SA-DPM", "--desc"),
    "exp": ("SA-DPM", "--outdir"),
    "ni": ("SA-DPM", "nothing: run directories are never overwritten"),
    "resume_training": ("SA-DPM", "--resume=latest"),
    "num_process_per_node": ("SA-DPM", "torchrun --nproc_per_node"),
    "num_proc_node": ("SA-DPM", "torchrun --nnodes"),
    "master_address": ("SA-DPM", "torchrun --master_addr"),
    "n_epochs": ("SA-DPM", "run.duration=...ep"),
    "snapshot_freq": ("SA-DPM", "run.snap"),
    "random_flip": ("SA-DPM", "data.xflip"),
    "ema_rate": ("SA-DPM", "ema.decay with ema.kind=constant"),
    "grad_clip": ("SA-DPM", "optimizer.clip_norm"),
    "beta_schedule": ("SA-DPM", "preconditioning.schedule, e.g. beta_linear"),
    "num_diffusion_timesteps": ("SA-DPM", "preconditioning.schedule={name: ..., num_steps: ...}"),
    "ch": ("SA-DPM", "network.model_channels"),
    "ch_mult": ("SA-DPM", "network.channel_mult"),
    "num_res_blocks": ("SA-DPM", "network.num_blocks"),
    "image_folder": ("SA-DPM", "--outdir"),
    "sample_type": ("SA-DPM", "--sampler=ddim (generalized) or ddpm (ddpm_noisy)"),
    "skip_type": ("SA-DPM", "--spacing=leading (uniform) or quad"),
    "timesteps": ("SA-DPM", "--steps"),
    "ckpt_id": ("SA-DPM", "--network=SNAPSHOT"),
    "num_samples": ("SA-DPM", "--seeds=0-N"),
    "model_ema": ("SA-DPM", "nothing: snapshots hold averaged weights"),
    "fid_log": ("SA-DPM", "fid.py calc"),
    # v-diffusion
    "epochs": ("v-diffusion", "run.duration=...ep"),
    "beta1": ("v-diffusion", "optimizer.betas"),
    "beta2": ("v-diffusion", "optimizer.betas"),
    "batch_size": ("v-diffusion", "run.batch, the global batch"),
    "num_accum": ("v-diffusion", "run.batch_gpu, the size of a micro-batch"),
    "train_timesteps": ("v-diffusion", "loss.noise_level={name: uniform_time, num_steps: ...}"),
    "sample_timesteps": ("v-diffusion", "sampler.steps or --steps"),
    "logsnr_schedule": ("v-diffusion", "preconditioning.schedule, e.g. logsnr_cosine"),
    "model_out_type": ("v-diffusion", "preconditioning.output: x0, eps, v, x0_eps (both)"),
    "model_var_type": ("v-diffusion", "sampler.variance: small, large, interpolated (medium)"),
    "reweight_type": ("v-diffusion", "loss.weight: constant, snr, snr_trunc, snr_1plus"),
    "loss_type": ("v-diffusion", "loss.terms: denoising (mse) or vlb (kl)"),
    "intp_frac": ("v-diffusion", "sampler.fraction"),
    "w_guide": ("v-diffusion", "sampler.guidance={w: ...} or --guidance=w=..."),
    "p_uncond": ("v-diffusion", "run.label_dropout"),
    "use_cfg": ("v-diffusion", "--cond=1 and --guidance"),
    "use_ddim": ("v-diffusion", "--sampler=ddim"),
    "use_ema": ("v-diffusion", "nothing: snapshots hold averaged weights"),
    "ema_decay": ("v-diffusion", "ema.decay with ema.kind=ramp"),
    "grad_norm": ("v-diffusion", "optimizer.clip_norm"),
    "image_intv": ("v-diffusion", "run.snap"),
    "ckpt_intv": ("v-diffusion", "run.dump"),
    "max_ckpts_kept": ("v-diffusion", "run.keep_states"),
    "exp_dir": ("v-diffusion", "--outdir"),
    "exp_name": ("v-diffusion", "--desc"),
    "config_path": ("v-diffusion", "--config"),
    "from_ckpt": ("v-diffusion", "--resume"),
    "allow_bf16": ("v-diffusion", "--precision=bf16"),
    "allow_fp16": ("v-diffusion", "--precision=fp16"),
    "hid_channels": ("v-diffusion", "network.model_channels"),
    "ch_multipliers": ("v-diffusion", "network.channel_mult"),
    "drop_rate": ("v-diffusion", "network.dropout"),
    # Diffusion-Models-Implementations
    "total_steps": ("DDPM implementation", "preconditioning.schedule={num_steps: ...}"),
    "objective": ("DDPM implementation", "preconditioning.output: eps, x0, v"),
    "var_type": ("DDPM implementation", "sampler.variance: small or large"),
    "n_steps": ("DDPM implementation", "run.duration=...it"),
    "micro_batch": ("DDPM implementation", "run.batch_gpu"),
    "clip_grad_norm": ("DDPM implementation", "optimizer.clip_norm"),
    "ema_gradual": ("DDPM implementation", "ema.kind=ramp"),
    "dim_mults": ("DDPM implementation", "network.channel_mult"),
    "respace_type": ("DDPM implementation", "--spacing"),
    "respace_steps": ("DDPM implementation", "--steps"),
    "skip_steps": ("DDPM implementation", "--steps"),
    "ddim_eta": ("DDPM implementation", "--eta"),
    "guidance_scale": ("DDPM implementation", "--guidance"),
    "save_dir": ("DDPM implementation", "--outdir"),
    "clip_denoised": ("DDPM implementation", "sampler.clip or --clip"),
    # EDM and CDM
    "fp16": ("EDM", "--precision=fp16"),
    "workers": ("EDM", "nothing: images are decoded once and kept in memory"),
    "cache": ("EDM", "nothing: images are decoded once and kept in memory"),
    "num_steps": ("EDM", "--steps"),
    "discretization": ("EDM", "--disc"),
    "epsilon_t": ("EDM", "loss.noise_level={name: vp, epsilon_t: ...}"),
}


def hint(name: str) -> str | None:
    """What a published name is called here, as the end of a sentence; None if it is not one.

    Args:
        name: a flag or a dotted key.
    """
    key = name.lstrip("-").split(".")[-1].split("=")[0].replace("-", "_")
    if key not in SPELLINGS:
        return None
    system, ours = SPELLINGS[key]
    return f"{system}'s {key} is {ours} here"
