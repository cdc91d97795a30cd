"""One finished run of toy brains that tests of reports and commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.fmri.runs import fmri, toy_config, written


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder; nobody writes into it but to evaluate or report again."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        config = written(folder, toy_config(folder / "runs"))
        assert fmri(patch, "train", "-c", config, "brains.affine=true", "--quiet") == 0
    return folder / "runs" / "fmri" / "toy"
