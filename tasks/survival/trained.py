"""A trained unit on disk: everything that is needed to predict patients it has never seen."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from data.cohort.batch import CohortSizes
from data.cohort.cohort import Cohort
from data.cohort.prepare import Fitted, Prepared
from data.errors import DataError
from data.text.reading import parsed_object, read_text
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.saved import read_saved
from tasks.experiment.state import unit_table
from tasks.survival.baselines import Baseline
from tasks.survival.curves import survival_curves
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.models.base import SurvivalModel
from tasks.survival.task import logits_of

WEIGHTS, PREPARED, SIZES, OFFSET = "weights.pt", "prepared.json", "sizes.json", "offset.json"


def save(folder: Path, model: SurvivalModel, prepared: Prepared, baseline: Baseline | None) -> None:
    """Write weights, preparation, sizes and the offset's coefficients beside a unit's predictions.

    Args:
        folder: of the unit
        model: trained
        prepared: fitted on the unit's training patients
        baseline: the offset, fitted on them; its log risk is affine in the prepared matrix and kept as such
    """
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    write_whole(folder / WEIGHTS, content.getvalue())
    prepared.fitted.save(folder / PREPARED)
    write_whole(folder / SIZES, json.dumps(asdict(model.sizes)))
    if baseline is not None:
        columns = list(prepared.matrix([]).columns)
        probes = pd.DataFrame(np.vstack([np.zeros(len(columns)), np.eye(len(columns))]), columns=columns)
        risk = baseline.risk(probes)
        kept = {
            "constant": float(risk[0]),
            "coefficients": dict(zip(columns, (risk[1:] - risk[0]).tolist(), strict=True)),
        }
        write_whole(folder / OFFSET, json.dumps(kept))


@dataclass(frozen=True)
class Trained:
    """One trained model with its preparation.

    Attributes:
        folder: of the unit it was saved in
        experiment: that the unit belongs to
        model: in evaluation mode
        fitted: scalers and bins of its training patients
    """

    folder: Path
    experiment: SurvivalExperiment
    model: SurvivalModel
    fitted: Fitted

    @classmethod
    def load(cls, folder: Path, experiment: SurvivalExperiment, arm: str) -> Trained:
        """Read what `save` wrote.

        Raises:
            RunError: the unit is not finished or its weights do not fit its config
        """
        for name in (WEIGHTS, PREPARED, SIZES):
            if not (folder / name).is_file():
                raise RunError(f"{folder}: no {name}; this unit is not finished, continue the run with --resume")
        try:
            said = parsed_object(read_text(folder / SIZES), str(folder / SIZES))
            sizes = CohortSizes(said["patch_width"], said["gene_groups"], tuple(said["covariates"]), said["outputs"])
        except (DataError, KeyError, TypeError) as error:
            raise RunError(f"{folder / SIZES}: not what was saved ({error}); train this unit again") from None
        model = experiment.networks[arm](sizes)
        try:
            model.load_state_dict(read_saved(folder / WEIGHTS))
        except Exception as error:
            # A damaged archive, an unsafe pickle and a foreign state all mean the same to the user.
            raise RunError(f"{folder / WEIGHTS}: cannot be loaded ({' '.join(str(error).split())[:200]})") from None
        return cls(folder, experiment, model.eval(), Fitted.load(folder / PREPARED))

    @cached_property
    def training(self) -> pd.DataFrame:
        """Whom the model was trained on: case_id, time, event, and its risk for them."""
        return unit_table(self.folder, "training.csv", ["case_id", "time", "event", "risk"], dtype={"case_id": str})

    def prepared(self, cohort: Cohort) -> Prepared:
        """Patients seen through what the training patients taught.

        Raises:
            DataError: their patch features have another width than the model was trained on
        """
        trained, found = self.model.sizes.patch_width, None if cohort.bags is None else cohort.bags.width
        if found is not None and trained is not None and found != trained:
            raise DataError(
                f"cohort {cohort.name}: patch features have {found} channels, the model was trained on {trained}; "
                "extract them with the same encoder"
            )
        prepared = Prepared(cohort, self.fitted)
        return prepared if self.model.reads_slides else prepared.without_slides()

    def offset(self, prepared: Prepared, ids: list[str]) -> pd.Series | None:
        """Log risk of the linear baseline, for a run that uses one."""
        path = self.folder / OFFSET
        if not path.is_file():
            return None
        kept = json.loads(path.read_text())
        matrix = prepared.matrix(ids)
        return kept["constant"] + matrix @ pd.Series(kept["coefficients"])[matrix.columns]

    def predict(self, cohort: Cohort, months: np.ndarray) -> tuple[pd.Series, pd.DataFrame]:
        """Risk of every patient of a cohort, and survival on a grid of months; both by case_id."""
        prepared, ids = self.prepared(cohort), cohort.case_ids
        dataset = prepared.dataset(ids, self.offset(prepared, ids))
        loader: DataLoader = DataLoader(dataset, self.experiment.fit.batch_size, collate_fn=prepared.collate)
        case_ids, logits = logits_of(self.model, loader)
        loss = self.experiment.loss
        train_logits = torch.tensor(self.training["risk"].to_numpy())[:, None]
        curves = survival_curves(loss, logits, months, self.fitted.edges, train_logits, self.training)
        return pd.Series(loss.risk(logits).double().numpy(), case_ids), pd.DataFrame(curves, case_ids, months)
