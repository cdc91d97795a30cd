"""Make sure our flat package names are ours: PyPI has another `kernels`, and it may be installed too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tasks.experiment.folder import RunError

ROOMS = ("fusion", "encoders", "kernels", "tasks", "data", "configs")


def strangers(home: Path | None = None) -> dict[str, str]:
    """Rooms that Python would import from elsewhere, with the place it found.

    Args:
        home: folder the rooms should be in; by default the one this file is in
    """
    home = home or Path(__file__).resolve().parents[2]
    found = {}
    for room in ROOMS:
        spec = find_spec(room)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            places = list(spec.submodule_search_locations or ()) if spec else []
            found[room] = str(origin.parent) if origin else next(iter(places), "nowhere")
    return found


def check_names(home: Path | None = None) -> None:
    """Refuse to start when a room would come from another project.

    Raises:
        RunError: naming it and the remedy
    """
    for room, place in strangers(home).items():
        raise RunError(
            f"the name '{room}' leads to {place}, not to this project; uninstall that package (pip uninstall {room}), "
            "take its folder off PYTHONPATH, or use an environment of its own (make demo builds one)"
        )
