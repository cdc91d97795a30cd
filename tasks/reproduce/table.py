"""The rows of a reproduction as cells, the same in the terminal, on the page and in REPRODUCED.md."""

from __future__ import annotations

from tasks.reproduce.rows import Row

HEADER = ("what", "against", "kind", "ours", "95 % interval", "tolerance", "holds", "note")
LEGEND = (
    "Kind says whose figure ours is held against: published (of the paper or its authors' files), recalled (the "
    "paper's, not read again), measured (before, by other code of this project on the same files), bar (set by us, or "
    "chance), rival (another arm of the same run), none (the row describes and claims nothing)."
)


def cells(row: Row) -> list[str]:
    """One row under `HEADER`."""
    verdict = {True: "yes", False: "NO", None: "-"}[row["ok"]]
    interval = f"{_number(row['low'])} to {_number(row['high'])}" if "low" in row and "high" in row else "-"
    shown = (row["name"], _number(row["against"]), row["kind"], _number(row["ours"]), interval)
    return [*shown, "-" if row["tolerance"] is None else f"{row['tolerance']:.2g}", verdict, _noted(row)]


def _noted(row: Row) -> str:
    """The note behind what is known in numbers."""
    parts = [f"{row['n']:,} {row['of']}"] if "n" in row else []
    if seeds := row.get("seeds"):
        parts.append(f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds")
    return "; ".join([*parts, *([row["note"]] if row["note"] else [])])


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4g}"
