"""The deep decoder: STTM fitted to everybody together, new subjects by their adapter alone."""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader

from data.brain.brain import Brains
from data.errors import DataError
from encoders.brain import MissingAdapter
from tasks.experiment.fit import fit, forget
from tasks.experiment.folder import fingerprint, write_whole
from tasks.experiment.saved import Damaged, read_saved
from tasks.experiment.trainer import TrainerOptions
from tasks.fmri.decoder import Decoder, Reconstruction, Scores
from tasks.fmri.models.losses import Schedule
from tasks.fmri.models.low_level import LowLevel
from tasks.fmri.models.options import Adapting, LowLevelOptions, PriorOptions
from tasks.fmri.models.prior import DiffusionPrior
from tasks.fmri.models.sttm import STTM, Architecture, BrainSizes, match
from tasks.fmri.models.training import BrainBatch, BrainSamples, BrainTask, Optimisation, SubjectBatches, TargetTensors
from tasks.fmri.targets import OneHot, Targets, TargetSet
from tasks.fmri.transfer import FewShotDecoder, new_subjects

__all__ = ["DeepDecoder", "FewShotDecoder"]

WEIGHTS = "deep.pt"


@dataclass(frozen=True)
class Standardised:
    """Mean and standard deviation (ddof 1) of each voxel of one subject over its training samples."""

    mean: Float[np.ndarray, " x"]
    deviation: Float[np.ndarray, " x"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n x"]) -> Standardised:
        deviation = x.std(axis=0, ddof=1) if len(x) > 1 else np.ones(x.shape[1])
        return cls(x.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def __call__(self, x: Float[np.ndarray, "m x"]) -> Float[np.ndarray, "m x"]:
        return ((x - self.mean) / self.deviation).astype(np.float32)


TRAINER = TrainerOptions(max_epochs=60)
ADAPTING = Adapting()
ARCHITECTURE = Architecture()
OPTIMISATION = Optimisation()
SCHEDULE = Schedule()


class DeepDecoder(Decoder):
    """STTM: an adapter per subject, a shared trunk, query tokens that read voxel tokens, contrast with the targets.

    All subjects are fitted together. A subject with less than four fifths of the median number of training samples is
    new: the others train the trunk, which is then frozen while the new subject's adapter is fitted.

    Args:
        targets: embedding of the candidates; default one direction each
        architecture: widths and depths
        schedule: MixCo first, soft targets later
        optimisation: learning rate, decay, noise
        trainer: epochs, device
        batch_size: samples of each subject in a batch
        adapting: how a new subject's adapter is fitted
        prior: train a diffusion prior along; null = none
        low_level: train the low-level pipeline along; null = none
    """

    cross_subject: ClassVar[bool] = True

    def __init__(
        self,
        targets: Targets | None = None,
        architecture: Architecture = ARCHITECTURE,
        schedule: Schedule = SCHEDULE,
        optimisation: Optimisation = OPTIMISATION,
        trainer: TrainerOptions = TRAINER,
        batch_size: int = 16,
        adapting: Adapting = ADAPTING,
        prior: PriorOptions | None = None,
        low_level: LowLevelOptions | None = None,
    ):
        if batch_size < 2:
            raise ValueError(f"DeepDecoder: batch_size={batch_size}; a contrast needs at least 2 samples")
        self.targets = OneHot() if targets is None else targets
        self.architecture, self.schedule, self.optimisation = architecture, schedule, optimisation
        self.trainer, self.batch_size, self.adapting = trainer, batch_size, adapting
        self.prior_options, self.low_level_options = prior, low_level

    def fit(self, brains: Brains, train: Sequence[str], *, seed: int, folder: Path | None = None) -> DeepDecoder:
        """Train, from the last checkpoint in `folder` when there is one, or load what an equal fit left there."""
        rows = brains.rows(train)
        new = new_subjects({subject: len(x) for subject, (x, _) in rows.items()})
        target_set = self.targets.embed(brains, train, new)
        self._prepare(brains, rows, target_set)
        torch.manual_seed(seed)
        self._build({subject: x.shape[1] for subject, (x, _) in rows.items() if subject not in new})
        name = fingerprint([self._settings(), list(train), seed, brains.name, self._learnt_from()])
        if folder is not None and self._loaded(folder / WEIGHTS, name, {s: rows[s][0].shape[1] for s in new}):
            return self
        with tempfile.TemporaryDirectory() as temporary:
            where = Path(temporary) if folder is None else folder
            old = [subject for subject in rows if subject not in new]
            self._trained(where / "trunk", old, seed, None, name)
            if new:
                self._add({subject: rows[subject][0].shape[1] for subject in new}, seed)
                self._trained(where / "adapter", new, seed, new, name)
            if folder is not None:
                self._save(folder / WEIGHTS, name, [where / "trunk", where / "adapter"])
        return self

    def scores(self, brains: Brains, test: Sequence[str]) -> Scores:
        """Cosine of decoded and target tokens, plus that of the texts when the targets bring some."""
        parts = []
        text = self.target_set.text
        goal, words = torch.tensor(self.target_set.tokens), None if text is None else torch.tensor(text)
        for subject, (x, table) in brains.rows(test).items():
            decoded = self._decoded(subject, x)
            matrix = match(decoded, goal, words).double().numpy()
            parts.append(Scores(list(table.index), matrix, list(brains.candidates)))
        return Scores.joined(parts).of(test)

    def maps(self, brains: Brains) -> dict[str, dict[str, Float[np.ndarray, " x"]]]:
        """How much each subject's adapter can listen to a voxel: the length of its first-layer weights."""
        found = {}
        for subject in self.model.adapters.subjects():
            weights = self.model.adapters[subject].weight_per_voxel().cpu().numpy()
            found[subject] = {"adapter": weights / self.standard[subject].deviation}
        return found

    def reconstruct(self, brains: Brains, ids: Sequence[str], *, seed: int = 0) -> dict[str, np.ndarray]:
        """Target tokens drawn by the prior (`tokens`, `[n, t, e]`) and image latents (`latents`, `[n, c, i, j]`).

        Args:
            brains: the data
            ids: samples, of subjects that have an adapter
            seed: of the prior's noise

        Raises:
            DataError: neither the prior nor the low-level pipeline was trained
        """
        if self.prior is None and self.low_level is None:
            raise DataError(
                "nothing can be reconstructed: this decoder was trained without prior and low_level; set one of them"
            )
        parts: dict[str, dict[str, np.ndarray]] = {}
        for subject, (x, table) in brains.rows(ids).items():
            decoded = self._decoded(subject, x)
            found = {}
            if self.prior is not None:
                found["tokens"] = self.prior.sample(decoded.tokens, seed=seed).numpy()
            if self.low_level is not None:
                with torch.no_grad():
                    voxels = {subject: torch.tensor(self.standard[subject](x))}
                    found["latents"] = self.low_level(voxels, decoded.shared).numpy()
            for kind, values in found.items():
                parts.setdefault(kind, {}).update(zip(table.index, values, strict=True))
        return {kind: np.stack([of[i] for i in ids]) for kind, of in parts.items()}

    def reconstructions(self, brains: Brains, ids: Sequence[str]) -> dict[str, Reconstruction]:
        """What prior and low-level pipeline make of samples, where they were trained."""
        if self.prior is None and self.low_level is None:
            return {}
        goals = {"tokens": self.target_set.tokens, "latents": self.target_set.latents}
        found = {}
        for kind, made in self.reconstruct(brains, ids).items():
            goal = goals[kind]
            assert goal is not None
            found[kind] = Reconstruction(made, goal)
        return found

    def _prepare(self, brains: Brains, rows: dict[str, tuple[np.ndarray, Any]], target_set: TargetSet) -> None:
        """Scalers, candidates and voxels of the training samples."""
        column = {name: k for k, name in enumerate(brains.candidates)}
        self.target_set = target_set
        self.standard = {subject: Standardised.of(np.asarray(x, np.float64)) for subject, (x, _) in rows.items()}
        self.voxels = {subject: torch.tensor(self.standard[subject](x)) for subject, (x, _) in rows.items()}
        self.which = {
            subject: torch.tensor([column[name] for name in table[brains.truth]])
            for subject, (_, table) in rows.items()
        }

    def _build(self, voxels: dict[str, int]) -> None:
        """An untrained model of these subjects."""
        t, e = self.target_set.tokens.shape[1:]
        text = self.target_set.text
        self.model = STTM(BrainSizes(voxels, t, e, None if text is None else text.shape[1]), self.architecture)
        self.prior = None if self.prior_options is None else self._new_prior(t, e, self.prior_options)
        self.low_level = None if self.low_level_options is None else self._new_low_level(voxels, self.low_level_options)

    def _new_prior(self, tokens: int, width: int, options: PriorOptions) -> DiffusionPrior:
        return DiffusionPrior(tokens, width, **asdict(options))

    def _new_low_level(self, voxels: dict[str, int], options: LowLevelOptions) -> LowLevel:
        latents = self.target_set.latents
        if latents is None:
            raise DataError(
                f"{type(self.targets).__name__} bring no image latents, which low_level needs; give GivenTargets a "
                "file with `latents`, or set low_level to null"
            )
        channels, side = latents.shape[1:3]
        return LowLevel(voxels, self.architecture.shared, channels=channels, side=side, **asdict(options))

    def _add(self, voxels: dict[str, int], seed: int) -> None:
        """Adapters for new subjects."""
        torch.manual_seed(seed + 1)
        for subject, count in voxels.items():
            self.model.adapters.add(subject, count, self.adapting.input_dropout)
            if self.low_level is not None:
                self.low_level.adapters.add(subject, count, self.adapting.input_dropout)

    def _trained(self, folder: Path, subjects: list[str], seed: int, new: list[str] | None, of: str) -> None:
        parts = (self.target_set.tokens, self.target_set.texts, self.target_set.latents)
        task = BrainTask(
            self.model,
            TargetTensors(*map(_tensor, parts)),  # type: ignore[arg-type]
            self.schedule,
            self.optimisation,
            self.prior,
            self.low_level,
            new,
        )
        epochs = self.trainer.max_epochs if new is None else self.adapting.epochs
        task.train()
        fit(task, self._loader(subjects, seed), folder, self.trainer, seed, (), epochs, of)
        for part in (self.model, self.prior, self.low_level):
            if part is not None:
                part.eval().cpu()

    def _loader(self, subjects: list[str], seed: int) -> DataLoader[BrainBatch]:
        samples = BrainSamples({s: self.voxels[s] for s in subjects}, {s: self.which[s] for s in subjects})
        sampler: Any = SubjectBatches(samples.sizes, self.batch_size, seed)
        return DataLoader(samples, batch_size=None, sampler=sampler)

    def _decoded(self, subject: str, x: Float[np.ndarray, "n x"]) -> Any:
        try:
            with torch.no_grad():
                return self.model({subject: torch.tensor(self._standardised(subject, x))})
        except MissingAdapter as error:
            raise DataError(str(error)) from None

    def _standardised(self, subject: str, x: Float[np.ndarray, "n x"]) -> Float[np.ndarray, "n x"]:
        known = self.standard.get(subject)
        return np.asarray(x, np.float32) if known is None else known(x)

    def _settings(self) -> dict[str, Any]:
        """Everything that decides what a fit gives."""
        options: list[Any] = [self.architecture, self.schedule, self.optimisation, self.trainer, self.adapting]
        chosen = {type(o).__name__: asdict(o) for o in (*options, self.prior_options, self.low_level_options) if o}
        return {
            **chosen,
            "batch": self.batch_size,
            "targets": self._fingerprint(),
        }

    def _fingerprint(self) -> str:
        """Of everything that is to be reached."""
        parts = (self.target_set.tokens, self.target_set.texts, self.target_set.latents)
        return hashlib.sha256(b"".join(b"-" if part is None else part.tobytes() for part in parts)).hexdigest()

    def _learnt_from(self) -> str:
        """Of voxels and labels: files that changed under the same names are no reason to keep a fit."""
        seen = hashlib.sha256()
        for subject, x in self.voxels.items():
            seen.update(subject.encode() + x.numpy().tobytes() + self.which[subject].numpy().tobytes())
        return seen.hexdigest()

    def _parts(self) -> dict[str, Any]:
        named = {"model": self.model, "prior": self.prior, "low_level": self.low_level}
        return {name: part for name, part in named.items() if part is not None}

    def _save(self, path: Path, name: str, fits: list[Path]) -> None:
        """Keep the weights, and drop the checkpoints that led to them."""
        content = io.BytesIO()
        torch.save({"fit": name, **{key: part.state_dict() for key, part in self._parts().items()}}, content)
        write_whole(path, content.getvalue())
        for folder in fits:
            forget(folder)

    def _loaded(self, path: Path, name: str, new: dict[str, int]) -> bool:
        """Take the weights of an equal fit, if there are any."""
        if not path.is_file():
            return False
        try:
            held = read_saved(path)
        except Damaged as error:
            logging.getLogger("fusion").warning("%s is damaged (%s); fitted again", path, error)
            return False
        if not isinstance(held, dict) or held.get("fit") != name:
            return False
        self._add(new, 0)
        for key, part in self._parts().items():
            part.load_state_dict(held[key])
            part.eval()
        return True


def _tensor(values: np.ndarray | None) -> Any:
    return None if values is None else torch.tensor(values)
