"""The deep decoder through the training loop: what it learns, what stays frozen, and that it resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.brain.brain import Brains
from data.brain.split import Split
from data.brain.splits import FewShot, LeaveRunsOut
from data.errors import DataError
from data.simulate.brains import SimulatedBrains
from tasks.experiment import fit as fitting
from tasks.experiment.trainer import TrainerOptions
from tasks.fmri.deep import DeepDecoder
from tasks.fmri.metrics import top_k
from tasks.fmri.models.options import Adapting, LowLevelOptions, PriorOptions
from tasks.fmri.models.sttm import Architecture
from tasks.fmri.models.training import Optimisation
from tasks.fmri.targets import GivenTargets, Targets, TargetSet

SMALL = Architecture(shared=32, blocks=1, voxel_tokens=4, token_width=16, heads=2, projector=16, adapter_dropout=0.2)


def decoder(epochs: int, **options) -> DeepDecoder:
    return DeepDecoder(
        options.pop("targets", None),
        SMALL,
        batch_size=options.pop("batch", 16),
        optimisation=Optimisation(rate=5e-3),
        trainer=TrainerOptions(max_epochs=epochs, progress=False),
        adapting=Adapting(epochs=options.pop("adapt", 3), input_dropout=0.3),
        **options,
    )


@pytest.fixture(scope="module")
def brains() -> Brains:
    return SimulatedBrains(subjects=3, classes=4, runs=5, voxels=(20, 40), noise=0.7).load()


@pytest.fixture(scope="module")
def split(brains: Brains) -> Split:
    return LeaveRunsOut().splits(brains)[0]


def accuracy(deep: DeepDecoder, brains: Brains, ids: list[str]) -> float:
    scores = deep.scores(brains, ids)
    assert scores.ids == ids
    truth = np.array([brains.candidates.index(name) for name in brains.table.loc[ids, brains.truth]])
    return float(top_k(scores.matrix, truth).mean())


def weights(deep: DeepDecoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in deep.model.state_dict().items()}


def test_it_decodes_every_subject_with_one_fit(brains: Brains, split: Split):
    deep = decoder(30, batch=4).fit(brains, split.train, seed=1)
    assert accuracy(deep, brains, split.test[::-1]) > 0.6
    maps = deep.maps(brains)
    assert {s: len(m["adapter"]) for s, m in maps.items()} == {s: b.x.shape[1] for s, b in brains.subjects.items()}
    with pytest.raises(DataError, match="subject 09 has no adapter"):
        deep._decoded("09", np.zeros((1, 5), np.float32))


class Killed(RuntimeError):
    pass


def kill_after(epoch: int):
    """What stands in for the end of an epoch: it is saved, then the fit dies if it was this one."""
    saved = fitting.SaveEpochs.on_train_epoch_end

    def end(self, trainer, module):
        saved(self, trainer, module)
        if trainer.current_epoch == epoch:
            raise Killed

    return end


def test_a_killed_fit_resumes_to_the_same_weights(
    brains: Brains, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = decoder(3).fit(brains, split.train, seed=1, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(fitting.SaveEpochs, "on_train_epoch_end", kill_after(1))
        with pytest.raises(Killed):
            decoder(3).fit(brains, split.train, seed=1, folder=tmp_path / "cut")
    resumed = decoder(3).fit(brains, split.train, seed=1, folder=tmp_path / "cut")
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_a_killed_fit_does_not_go_on_with_other_data(
    brains: Brains, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Files may change under the same names between a kill and --resume: half of each would fit neither."""

    def killed(brains: Brains, folder: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(fitting.SaveEpochs, "on_train_epoch_end", kill_after(0))
            with pytest.raises(Killed):
                decoder(3).fit(brains, split.train, seed=1, folder=folder)

    changed = replace(brains, subjects={s: replace(b, x=b.x + b.x**2) for s, b in brains.subjects.items()})
    killed(changed, tmp_path / "same")
    decoder(3).fit(changed, split.train, seed=1, folder=tmp_path / "same")
    assert "is of other data" not in caplog.text
    killed(brains, tmp_path / "other")
    resumed = decoder(3).fit(changed, split.train, seed=1, folder=tmp_path / "other")
    assert "last.ckpt is of other data or settings; the fit starts anew" in caplog.text
    whole = decoder(3).fit(changed, split.train, seed=1)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_a_finished_fit_is_loaded_and_another_one_is_not(
    brains: Brains, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = decoder(2).fit(brains, split.train, seed=1, folder=tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("tasks.fmri.deep.fit", never)
    again = decoder(2).fit(brains, split.train, seed=1, folder=tmp_path)
    assert np.array_equal(again.scores(brains, split.test).matrix, first.scores(brains, split.test).matrix)
    for other in ({"seed": 2}, {"seed": 1, "epochs": 3}):
        with pytest.raises(AssertionError, match="trained again"):
            decoder(other.get("epochs", 2)).fit(brains, split.train, seed=other["seed"], folder=tmp_path)
    (tmp_path / "deep.pt").write_bytes(b"half a file")
    with pytest.raises(AssertionError, match="trained again"):
        decoder(2).fit(brains, split.train, seed=1, folder=tmp_path)


def test_a_new_subject_gets_an_adapter_and_leaves_the_trunk_alone(brains: Brains, tmp_path: Path):
    split = FewShot(4, "03").splits(brains)[0]
    others = [i for i in split.train if not i.startswith("03/")]
    without = decoder(2).fit(brains, others, seed=1)
    deep = decoder(2).fit(brains, split.train, seed=1, folder=tmp_path)
    before, after = weights(without), weights(deep)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.split(".")[2] for name in after if name not in before} == {"sub-03"}
    loaded = decoder(2).fit(brains, split.train, seed=1, folder=tmp_path)
    assert np.array_equal(loaded.scores(brains, split.test).matrix, deep.scores(brains, split.test).matrix)


def test_what_is_scored_shapes_nothing(brains: Brains, split: Split):
    """Scalers and weights come from the training samples: other values in the test samples change nothing."""
    spoilt = {s: b.x.copy() for s, b in brains.subjects.items()}
    for s, b in brains.subjects.items():
        spoilt[s][b.table.index.isin(split.test)] = 1e3
    other = replace(brains, subjects={s: replace(b, x=spoilt[s]) for s, b in brains.subjects.items()})
    a, b = (decoder(1).fit(data, split.train, seed=1) for data in (brains, other))
    assert all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


class Pictures(Targets):
    """Tokens, two texts and a latent per candidate."""

    def embed(self, brains: Brains, train, new=()) -> TargetSet:
        rng, k = np.random.default_rng(0), len(brains.candidates)
        return TargetSet(
            rng.standard_normal((k, 3, 6)).astype(np.float32),
            rng.standard_normal((k, 2, 5)).astype(np.float32),
            rng.standard_normal((k, 4, 8, 8)).astype(np.float32),
        )


def test_prior_and_low_level_are_trained_along_and_reconstruct(brains: Brains, tmp_path: Path):
    split = FewShot(4, "03").splits(brains)[0]
    options = {
        "prior": PriorOptions(inner=16, layers=1, heads=2, steps=5),
        "low_level": LowLevelOptions(width=16, blocks=1, inner=4),
    }
    deep = decoder(2, targets=Pictures(), **options).fit(brains, split.train, seed=1, folder=tmp_path)
    made = deep.reconstruct(brains, split.test[:3])
    assert {kind: values.shape for kind, values in made.items()} == {"tokens": (3, 3, 6), "latents": (3, 4, 8, 8)}
    again = decoder(2, targets=Pictures(), **options).fit(brains, split.train, seed=1, folder=tmp_path)
    assert all(np.array_equal(again.reconstruct(brains, split.test[:3])[kind], of) for kind, of in made.items())
    with pytest.raises(DataError, match="bring no image latents, which low_level needs"):
        decoder(1, targets=GivenTargets(), low_level=LowLevelOptions()).fit(brains, split.train, seed=1)
    with pytest.raises(DataError, match="trained without prior and low_level"):
        decoder(1).fit(brains, split.train, seed=1).reconstruct(brains, split.test)


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="batch_size=1; a contrast needs at least 2"):
        DeepDecoder(batch_size=1)
