"""Strategies for files that are nearly right: good ones with a few bytes, cells or values changed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

import tifffile
from hypothesis import strategies as st

_WORDS = (
    """nan NA n/a inf -inf 1e400 -1 0 1 2 1_000 0x10 ٣ é a,b True None <script> ../up / ~ 😀 case_id P1 1e-320 """
    """1.5.2 =1+1 # % { 999999999999999999999999999999 " '"""
)
_BLANKS = ["", " ", "- 1", "a\tb", "a\nb", "\r", "\x00", "\ufeff", "\x1b[2J"]
ODD_TEXT = st.sampled_from([*_WORDS.split(), *_BLANKS]) | st.text(max_size=6)
ODD_NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, -(2**31), 2**63, 2**64, 10**30, 0.0, -0.5, 1e308, -1e308, 5e-324]
) | st.floats(allow_nan=True)
ODD_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    ODD_NUMBERS,
    ODD_TEXT,
    st.just([]),
    st.just({}),
    st.lists(ODD_NUMBERS, max_size=3),
    st.lists(ODD_TEXT, max_size=3),
    st.dictionaries(ODD_TEXT, ODD_NUMBERS, max_size=2),
)
_PATTERNS = [
    *(struct.pack(f"<{kind}", value) for kind, value in (("h", -1), ("h", 0), ("h", 32767), ("i", -1), ("q", -1))),
    *(struct.pack("<i", value) for value in (0, 1, 2**31 - 1, -(2**31))),
    *(struct.pack("<q", value) for value in (2**40, 2**62, -(2**63))),
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), 1e38, 0.0, -1.0)),
    *(struct.pack("<d", value) for value in (float("nan"), 1e308)),
    b"\x00" * 16,
    b"\xff" * 16,
    b"\n",
    b"{",
    b'"',
]


@st.composite
def damaged(draw: st.DrawFn, good: Sequence[bytes], head: int | None = None) -> bytes:
    """A good file with up to five changes: cut, overwritten, with something in between or left out.

    Args:
        good: files to start from
        head: change only the first so many bytes, where the structure stands
    """
    content = bytearray(draw(st.sampled_from(list(good))))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, min(len(content), head or len(content))))
        how = draw(st.sampled_from(["write", "write", "flip", "insert", "drop", "cut", "repeat"]))
        piece = draw(st.sampled_from(_PATTERNS) | st.binary(min_size=1, max_size=8))
        if how == "write":
            content[at : at + len(piece)] = piece
        elif how == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            content[at:at] = piece
        elif how == "drop":
            del content[at : at + draw(st.integers(1, 64))]
        elif how == "cut":
            del content[at:]
        elif how == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
    return bytes(content)


def files(good: Sequence[bytes], head: int | None = None) -> st.SearchStrategy[bytes]:
    """Damaged files, now and then bytes that mean nothing."""
    return st.one_of(damaged(good, head), damaged(good), damaged(good, head), st.binary(max_size=64))


