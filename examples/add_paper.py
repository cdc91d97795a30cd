"""Add a paper: a module with `run(data_root, small)` that puts published figures beside ours, and one line in PAPERS.

    python examples/add_paper.py            # what `fusion reproduce c-index-ties --json` would print

What ours is held against, whose figure that is (`kind`), the tolerance and why stand in the file before anything was
measured. The line for `tasks/catalogue.py`: "c-index-ties": Paper("title", "tasks.reproduce.c_index_ties", "tcga").
"""

from pathlib import Path

import numpy as np

from tasks.experiment.console import print_json
from tasks.reproduce.rows import Result, at_least, close, result
from tasks.survival.concordance import harrell
from tasks.survival.follow_up import FollowUp

PAPER = "c-index-ties"
CONSTANT, PERFECT, NOISY = 0.5, 1.0, 0.80


def run(data_root: Path, small: bool = False) -> Result:
    """Harrell et al. 1982: a constant risk scores one half, the true one 1, one with noise in between.

    Args:
        data_root: folder of the data set the paper needs; this one simulates its own
        small: fewer patients
    """
    draw = np.random.default_rng(1982)
    patients = 300 if small else 3000
    truth = draw.standard_normal(patients)
    outcome = FollowUp.of(np.exp(-truth), np.ones(patients, bool))
    risks = {"constant": np.zeros(patients), "perfect": truth, "noisy": truth + 0.75 * draw.standard_normal(patients)}
    found = {name: float(harrell(outcome, risk)[0]) for name, risk in risks.items()}
    size = f"{patients} patients, no censoring"
    return result(
        PAPER,
        [
            close("constant risk", CONSTANT, found["constant"], 0.0, f"{size}; ties count one half", kind="published"),
            close("perfect risk", PERFECT, found["perfect"], 0.0, size, kind="published"),
            at_least(
                "noisy risk", NOISY, found["noisy"], 0.03, f"{size}; three standard errors of 300 patients", kind="bar"
            ),
        ],
    )


if __name__ == "__main__":
    print_json(run(Path(), small=True))
