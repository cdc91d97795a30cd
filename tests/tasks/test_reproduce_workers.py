"""Parts of a reproduction side by side: the same numbers whoever works, and one line when a part fails."""

from __future__ import annotations

import inspect
import logging
import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from data.errors import DataError
from tasks.catalogue import PAPERS, reproduction
from tasks.experiment.folder import RunError
from tasks.experiment.signatures import ConfigError
from tasks.reproduce import survival_baselines
from tasks.reproduce.workers import Workers

PARTS = {f"seed {seed}": (seed, 3) for seed in range(4)}


def drawn(seed: int, n: int) -> list[float]:
    return list(np.random.default_rng(seed).standard_normal(n))


def failing(kind: str) -> None:
    if kind == "data":
        raise DataError("FILE: a value that is none; mend it")
    if kind == "dies":
        os._exit(9)


def test_answers_stand_in_the_order_of_the_parts_for_any_jobs(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "fusion")  # an earlier test may have asked for --quiet
    here, beside = (Workers(jobs).each(drawn, PARTS) for jobs in (1, 2))
    assert here == beside == [drawn(*arguments) for arguments in PARTS.values()]
    assert "[1/4] seed 0 " in capsys.readouterr().err, "progress is told as each ends"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_part_that_fails_ends_with_its_own_words(jobs: int):
    with pytest.raises(DataError, match="FILE: a value that is none; mend it"):
        Workers(jobs).each(failing, {"good": ("",), "bad": ("data",)})


def test_a_part_whose_process_dies_is_named():
    with pytest.raises(RunError, match=r"bad: its process died .*; with fewer --jobs there is more memory for each"):
        Workers(2).each(failing, {"bad": ("dies",)})


def test_a_paper_is_the_same_for_one_and_two_jobs(shared_data: Path):
    one, two = (survival_baselines.run(shared_data / "tcga", small=True, workers=Workers(jobs)) for jobs in (1, 2))
    assert one == two


@pytest.mark.cluster
def test_a_paper_is_the_same_on_a_cluster(shared_data: Path):
    here = survival_baselines.run(shared_data / "tcga", small=True)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", protocol="tcp") as cluster:
        there = survival_baselines.run(
            shared_data / "tcga", small=True, workers=Workers(engine=cluster.scheduler_address)
        )
    assert here == there


def test_a_paper_of_one_piece_takes_jobs_and_refuses_an_engine():
    whole = [
        key
        for key, paper in PAPERS.items()
        if "workers" not in inspect.signature(import_module(paper.module).run).parameters
    ]
    assert whole == ["mcat-predictions", "rsa92"]
    with pytest.raises(ConfigError, match="reproduce rsa92: it is one piece of less than a minute, so leave out --eng"):
        reproduction("rsa92", engine="tcp://127.0.0.1:1")