@st.composite
def tables(draw: st.DrawFn, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """A good table with up to four changes of cells, rows, columns and names."""
    table = [list(header), *map(list, rows)]
    for _ in range(draw(st.integers(0, 4))):
        if not table or not table[0]:
            break
        row, column = draw(st.integers(0, len(table) - 1)), draw(st.integers(0, len(table[0]) - 1))
        how = draw(st.sampled_from(["cell", "cell", "cell", "fill", "name", "drop", "lose", "again", "short", "long"]))
        if how == "cell" and column < len(table[row]):
            table[row][column] = draw(ODD_TEXT)
        elif how == "fill":
            value = draw(ODD_TEXT)
            table[1:] = [[value if k == column else cell for k, cell in enumerate(line)] for line in table[1:]]
        elif how == "name":
            table[0][column] = draw(ODD_TEXT | st.sampled_from(table[0]))
        elif how == "drop":
            table = [[cell for k, cell in enumerate(line) if k != column] for line in table]
        elif how == "lose":
            del table[row : len(table) if draw(st.booleans()) else row + 1]
        elif how == "again":
            table.insert(row, list(table[row]))
        elif how == "short":
            del table[row][column:]
        elif how == "long":
            table[row].append(draw(ODD_TEXT))
    return table


def text_of(table: Sequence[Sequence[str]], mark: str = ",") -> str:
    """A table as CSV."""
    out = io.StringIO()
    csv.writer(out, delimiter=mark, lineterminator="\n").writerows(table)
    return out.getvalue()


@st.composite
def table_files(
    draw: st.DrawFn, header: Sequence[str], rows: Sequence[Sequence[str]], endings: Sequence[str]
) -> tuple[str, bytes]:
    """A nearly good table as a file: its ending, and its content in some encoding and packing, sometimes damaged."""
    ending = draw(st.sampled_from(list(endings)))
    mark = "\t" if ".tsv" in ending else ","
    text = text_of(draw(tables(header, rows)), mark)
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "latin-1", "utf-16"]))
    content = text.encode(encoding, "replace")
    if ending.endswith(".gz"):
        content = gzip.compress(content, 1)
    elif ending.endswith(".zip"):
        content = zipped({draw(st.sampled_from(["a.csv", "../../up.csv", "/root.csv", "", "d/"])): content})
    return ending, draw(damaged([content])) if draw(st.integers(0, 3)) == 0 else content


TAG_PARTS = {"kind": 2, "count": 4}


def with_tag(content: bytes, page: int, tag: str, part: str, value: bytes) -> bytes:
    """A TIFF with other bytes in one entry of a directory.

    Args:
        content: the whole file
        page: number of the directory
        tag: its name
        part: kind (2 bytes), count (4 bytes) or value (where the values stand)
        value: what is written there
    """
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        entry = tiff.pages[page].tags[tag]
    at = entry.valueoffset if part == "value" else entry.offset + TAG_PARTS[part]
    return content[:at] + value + content[at + len(value) :]


@st.composite
def odd_tags(draw: st.DrawFn, content: bytes) -> bytes:
    """A good TIFF in whose directories up to two entries say something else."""
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        names = [(number, tag.name) for number, page in enumerate(tiff.pages) for tag in page.tags]
    for _ in range(draw(st.integers(1, 2))):
        where, part = draw(st.sampled_from(names)), draw(st.sampled_from(["kind", "count", "value", "value"]))
        small = st.integers(0, 5).map(lambda n: struct.pack("<i", n))
        value = draw(small | st.sampled_from(_PATTERNS).filter(lambda made: len(made) in (2, 4)))
        try:
            content = with_tag(content, *where, part, value[:2] if part == "kind" else value)
        except Exception:  # the first change may have left nothing to change
            break
    return content


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip file of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


@st.composite
def trees(draw: st.DrawFn, good: Any) -> Any:
    """A good tree of mappings and lists with up to three values changed, keys lost or added."""
    tree = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(0, 3))):
        tree = _changed(draw, tree)
    return tree


def _changed(draw: st.DrawFn, node: Any) -> Any:
    inside = isinstance(node, dict | list) and len(node) > 0 and draw(st.integers(0, 5)) > 0
    if not inside:
        return draw(ODD_VALUES)
    key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else list(range(len(node)))))
    how = draw(st.sampled_from(["deeper"] * 6 + ["lose", "add"]))
    if how == "lose":
        del node[key]
    elif how == "add" and isinstance(node, dict):
        node[draw(ODD_TEXT)] = draw(ODD_VALUES)
    else:
        node[key] = _changed(draw, node[key])
    return node


@st.composite
def json_files(draw: st.DrawFn, good: Any) -> bytes:
    """A nearly good JSON file, sometimes damaged."""
    content = json.dumps(draw(trees(good))).encode()
    return draw(damaged([content])) if draw(st.integers(0, 3)) == 0 else content
