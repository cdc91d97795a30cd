"""What an fMRI config says: whose brains, which split, a decoder, whom it must stand beside, and which controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.brain.brain import BrainSource
from data.brain.splits import Splitting
from tasks.experiment.config import build, overlay_values, resolve
from tasks.experiment.folder import RunFolder
from tasks.fmri.decoder import Decoder
from tasks.fmri.targets import Targets


@dataclass(frozen=True)
class Controls:
    """What a sceptic would ask for beside the arms.

    Attributes:
        permutations: shuffles of the labels within runs, for the 95th percentile that chance reaches
        refits: of these shuffles, those after which the control arm is fitted anew, ten to a unit; for another arm than
            ridge, whose null needs no fit
        lags: seconds of delay to decode at, for the lag sweep; null = no sweep
        leakage: decode with random folds that cut runs as well, to show what the leak is worth
        arm: the baseline that sweep and leakage comparison use; null = the first one
        evoked: draw the class-blind evoked response, which shows whether the stated lag is right
        geometry: noise ceilings of the representational geometry, between runs and between subjects; with `features`,
            their geometry beside it
        encoding: with `features`, predict every voxel from them
        brain_score: with `features`, the Brain-Score protocol
        networks: local folders of vision models (transformers) that judge reconstructed pictures, by name
    """

    permutations: int = 1000
    refits: int = 0
    lags: list[float] | None = None
    leakage: bool = True
    arm: str | None = None
    evoked: bool = True
    geometry: bool = True
    encoding: bool = True
    brain_score: bool = True
    networks: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.permutations < 0:
            raise ValueError(f"controls.permutations: expected at least 0, found {self.permutations}")
        if not 0 <= self.refits <= self.permutations:
            raise ValueError(f"controls.refits: expected 0 to permutations ({self.permutations}), found {self.refits}")
        if self.lags is not None and len(self.lags) < 2:
            raise ValueError(f"controls.lags: expected at least 2 lags to sweep, found {len(self.lags)}")


CONTROLS = Controls()


class FmriExperiment:
    """Train and judge one brain decoder beside its baselines, on the same folds and the same samples.

    Args:
        name: of the run, of its folder and of the model under test in every table
        brains: whose brains, from which files
        split: which samples train and which are scored
        model: the decoder under test
        baselines: decoders without randomness on the same folds, by the name the report gives them
        rivals: other decoders, trained and scored like `model`, by name
        features: models of what was shown, an embedding of each candidate; each is set beside the brains by encoding,
            geometry and Brain-Score
        repeats: `keep` every sample, or `average` the repeats of a stimulus within each side of a split
        controls: lag sweep, leakage, permutation, evoked response
        runs: folder that run folders go to, as `<runs>/fmri/<name>`
    """

    task = "fmri"
    namespaces = (
        "data.brain.openfmri",
        "data.brain.bids",
        "data.brain.nifti",
        "data.brain.arrays",
        "data.brain.splits",
        "data.simulate.brains",
        "data.simulate.semireal",
        "tasks.fmri.baselines",
        "tasks.fmri.alignment",
        "tasks.fmri.pooled",
        "tasks.fmri.nested",
        "tasks.fmri.volumes",
        "tasks.fmri.targets",
        "tasks.fmri.picture_targets",
        "tasks.fmri.transfer",
        "tasks.fmri.models.trunks",
        "tasks.fmri.deep",
    )

    def __init__(
        self,
        name: str,
        brains: BrainSource,
        split: Splitting,
        model: Decoder,
        baselines: dict[str, Decoder] | None = None,
        rivals: dict[str, Decoder] | None = None,
        features: dict[str, Targets] | None = None,
        repeats: Literal["keep", "average"] = "keep",
        controls: Controls = CONTROLS,
        runs: str = "runs",
    ):
        self.name, self.runs = name, runs
        self.brains, self.split, self.repeats = brains, split, repeats
        self.model, self.baselines, self.rivals = model, baselines or {}, rivals or {}
        self.features, self.controls = features or {}, controls
        for arm in {**self.baselines, **self.rivals}:
            if arm == name or "/" in arm or arm == "controls":
                raise ValueError(f"'{arm}' cannot name a baseline or a rival of run '{name}'; choose another name")
        for feature, of in self.features.items():
            if of.from_brains:
                raise ValueError(
                    f"features.{feature}: {type(of).__name__} is made of the brains it would be compared with; give "
                    "features of what was shown"
                )
        both = self.baselines.keys() & self.rivals.keys()
        if both:
            raise ValueError(f"'{min(both)}' names a baseline and a rival; give one of them another name")
        if controls.arm is not None and controls.arm not in self.baselines:
            known = ", ".join(self.baselines) or "none"
            raise ValueError(f"controls.arm: no baseline '{controls.arm}'; there are {known}")

    @property
    def decoders(self) -> dict[str, Decoder]:
        """Everything that is scored, the model under test first."""
        return {self.name: self.model, **self.rivals, **self.baselines}

    def left_out(self) -> dict[str, str]:
        """Arms that are fitted per subject where a split scores a subject it does not train on, and why."""
        brains = self.brains.load()
        for split in self.split.splits(brains):
            new = set(brains.table.loc[split.test, "subject"]) - set(brains.table.loc[split.train, "subject"])
            if new:
                why = f"it is fitted per subject, and split {split.name} has no training sample of subject {min(new)}"
                return {arm: why for arm, decoder in self.decoders.items() if not decoder.cross_subject}
        return {}

    @property
    def control_arm(self) -> str:
        """The arm that sweep and leakage comparison use."""
        return self.controls.arm or next(iter(self.baselines), self.name)


def experiment_of(config: dict[str, Any]) -> FmriExperiment:
    """The experiment of a resolved config."""
    experiment: FmriExperiment = build(FmriExperiment, {key: value for key, value in config.items() if key != "task"})
    return experiment


def experiment_of_run(run: Path, overrides: list[str] | None = None) -> FmriExperiment:
    """The experiment of a run folder, with other values in its config.

    Args:
        run: the run folder
        overrides: KEY=VALUE, as for `train`
    """
    config = overlay_values(RunFolder.open(run).config, overrides or [])
    config.pop("task", None)
    return experiment_of(resolve(FmriExperiment, config))
