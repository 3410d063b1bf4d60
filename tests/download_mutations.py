"""Changed lines of what fetches files, and the tests that notice."""

from collections.abc import Iterator

from tests.mutations import Mutant

_TABLE = {
    ("torch_utils/downloads.py", "tests/torch_utils/test_downloads.py"): [
        ("if wanted.sha256 and sha256 != wanted.sha256:", "if False:"),
        ("if wanted.kept and sha256 != wanted.kept:", "if False:"),
        ("if sha256 and found != sha256:", "if False:"),
        ("if kept and found != kept:", "if False:"),
        ("replacing(path) as temporary:", "contextlib.nullcontext(path) as temporary:"),
        ("_keep_hash(path, found)  # first", "pass  # first"),
        ("age = 0.0 if is_held else _ABANDONED", "age = _ABANDONED"),
        ("or failures[url].is_passing]", "or True]"),
        ("_ATTEMPTS = 3", "_ATTEMPTS = 2"),
    ],
    ("torch_utils/transfer.py", "tests/torch_utils/test_downloads.py"): [
        ("if done > most:", "if False:"),
        ("if spent > timeout and done < spent * _LEAST_RATE:", "if False:"),
        ("if announced is not None and done < announced:", "if False:"),
        ("may_be_local=is_local(req.full_url)", "may_be_local=True"),
        ("request.add_unredirected_header(", "request.add_header("),
        ("if is_local(url) else []", "if not is_local(url) else []"),
        ("problem = refusal(newurl, ", "problem = refusal(req.full_url, "),
    ],
    ("torch_utils/addresses.py", "tests/torch_utils/test_addresses.py"): [
        ('if "@" in rest:', "if False:"),
        ('parts.netloc.rpartition("@")[2]', "parts.netloc"),
        (").is_loopback", ").is_private"),
        ("hashlib.sha256(url.encode())", "hashlib.sha256(stem.encode())"),
        ("if mark and not pinned:", "if False:"),
    ],
    ("torch_utils/command.py", "tests/torch_utils/test_command.py"): [
        ("option is not None and not option.is_flag", "option is not None"),
        ("args[: next(names, len(args))]", "args"),
    ],
    ("metrics/published.py", "tests/metrics/test_published.py"): [
        ("detector not in row.detectors:", "False:"),
        ("return shown(text) if is_url(text) else text", "return text"),
        ('"/" in text or os.path.exists(text)', '"/" in text'),
    ],
}


def _all() -> Iterator[Mutant]:
    for (file, tests), changes in _TABLE.items():
        for original, replacement in changes:
            yield Mutant(file, original, replacement, (tests,))


DOWNLOAD_MUTANTS = list(_all())
