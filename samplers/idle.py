"""Settings that were given and change nothing, for programs and Python to warn of."""

import math
from collections.abc import Mapping
from typing import Any

from samplers.guidance_settings import guidance_parts
from samplers.settings import GenerationSettings


def idle_settings(
    given: Mapping[str, Any], settings: GenerationSettings, *, has_guide: bool = False
) -> list[tuple[str, str]]:
    """Find what was given without effect.

    Args:
        given: the flat mapping, without the snapshot's settings; None stands for not given.
        settings: what it became, over the snapshot's.
        has_guide: a second network to guide by was given.

    Returns:
        (setting, why): a key of the flat mapping, `guidance.` and a key of the guidance, or `guide`
        for the second network.
    """
    options, guidance = settings.options, settings.guidance
    keys = {key for key, value in given.items() if value is not None}
    parts = guidance_parts(given.get("guidance"))
    keys |= {f"guidance.{key}" for key, value in parts.items() if value is not None}
    keys |= {"guide"} if has_guide else set()
    idle: list[tuple[str, str]] = []
    if not options.get("S_churn", math.inf):
        idle += [(key, "S_churn is 0") for key in ("S_min", "S_max", "S_noise")]
    if not options.get("restarts", True):
        idle += [("S_noise", "there are no restarts")]
    if options.get("eta") == 0:
        idle += [("S_noise", "eta is 0")]
    if options.get("scheme", "published") != "published":
        idle += [("S_max", f"scheme {options['scheme']} does not read it")]
    if options.get("variance") != "interpolated":
        idle += [("fraction", f"variance is {options.get('variance')}, not interpolated")]
    if guidance is None:
        names = ("guidance.interval", "guidance.batch", "guidance.clip")
        idle += [(name, "there is no guidance") for name in names]
    elif not guidance.is_active:
        names = ("guidance.interval", "guidance.batch", "guide")
        idle += [(name, "a guidance scale of 1 is no guidance") for name in names]
    elif has_guide:
        idle += [("guidance.batch", "two networks are always called one after the other")]
    is_dynamic = settings.clip == "dynamic"  # says how to clip, the guidance says what
    if guidance is not None and guidance.clip is not None and not is_dynamic:
        idle += [("clip", f"the guidance has clip {guidance.clip}")]
    elif guidance is not None and guidance.clip == "none":
        idle += [("clip", "the guidance has clip none")]
    return [(key, why) for key, why in idle if key in keys]
