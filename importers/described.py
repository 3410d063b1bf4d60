"""What a model is, as plain data for people: kind, size, progress, average, config."""

from pathlib import Path
from typing import Any

from importers.opening import OURS, FoundModel
from models.build import build


def described(model: FoundModel) -> dict[str, Any]:
    """All that is known of a model without its weights; nothing that is unknown."""
    info, blank = model.info, build(model.info.model, empty=True)
    record = {
        "kind": "snapshot" if model.family == OURS else "foreign checkpoint",
        "family": model.family,
        "file": str(model.path),
        "bytes": _size(model.path),
        "parameters": sum(weights.numel() for weights in blank.parameters()),
        "tensors": len(blank.state_dict()),
        "images": info.images or None,
        "ema": info.ema,
        "model": info.model.model_dump(mode="json"),
        "sampling": info.sampling,
        "label_kind": info.label_kind,
        "label_names": info.label_names,
        "label_dropout": info.label_dropout,
        "versions": info.versions or None,
        "notes": [*model.notes] or None,
    }
    return {key: _plain(value) for key, value in record.items() if value is not None}


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _plain(tree: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, (list, tuple)) else tree
