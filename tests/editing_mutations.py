"""Changed lines of interpolation, inversion and inpainting, and tests that notice."""

from tests.mutations import Mutant

_MATHEMATICS = "tests/samplers/test_editing.py"
_PROGRAM = "tests/generation/test_editing.py"
_INVERSION = "tests/generation/test_inversion.py"
_TABLE = {
    ("samplers/interpolation.py", _MATHEMATICS): [
        ("(flat_a * flat_b).sum(1) /", "(flat_a * flat_b).sum() /"),
        ("((1 - weights) * angle).sin() / sine", "1 - weights"),
        ("~(sine > _PARALLEL)", "sine < 0"),
    ],
    ("samplers/inversion.py", _MATHEMATICS): [
        ("reversed(sampling.sigmas) if sigma > 0", "reversed(sampling.sigmas[:-1])"),
        ("state / sampling.denoiser.prior_scale(levels[-1])", "state / levels[-1]"),
        ("if settings.row.is_stochastic(settings.options):", "if False:"),
        ("if not settings.row.goes_up:", "if False:"),
    ],
    ("samplers/inpainting.py", _MATHEMATICS): [
        ("sigma * known).where(is_known, x)", "known).where(is_known, x)"),
        ('if rule == "model":', 'if rule != "model":'),
        ("return images.where(is_known, made)", "return made"),
        ("(images + sigma * start.latents) / scale", "0 * images"),
    ],
    ("samplers/solvers/log_snr_steps.py", _MATHEMATICS): [
        ("term *= -h / (i + j + 1)", "term *= -h / (i + 1)"),
    ],
    ("generation/interpolate.py", _PROGRAM): [
        ("torch.lerp(a.labels, b.labels,", "torch.lerp(a.labels, a.labels,"),
        ("weights = [k / (num - 1)", "weights = [k / num"),
        ("world.sum(kept)", "None"),
    ],
    ("generation/inversion.py", _INVERSION): [
        ("10 * math.log10(_PEAK**2 / error)", "10 * math.log10(_PEAK / error)"),
        ("world.sum(latents)", "None"),
        ("if not math.isnan(error)", "if True"),
    ],
    ("generation/given_images.py", _PROGRAM): [
        ("self.classes[int(label)] if self.classes else int(label)", "int(label)"),
        ("position % self.num_seeds % len(self.source)", "0"),
    ],
    ("generation/decode.py", _INVERSION): [
        ("given.values[[i % num for i in positions]]", "given.values[[0 for i in positions]]"),
        ("class_index=int(row.argmax())", "class_index=0"),
    ],
    ("generation/masks.py", _PROGRAM): [("gray[None] < _WHITE", "gray[None] >= _WHITE")],
    ("generation/inpaint.py", _PROGRAM): [('made_of={"mode": "inpaint"}', "made_of={}")],
}

EDITING_MUTANTS = [
    Mutant(file, original, replacement, (tests,))
    for (file, tests), changes in _TABLE.items()
    for original, replacement in changes
]
