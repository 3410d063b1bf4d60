"""What commands of `fid.py` do with their options. They import this module when they are called."""

from collections.abc import Sequence
from typing import Any

from metrics.reference import check_destination, save_reference
from samplers.outputs import check_outputs
from scoring.command_line import criteria_of, say_all, say_left_out, warn_all
from scoring.images import open_images
from scoring.judge import Subject, bias_lines
from scoring.judging import judge_of
from scoring.kept import keeping
from scoring.network import check_ranges, model_name, open_network, score_ranges
from scoring.nll import Effort, measure_nll
from scoring.nll import as_json as nll_as_json
from scoring.nll import lines_of as nll_lines
from scoring.nll_setup import Chosen, task_of
from scoring.results import (
    append_line,
    append_log,
    as_json,
    check_writable,
    lines_of,
    ranges_as_json,
    summary_lines,
    write_json,
)
from scoring.run import make_reference, score_images
from torch_utils.distributed import choose_device, world
from torch_utils.leaving import ended_by_sigterm


def calc(
    *, images: str, num: int, seed: int, batch: int, json_file: str | None, device: str, **how: Any
) -> None:
    """Score images that exist, and print the numbers."""
    check_writable(json_file)
    opened = open_images(images, num, seed)
    with world(device) as here:
        subject = Subject(images, opened.image_shape, len(opened))
        judge = judge_of(criteria_of(how), here, [subject], batch=batch)
        scores = score_images(judge, opened, what=images, batch=batch, subset_seed=seed)
    if scores is not None:
        say_left_out(images)
        warn_all(judge.cautions(len(opened)))
        say_all(lines_of(scores))
        write_json(json_file, as_json(scores))


def ref(*, data: str, dest: str, features: bool, batch: int, device: str, **how: Any) -> None:
    """Write the reference statistics of a data set."""
    opened = open_images(data)
    check_destination(dest)
    with world(device) as here:
        criteria = criteria_of(how)
        made = make_reference(opened, criteria, here, batch=batch, keep_features=features)
    if not here.is_main:
        return
    say_left_out(data)
    num, num_features = made.gaussian.num, len(made.gaussian.mu)
    warn_all(bias_lines(num_features, {"the reference's ": num}))
    save_reference(dest, made)
    print(f"{dest}: {num_features} features ({criteria.detector}) of {num} images")


def gen(
    *,
    network: str,
    seeds: Sequence[list[int]],
    outdir: str | None,
    subdirs: bool,
    log: str | None,
    guidance_network: str | None,
    model_config: str | None,
    json_file: str | None,
    batch: int,
    device: str,
    rng_device: str,
    **options: Any,
) -> None:
    """Score the images of a network, a range of seeds at a time, and print the numbers."""
    criteria, several = criteria_of(options), []
    choose_device(rng_device)
    check_writable(json_file, log)
    warnings = check_ranges(seeds)
    with world(device) as here, ended_by_sigterm():
        opened = open_network(network, options, here, guidance_network, model_config=model_config)
        if outdir is not None:
            check_outputs(outdir, None, opened.image_shape[0])
        subject = Subject(network, opened.image_shape, len(seeds[0]))
        judge = judge_of(criteria, here, [subject], batch=batch)
        everything = [seed for part in seeds for seed in part]
        how: Any = {"batch": batch, "rng_device": rng_device}
        with keeping(
            outdir, opened, everything, here, subdirs=subdirs, rng_device=rng_device
        ) as kept:
            if here.is_main:
                warnings += [] if kept is None else kept.warnings
                warn_all(warnings + opened.warnings + judge.cautions(len(seeds[0])))
                say_all(opened.remarks)
            for scores in score_ranges(judge, opened, seeds, name=network, kept=kept, **how):
                several.append(scores)
                say_all(lines_of(scores))
                if log is not None:
                    append_log(log, scores)
            if kept is not None and here.is_main:
                kept.finish(opened, everything, rng_device)
    if several:
        say_all(summary_lines(several))
        write_json(json_file, ranges_as_json(several))


def nll(
    *,
    network: str,
    data: str,
    model_config: str | None,
    json_file: str | None,
    log: str | None,
    batch: int,
    device: str,
    steps: int,
    probes: int,
    seed: int,
    sigma_min: float | None,
    sigma_max: float | None,
    **which: Any,
) -> None:
    """Compute the likelihood of images under a network, and print it."""
    check_writable(json_file, log)
    chosen, effort = Chosen(**which), Effort(steps, probes, seed)
    with world(device) as here, ended_by_sigterm():
        levels = {"sigma_min": sigma_min, "sigma_max": sigma_max}
        task = task_of(network, data, chosen, here, model_config=model_config, **levels)
        if here.is_main:
            warn_all(task.warnings)
            say_all(task.network.remarks)
            say_left_out(data)
        what = model_name(network)
        found = measure_nll(task, effort, here, what=what, batch=batch)
    if found is None:
        return
    say_all(nll_lines(found))
    write_json(json_file, nll_as_json(found))
    if log is not None:
        append_line(log, what, f"nll {found.mean:.6g}")
