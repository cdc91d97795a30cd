"""BIDS names: entities of a file, which files share them, and what a run inherits from folders above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.cohort.read import text_table
from data.errors import DataError
from data.text.reading import parsed_object, read_text

_OF_A_RUN = ("ses", "acq", "ce", "dir", "rec", "run")


@dataclass(frozen=True)
class BidsFile:
    """A file by its BIDS name, such as `sub-01_task-objects_run-2_space-MNI_desc-preproc_bold.nii.gz`.

    Attributes:
        path: where it is
        entities: key -> value, without suffix
        suffix: the last part of the name, such as bold
        extension: such as .nii.gz
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str

    @classmethod
    def named(cls, path: Path) -> BidsFile:
        """Take a file name apart; parts that are no `key-value` are dropped."""
        stem, dot, extension = path.name.partition(".")
        *pairs, suffix = stem.split("_")
        split = (pair.partition("-") for pair in pairs)
        return cls(path, {key: value for key, dash, value in split if dash}, suffix, dot + extension)

    @cached_property
    def space(self) -> str:
        """Space as fMRIPrep's --output-spaces writes it, such as MNI152NLin2009cAsym:res-2; `native` without one."""
        name = self.entities.get("space", "native")
        return name + (f":res-{self.entities['res']}" if "res" in self.entities else "")

    @property
    def run(self) -> str:
        """What tells the runs of one subject and task apart, such as ses-1_run-02."""
        return "_".join(f"{key}-{self.entities[key]}" for key in _OF_A_RUN if key in self.entities) or "run-1"

    def fits(self, other: BidsFile) -> bool:
        """Every entity of this file has the same value in the other: the inheritance rule of BIDS."""
        return all(other.entities.get(key) == value for key, value in self.entities.items())


def functional(root: Path, suffix: str, extension: str) -> list[BidsFile]:
    """The files of one kind in the `func` folders of all subjects."""
    found = [*root.glob(f"sub-*/func/*_{suffix}{extension}"), *root.glob(f"sub-*/ses-*/func/*_{suffix}{extension}")]
    return [BidsFile.named(path) for path in found]


def inherited(root: Path, file: BidsFile, suffix: str, extension: str) -> list[Path]:
    """Files that apply to a run, nearest and most specific first.

    Args:
        root: of the data set; searched from the run's folder (or its twin under this root) upwards
        file: the run
        suffix, extension: of what is sought
    """
    found = []
    for folder in _upwards(root, file):
        here = [BidsFile.named(path) for path in folder.glob(f"*{suffix}{extension}")]
        fitting = [other for other in here if other.suffix == suffix and other.fits(file)]
        found += [other.path for other in sorted(fitting, key=lambda other: (-len(other.entities), other.path.name))]
    return found


def _upwards(root: Path, file: BidsFile) -> Iterator[Path]:
    subject = root / f"sub-{file.entities['sub']}"
    if "ses" in file.entities:
        yield from (subject / f"ses-{file.entities['ses']}" / "func", subject / f"ses-{file.entities['ses']}")
    yield from (subject / "func", subject, root)


def sidecar(root: Path, file: BidsFile) -> dict[str, Any]:
    """The JSON that applies to a run; nearer files win.

    Raises:
        DataError: one of them is not JSON
    """
    merged: dict[str, Any] = {}
    for path in reversed(inherited(root, file, file.suffix, ".json")):
        merged |= read_json(path)
    return merged


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: it is not one
    """
    return parsed_object(read_text(path), str(path))


def seconds_of(values: Mapping[str, Any], key: str, where: Path) -> float | None:
    """A number of seconds in a sidecar; None when it is not there.

    Raises:
        DataError: it is there, but not a number
    """
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: the sidecar's {key} is {value!r}; expected seconds as a number")
    return float(value)


def participants(root: Path) -> list[str]:
    """Labels in participants.tsv, without `sub-`; empty without the file.

    Raises:
        DataError: no participant_id column, or a label twice
    """
    path = root / "participants.tsv"
    if not path.is_file():
        return []
    table = text_table(path, "tab-separated participant_id", sep="\t")
    if "participant_id" not in table:
        raise DataError(f"{path}: no column participant_id; there are {', '.join(table.columns)}")
    labels = [label.removeprefix("sub-") for label in table["participant_id"].dropna()]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DataError(
            f"{path}: participant sub-{twice[0]} occurs more than once; give each subject one row and label"
        )
    return labels
