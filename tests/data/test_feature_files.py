"""Patch features: every layout reads the same, and a bad file is named by its slide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from data.cohort.account import Account
from data.errors import DataError
from data.slides.feature_files import Bag, FileBags, MemoryBags, feature_shape, read_features, slide_name
from data.slides.feature_folder import bags_of, feature_files

DRAW = np.random.default_rng(4)
FEATURES = DRAW.normal(size=(7, 5)).astype(np.float32)
COORDS = DRAW.integers(0, 9, size=(7, 2)) * 512


def write_h5(path: Path, features: np.ndarray | None = FEATURES, coords: np.ndarray | None = COORDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if features is not None:
            file["features"] = features
        if coords is not None:
            file["coords"] = coords
    return path


def layouts(folder: Path) -> dict[str, Path]:
    torch.save(torch.from_numpy(FEATURES), folder / "bare.pt")
    torch.save({"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(COORDS)}, folder / "dict.pt")
    torch.save(torch.from_numpy(FEATURES), folder / "old.pt", _use_new_zipfile_serialization=False)
    return {
        "bare tensor": folder / "bare.pt",
        "dict": folder / "dict.pt",
        "old torch": folder / "old.pt",
        "h5": write_h5(folder / "a.h5"),
        "h5 with a batch dimension": write_h5(folder / "b.h5", FEATURES[None]),
        "half precision": write_h5(folder / "c.h5", FEATURES.astype(np.float16)),
    }


def test_every_layout_gives_the_same_bag(tmp_path: Path):
    for name, path in layouts(tmp_path).items():
        bag = read_features(path)
        tolerance = 2e-3 if name == "half precision" else 0
        torch.testing.assert_close(bag.features, torch.from_numpy(FEATURES), rtol=tolerance, atol=tolerance)
        assert bag.features.dtype == torch.float32
        if name in ("bare tensor", "old torch"):
            assert bag.grid is None
        else:
            torch.testing.assert_close(bag.grid, torch.from_numpy(COORDS).float())
        shape = feature_shape(path)
        assert (shape.patches, shape.width, shape.has_grid) == (7, 5, bag.grid is not None)


def test_the_side_of_a_patch_is_what_the_files_say(tmp_path: Path):
    trident = write_h5(tmp_path / "job" / "features_x" / "S.h5")
    assert read_features(trident).sides == (None,)
    with h5py.File(trident, "a") as file:
        file["coords"].attrs["patch_size_level0"] = 512
    assert read_features(trident).sides == (512.0,)
    clam = write_h5(tmp_path / "clam" / "h5_files" / "S.h5")
    assert read_features(clam).sides == (None,)
    with h5py.File(write_h5(tmp_path / "clam" / "patches" / "S.h5", None), "a") as file:
        file["coords"].attrs.update({"patch_size": 256, "downsample": np.array([4.0, 4.0])})
    assert read_features(clam).sides == (1024.0,)
    both = Bag.join([read_features(trident), replace(read_features(trident), sides=())])
    assert both.sides == (512.0, None)


def test_a_pickled_program_is_never_run(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"features": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(DataError, match=r"slide bomb: "):
        read_features(tmp_path / "bomb.pt")
    assert not (tmp_path / "exploded").exists()


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def nan(features: np.ndarray) -> np.ndarray:
    spoilt = features.copy()
    spoilt[2, 1] = np.nan
    return spoilt


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("kind", ["h5", "dict", "old torch"])
def test_a_file_cut_short_is_named(tmp_path: Path, kind: str, share: float):
    path = cut(layouts(tmp_path)[kind], share)
    with pytest.raises(DataError, match=rf"slide {path.stem}: .* cannot be read .*cut short or damaged, make it again"):
        read_features(path)
    with pytest.raises(DataError, match=rf"slide {path.stem}: "):
        FileBags({"P": [path]})


def test_what_is_no_bag_is_named(tmp_path: Path):
    missing = tmp_path / "none.h5"
    with pytest.raises(DataError, match=r"slide none: no such file"):
        read_features(missing)
    with pytest.raises(DataError, match=r"slide a: .* has no dataset 'features' \(found: coords\)"):
        read_features(write_h5(tmp_path / "a.h5", None))
    with pytest.raises(DataError, match=r"slide b: .* holds no patch"):
        read_features(write_h5(tmp_path / "b.h5", FEATURES[:0], COORDS[:0]))
    with pytest.raises(DataError, match=r"slide c: features of shape \[7\]"):
        read_features(write_h5(tmp_path / "c.h5", FEATURES[:, 0]))
    with pytest.raises(DataError, match=r"slide d: .* has 7 patches but coordinates of shape \[6, 2\]"):
        read_features(write_h5(tmp_path / "d.h5", coords=COORDS[:6]))
    with pytest.raises(DataError, match=r"slide e: 1 of 7 patches in .* are not finite"):
        read_features(write_h5(tmp_path / "e.h5", nan(FEATURES)))
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file.create_group("features")
    with pytest.raises(DataError, match=r"slide g: .* has no dataset 'features' \(found: features\)"):
        FileBags({"P": [tmp_path / "g.h5"]})
    for text in ("hello", "a,b", "(dp0", "\x80\x02."):
        (tmp_path / "h.pt").write_text(text)
        with pytest.raises(DataError, match=r"slide h: .* cannot be read .*make it again"):
            read_features(tmp_path / "h.pt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "f.pt")
    with pytest.raises(DataError, match=r"slide f: .* holds weights; expected a tensor"):
        read_features(tmp_path / "f.pt")


def test_an_h5_without_coordinates_is_read_unless_they_are_needed(tmp_path: Path):
    path = write_h5(tmp_path / "a.h5", coords=None)
    assert read_features(path).grid is None
    assert FileBags({"P": [path]}).without_grid == ["a"]
    with pytest.raises(DataError, match=r"slide a: .* has no coordinates \(dataset or key 'coords'\)"):
        read_features(path, coordinates=True)


def test_slides_of_a_patient_follow_one_another(tmp_path: Path):
    first = write_h5(tmp_path / "a.h5")
    second = write_h5(tmp_path / "b.h5", FEATURES[:3] + 1, COORDS[:3])
    bag = FileBags({"P": [first, second]}).read("P")
    torch.testing.assert_close(bag.features, torch.from_numpy(np.concatenate([FEATURES, FEATURES[:3] + 1])))
    assert bag.slide.tolist() == [0] * 7 + [1] * 3
    assert bag.slides == ("a", "b")
    third = write_h5(tmp_path / "c.h5", coords=None)
    assert FileBags({"P": [first, third]}).read("P").grid is None


def test_joining_bags_is_associative():
    bags = [Bag(torch.rand(n, 2), torch.rand(n, 2), torch.zeros(n, dtype=torch.long), (f"s{n}",)) for n in (1, 2, 3)]
    left, right = Bag.join([Bag.join(bags[:2]), bags[2]]), Bag.join([bags[0], Bag.join(bags[1:])])
    assert torch.equal(left.features, right.features)
    assert torch.equal(left.slide, right.slide)
    assert left.slides == right.slides == ("s1", "s2", "s3")


def test_slides_of_another_encoder_are_refused_by_name(tmp_path: Path):
    narrow = write_h5(tmp_path / "narrow.h5", FEATURES[:, :3])
    with pytest.raises(DataError, match=r"slide narrow: its features are 3 wide, those of a are 5"):
        FileBags({"P": [write_h5(tmp_path / "a.h5")], "Q": [narrow]})
    two = [Bag(torch.rand(2, w), None, torch.zeros(2, dtype=torch.long), (f"s{w}",)) for w in (4, 6)]
    with pytest.raises(DataError, match=r"slide s6: its features are 6 wide, those of s4 are 4"):
        MemoryBags({"P": two[0], "Q": two[1]})


def test_bags_stay_on_disk_until_asked_for(tmp_path: Path):
    path = write_h5(tmp_path / "a.h5")
    bags = FileBags({"P": [path]})
    path.unlink()
    with pytest.raises(DataError, match=r"slide a: no such file"):
        bags.read("P")


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("TCGA-2F-A9KO-01Z-00-DX1.195576CF.svs", "TCGA-2F-A9KO-01Z-00-DX1.195576CF"),
        ("slide-vvs.svs", "slide-vvs"),
        ("slide.svs.v", "slide.svs.v"),
        ("vss", "vss"),
        ("A.NDPI", "A"),
    ],
)
def test_a_suffix_is_taken_off_whole_or_not_at_all(identifier: str, name: str):
    assert slide_name(identifier) == name


def test_folders_of_clam_and_trident_are_found(tmp_path: Path):
    clam = tmp_path / "clam"
    write_h5(clam / "h5_files" / "S1.h5")
    (clam / "pt_files").mkdir()
    torch.save(torch.from_numpy(FEATURES), clam / "pt_files" / "S1.pt")
    trident = tmp_path / "job"
    write_h5(trident / "features_uni" / "S1.h5")
    write_h5(trident / "patches" / "S1_patches.h5", None)
    assert feature_files(clam) == {"S1": clam / "h5_files" / "S1.h5"}
    assert (
        feature_files(trident) == feature_files(trident / "features_uni") == {"S1": trident / "features_uni" / "S1.h5"}
    )
    whole_job = tmp_path / "jobs"
    write_h5(whole_job / "20x_256px_0px_overlap" / "features_uni" / "S1.h5")
    assert list(feature_files(whole_job)) == ["S1"]
    write_h5(trident / "features_conch" / "S1.h5")
    with pytest.raises(DataError, match=r"features of 2 encoders \(features_conch, features_uni\); give one of these"):
        feature_files(trident)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.h5 and no \.pt file here"):
        feature_files(tmp_path / "empty")
    with pytest.raises(DataError, match=r"no such folder of slide features"):
        feature_files(tmp_path / "nowhere")


def test_files_meet_patients_and_the_account_says_who_did_not(tmp_path: Path):
    write_h5(tmp_path / "S1.h5")
    write_h5(tmp_path / "S2.h5", FEATURES[:0], COORDS[:0])
    write_h5(tmp_path / "S3.h5", coords=None)
    write_h5(tmp_path / "S9.h5")
    slides = pd.Series({"P1": "S1.svs", "P2": "S2.svs", "P3": "S3.svs", "P4": "S4.svs", "P5": None})
    account = Account()
    bags = bags_of(tmp_path, slides, ["P1", "P2", "P3", "P4", "P5"], account)
    assert bags.case_ids == ["P1", "P3"]
    text = str(account)
    for line in (
        "2 slides with features: 5 wide",
        "1 slides without a feature file: skipped (S4)",
        "1 slides with no patch: skipped (S2)",
        "1 slides without coordinates: kept, their patches have no place (S3)",
        "1 feature files of no slide in the table: not used (S9)",
        "3 patients without slides: kept (P2, P4, P5)",
    ):
        assert line in text
    with pytest.raises(DataError, match=r"1 slides have no coordinates \(S3\), and coordinates=true insists"):
        bags_of(tmp_path, slides, ["P1", "P2", "P3"], Account(), coordinates=True)
    with pytest.raises(DataError, match=r"none of the 1 slides of the table has a file here \(table: X, folder: S1\)"):
        bags_of(tmp_path, pd.Series({"P1": "X.svs"}), ["P1"], Account())
