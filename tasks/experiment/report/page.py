"""A report: title, the honest sentence first, sections; written as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.experiment.folder import write_whole
from tasks.experiment.report import palette
from tasks.experiment.report.parts import Section

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Report:
    """One run, or one patient, told to a reader.

    Attributes:
        title: what was run, on what
        lead: the one sentence to remember, as honest as the numbers are
        sections: in reading order
        notice: shown above everything else, for instance that the run is not complete
        context: a short line above the title (task, date)
    """

    title: str
    lead: str
    sections: Sequence[Section]
    notice: str = ""
    context: str = ""

    def html(self) -> str:
        """The page as text: everything inline, nothing fetched, no scripts."""
        jinja = Environment(
            loader=FileSystemLoader(_HERE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        style = palette.css() + (_HERE / "page.css").read_text(encoding="utf-8")
        return jinja.get_template("page.html").render(report=self, style=Markup(style), inline=_inline)

    def write(self, path: Path) -> Path:
        """Write the page atomically: a reader sees the old page or the new one, never half of one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.html())
        return path


def _inline(svg: str) -> Markup:
    """SVG that `Figure` has already checked goes into the page unescaped."""
    return Markup(svg)
