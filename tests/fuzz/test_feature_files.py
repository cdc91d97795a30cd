"""Patch features (.pt, .h5), pictures, arrays and lists of slides."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from data.brain.arrays import ArrayBrains
from data.brain.dissimilarity import read_rdms
from data.pairs.arrays import Vectors
from data.pairs.pictures import check_pictures, read_picture
from data.slides.catalogue import find_slides
from data.slides.feature_files import FileBags, feature_shape, read_features
from data.slides.resolution import read_mpp_table
from tests.fuzz.damage import ODD_TEXT, files, table_files, zipped
from tests.fuzz.tried import Tried, law


def saved(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


FEATURES = torch.arange(12.0).reshape(4, 3)
COORDS = torch.tensor([[0, 0], [0, 256], [256, 0], [256, 256]])
TENSORS = [saved(FEATURES), saved({"features": FEATURES, "coords": COORDS}), pickle.dumps(FEATURES.numpy())]
KINDS = ["f2", "f4", "f8", "i4", "u1", "?", "c8", "S3", "M8[s]", "O"]
SHAPES: list[tuple[int, ...]] = [(), (0,), (4,), (4, 3), (1, 4, 3), (0, 3), (4, 0), (4, 2), (2, 2, 2), (3, 2)]


@st.composite
def torn_archives(draw: st.DrawFn) -> bytes:
    """A tensor file whose inner program or data are damaged; the packing around them is whole."""
    with zipfile.ZipFile(io.BytesIO(draw(st.sampled_from(TENSORS[:2])))) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    chosen = draw(st.sampled_from(sorted(members)))
    members[chosen] = draw(files([members[chosen]]))
    return zipped(members)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """An array of any kind and shape."""
    kind, shape = draw(st.sampled_from(KINDS)), draw(st.sampled_from(SHAPES))
    filler = np.resize(np.arange(7), shape)
    if kind == "S3":
        return np.resize(np.array([b"a", b"\xff"]), shape)
    return filler.astype(kind)


def used(path: Path) -> None:
    feature_shape(path)
    read_features(path)
    FileBags({"p": [path]}).read("p")


@law(content=st.one_of(files(TENSORS), torn_archives(), arrays().map(lambda a: saved(as_tensor(a)))))
def test_tensor_files(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "slide.pt"
    path.write_bytes(content)
    tried(used, path)


def as_tensor(array: np.ndarray) -> Any:
    try:
        return {"features": torch.from_numpy(array), "coords": torch.from_numpy(array)}
    except TypeError:
        return [str(array.dtype)]


def h5(**datasets: Any) -> bytes:
    with h5py.File("made.h5", "w", driver="core", backing_store=False) as file:
        for name, values in datasets.items():
            if isinstance(values, dict):
                file.create_group(name)
            else:
                made = file.create_dataset(name, data=values)
                made.attrs["patch_size_level0"] = 256
        file.flush()
        return bytes(file.id.get_file_image())


@st.composite
def h5_files(draw: st.DrawFn) -> bytes:
    """Features and coordinates of any kind, shape and name, with attributes of any kind."""
    held: dict[str, Any] = {"features": FEATURES.numpy(), "coords": COORDS.numpy()}
    for name in list(held):
        how = draw(st.sampled_from(["keep", "array", "group", "lose"]))
        if how == "array":
            array = draw(arrays())
            held[name] = np.zeros(array.shape, "S3") if array.dtype.kind in "OM" else array
        elif how == "group":
            held[name] = {}
        elif how == "lose":
            del held[name]
    with h5py.File(io.BytesIO(h5(**held)), "r+") as file:
        if isinstance(file.get("coords"), h5py.Dataset):
            file["coords"].attrs["patch_size_level0"] = draw(st.sampled_from([256, "x", [1, 2], -1.5, np.nan, b"\xff"]))
        file.flush()
        return bytes(file.id.get_file_image())


@law(content=h5_files())
def test_h5_files(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "slide.h5"
    path.write_bytes(content)
    tried(used, path)


@law(content=files([h5(features=FEATURES.numpy(), coords=COORDS.numpy())]))
def test_damaged_h5_files(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "slide.h5"
    path.write_bytes(content)
    tried(used, path)


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


BRAIN = {
    "x": np.random.default_rng(0).standard_normal((6, 5)),
    "label": np.array(["a", "b", "c"] * 2),
    "run": np.repeat([1, 2], 3),
}
RDM = 1 - np.eye(4)


@st.composite
def packed_arrays(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """An .npz whose arrays are of any kind, shape and name, or whose members are damaged."""
    held = dict(good)
    for name in list(held):
        how = draw(st.sampled_from(["keep", "keep", "array", "rename", "lose"]))
        if how == "array":
            held[name] = draw(arrays())
        elif how == "rename":
            held[draw(ODD_TEXT.filter(lambda text: text.isidentifier())) or "y"] = held.pop(name)
        elif how == "lose":
            del held[name]
    content = npz(**held)
    if draw(st.booleans()):
        return content
    if draw(st.booleans()):
        return draw(files([content]))
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    return zipped({name: draw(files([member], head=90)) for name, member in members.items()})


@law(content=packed_arrays(BRAIN))
def test_arrays_of_brains(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "01.npz"
    path.write_bytes(content)
    tried(lambda: ArrayBrains(str(path)).read())


@law(content=st.one_of(packed_arrays({"rdms": RDM[None]}), files([npy(RDM)], head=90), arrays().map(npy)))
def test_dissimilarities(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / ("rdm.npy" if content[:6] == b"\x93NUMPY" else "rdm.npz")
    path.write_bytes(content)
    tried(read_rdms, path)


EMBEDDED = {"vectors": np.arange(8.0).reshape(4, 2), "ids": np.array(list("abcd"))}


@law(
    content=st.one_of(packed_arrays(EMBEDDED), files([npy(EMBEDDED["vectors"])], head=90), arrays().map(npy)),
    ending=st.sampled_from(["npy", "npz"]),
)
def test_vectors(content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / f"vectors.{ending}"
    path.write_bytes(content)
    tried(lambda: Vectors(str(path)).read().side.load([0]))


def drawn(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (9, 7), 1).save(out, kind, **options)
    return out.getvalue()


PICTURES = [
    *(drawn(kind) for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff")),
    drawn("png", "I;16"),
    drawn("png", "P", transparency=0),
    drawn("tiff", "F"),
    drawn("gif", save_all=True, append_images=[Image.new("RGB", (9, 7), 3)]),
]


@law(content=st.one_of(files(PICTURES, head=64), files(PICTURES)), fit=st.sampled_from(["crop", "pad"]))
def test_pictures(content: bytes, fit: Any, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "picture.png"
    path.write_bytes(content)
    tried(read_picture, path, 8, fit)
    check_pictures([path], 8)


@law(made=table_files(["slide", "mpp"], [["a.svs", "0.5"], ["b.svs", ""]], [".csv"]))
def test_lists_of_slides(made: tuple[str, bytes], tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "slides.csv"
    path.write_bytes(made[1])
    tried(find_slides, path)


@law(made=table_files(["slide_id", "mpp"], [["a.svs", "0.5"], ["b", "0.25"]], [".csv"]))
def test_tables_of_resolutions(made: tuple[str, bytes], tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "mpp.csv"
    path.write_bytes(made[1])
    tried(read_mpp_table, path)
