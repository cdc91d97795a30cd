"""Which feature file belongs to which patient: a folder of files against the slides of a table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from data.cohort.account import Account
from data.errors import DataError
from data.slides.feature_files import FileBags, slide_name

_SUFFIXES = (".h5", ".pt")


def feature_files(folder: Path) -> dict[str, Path]:
    """Slide name -> feature file.

    The folder may hold the files themselves, be a CLAM output (`h5_files`, which has coordinates, before `pt_files`),
    a TRIDENT job or a grid in it, with one `features_*` folder.

    Raises:
        DataError: no such folder, no feature file in it, or several TRIDENT encoders to choose from
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of slide features")
    encoders = sorted(f for place in ("features_*", "*/features_*") for f in folder.glob(place) if f.is_dir())
    if len(encoders) > 1:
        names = ", ".join(str(f.relative_to(folder)) for f in encoders)
        raise DataError(f"{folder}: features of {len(encoders)} encoders ({names}); give one of these")
    for place in (folder, folder / "h5_files", *encoders, folder / "pt_files"):
        files = {f.stem: f for suffix in reversed(_SUFFIXES) for f in sorted(place.glob(f"*{suffix}"))}
        if files:
            return files
    raise DataError(
        f"{folder}: no .h5 and no .pt file here, in h5_files, pt_files or features_*; give the folder that has them"
    )


def bags_of(
    folder: Path, slides: pd.Series, patients: Collection[str], account: Account, coordinates: bool = False
) -> FileBags:
    """Match feature files to patients.

    Args:
        folder: see `feature_files`
        slides: slide identifiers (with or without suffix), indexed by case_id; a patient may have several
        patients: all patients of the cohort; those without a slide are kept and counted
        account: told about slides without a file, files without a patient, empty slides, slides without coordinates
        coordinates: insist on coordinates when reading

    Raises:
        DataError: not one file belongs to a patient, a slide without coordinates where they are insisted on, or a
            file is unusable (see `FileBags`)
    """
    files = feature_files(folder)
    known = set(patients)
    wanted: dict[str, list[Path]] = {}
    missing = []
    for case_id, identifier in slides.dropna().items():
        name = slide_name(identifier)
        if case_id not in known:
            files.pop(name, None)
        elif name in files:
            wanted.setdefault(str(case_id), []).append(files.pop(name))
        else:
            missing.append(name)
    if not wanted:
        raise DataError(
            f"{folder}: none of the {len(missing)} slides of the table has a file here "
            f"(table: {missing[0] if missing else 'no slide'}, folder: {next(iter(files), 'nothing')}); "
            "give the folder of this cohort"
        )
    bags = FileBags(wanted, coordinates=coordinates)
    if coordinates and bags.without_grid:
        raise DataError(
            f"{folder}: {len(bags.without_grid)} slides have no coordinates ({', '.join(bags.without_grid[:3])}), and "
            "coordinates=true insists on them. Extract these again as h5, or leave coordinates out"
        )
    account.note("slides with features", sum(map(len, wanted.values())) - len(bags.empty), f"{bags.width} wide")
    account.note("slides without a feature file", len(missing), "skipped", missing)
    account.note("slides with no patch", len(bags.empty), "skipped", bags.empty)
    account.note(
        "slides without coordinates", len(bags.without_grid), "kept, their patches have no place", bags.without_grid
    )
    account.note("feature files of no slide in the table", len(files), "not used", files)
    without = [p for p in patients if p not in bags]
    account.note("patients without slides", len(without), "kept", without)
    return bags
