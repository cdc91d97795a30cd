"""The command `survival features`; everything heavy is imported when it runs."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class LayoutName(StrEnum):
    """File layouts."""

    trident = "trident"
    clam = "clam"


def features(
    slides: Annotated[Path, typer.Argument(help="Folder of slides (recursive), a CSV list, or one slide.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the features.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="KEY=VALUE, e.g. grid.edge=pad tissue.pen=false encoder.batch=128")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("-c", "--config", help="YAML files, laid over one another.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="StainTexture, MobileNetV2, TransformersModel, ... or a full class path.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per patch pixel (0.5).")] = None,
    patch: Annotated[int | None, typer.Option(help="Side of a patch in pixels (256).")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels shared by neighbouring patches (0).")] = None,
    mpp_table: Annotated[Path | None, typer.Option(help="CSV slide_id,mpp; wins over the slide headers.")] = None,
    source_mpp: Annotated[float | None, typer.Option(help="For slides whose header gives no resolution.")] = None,
    layout: Annotated[LayoutName, typer.Option(help="Whose files to write.")] = LayoutName.trident,
    resume: Annotated[bool, typer.Option("--resume", help="Continue, or join a run that is going on.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes on this machine (one per core).")] = None,
    engine: Annotated[str | None, typer.Option(help="tcp://host:port of a Dask scheduler.")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Show the settings and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line per slide.")] = False,
) -> None:
    """Turn whole-slide images into patch features. Exit code 1 when a slide was skipped or failed."""
    import yaml

    from data.errors import DataError
    from tasks.experiment.config import overlay
    from tasks.experiment.folder import RunError
    from tasks.experiment.signatures import ConfigError
    from tasks.survival.features import as_row, extract, resolved_settings
    from tasks.survival.slide_unit import EncoderFailed

    asked = {"grid.mpp": mpp, "grid.patch": patch, "grid.overlap": overlap}
    flags = [f"{key}={value}" for key, value in asked.items() if value is not None]
    try:
        named: list[str] = [f"encoder.class_path={encoder}"] if encoder else []
        settings = resolved_settings(overlay(config or [], [*named, *(overrides or []), *flags]))
        if print_config:
            print(yaml.safe_dump(settings, sort_keys=False), end="")
            return
        code, rows = extract(
            slides,
            out,
            settings,
            layout=layout.value,
            mpp_table=mpp_table,
            source_mpp=source_mpp,
            resume=resume,
            jobs=jobs,
            engine=engine,
            tell=_silent if quiet else _to_stderr,
        )
    except (DataError, ConfigError, RunError, EncoderFailed, ImportError, ValueError) as error:
        _to_stderr(f"survival features: {' '.join(str(error).split())}")
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps([as_row(row) for row in rows], indent=2))
    else:
        _table([as_row(row) for row in rows], out)
    raise typer.Exit(code)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(_: str) -> None:
    return None


def _table(rows: list[dict[str, Any]], out: Path) -> None:
    from tasks.experiment.console import print_table

    print_table(rows, ["slide_id", "state", "patches", "mpp", "seconds"])
    for row in rows:
        for note in (row["why"], *row["warnings"]):
            if note:
                print(f"{row['slide_id']} ({row['state']}): {note}")
    print(out / "contact_sheet.html")
