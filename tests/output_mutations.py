"""Changed lines of what keeps images, packs them and takes up a command, and tests that notice."""

from tests.mutations import Mutant

_TABLE = {
    ("samplers/beginning.py", "tests/samplers/test_beginning.py"): [
        ("scan.stamps[name] == strangers.get(name)", "name in strangers"),
        ("kept - alien, shape, old)", "kept, shape, old)"),
        ("is_same else scan.stamps", "is_same else {}"),
        ('((held, "holds")', '(([], "holds")'),
        ("if changed := difference(before, request):", "if changed := None:"),
        ("if own in missing:", "if True:"),
        ("and destination.form.is_whole(path, shape))", ")"),
        ("_check_loss(destination, names, scan.stamps, old)", "pass"),
    ],
    ("samplers/destination.py", "tests/samplers/test_beginning.py"): [
        ("[name for name in old.names if name not in mine]", "[]"),
        ("if keep_old else None, set(names)", ", set(names)"),
        ("**({} if old is None else old.classes), **classes", "**classes"),
    ],
    ("samplers/packed_zip.py", "tests/samplers/test_beginning.py"): [
        ("file.read() == _END", "bool(_END)"),
        ("picture.verify()", "pass"),
        ("picture.size == (width, height) and", "True and"),
    ],
    ("samplers/packed_npz.py", "tests/samplers/test_beginning.py"): [
        ("os.fstat(file.fileno()).st_size == size", "size > 0"),
        ("found == (height, width, channels)", "len(found) == 3"),
    ],
    (
        "samplers/outputs.py",
        "tests/samplers/test_outputs.py::test_a_batch_is_written_while_the_next_one_is_computed",
    ): [("max(_BACKLOG, batch)", "_BACKLOG")],
    ("samplers/outputs.py", "tests/samplers/test_outputs.py"): [
        ("return None if is_lost[place] else picture", "return picture"),
    ],
    ("samplers/starts.py", "tests/samplers/test_starts.py"): [
        ("pairwise(bounds[1:])", "pairwise(bounds[2:])"),
        ("with torch.inference_mode():", "with torch.no_grad():"),
        ("drawn.numel() < num * _LEAST_OF_IMAGE", "False"),
    ],
    (
        "samplers/records.py",
        "tests/test_resume.py::test_another_model_is_another_request_and_a_copy_is_not",
    ): [('"network": digest(sampling.denoiser)', '"network": ""')],
    (
        "generation/plain.py",
        "tests/test_resume.py::test_the_bar_moves_within_a_batch",
    ): [("within(len(x), i / num_steps)", "pass")],
}

OUTPUT_MUTANTS = [
    Mutant(file, original, replacement, (tests,))
    for (file, tests), changes in _TABLE.items()
    for original, replacement in changes
]
