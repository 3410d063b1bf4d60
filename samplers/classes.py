"""Classes in the words of a command line: the number of a name, and folders with the names."""

import unicodedata
from collections.abc import Sequence

from torch_utils.class_folders import folder_names
from torch_utils.errors import UserError, unknown_name
from torch_utils.text import some


def class_number(
    chosen: str, names: Sequence[str], num_classes: int, words: Sequence[str] = ()
) -> int:
    """The number of a class that is given by its name or, if no name matches, by its number.

    Args:
        chosen: the name or number.
        names: of the classes; may be empty.
        num_classes: how many the model has.
        words: other words that the option takes, to be suggested for a misspelt name.

    Raises:
        UserError: no class has this name, or the number is out of range.
    """
    known = [_composed(name) for name in names]
    if _composed(chosen) in known:
        return known.index(_composed(chosen))
    if not (chosen.isascii() and chosen.isdecimal()):
        raise unknown_name("class", chosen, [*names, *words])
    digits = chosen.lstrip("0") or "0"
    index = int(digits) if len(digits) < 10 else num_classes
    if index >= num_classes:
        raise UserError(f"class {chosen} is out of range: the model has 0 to {num_classes - 1}")
    if names and all(map(str.isdecimal, names)):
        raise UserError(f"no class is named {chosen}: the class names are numbers, {some(names)}")
    return index


def class_folders(classes: Sequence[int], names: Sequence[str]) -> dict[int, str]:
    """A folder for each class, called by its name or else by its number.

    Read as a data set, the folders give the same names again.

    Args:
        classes: numbers of the classes.
        names: of all classes; may be empty.
    """
    chosen = [names[index] if names else str(index) for index in classes]
    return dict(zip(classes, folder_names(chosen), strict=True))


def _composed(name: str) -> str:
    """The name with accents as one character, whichever way they are typed."""
    return unicodedata.normalize("NFC", name)
