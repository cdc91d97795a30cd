"""What a section of a report can hold. A part is plain data: it says what to show, the template says how."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree

from tasks.experiment.report import numbers
from tasks.experiment.report.palette import themed

Role = Literal["own", "baseline", "chance", "ceiling"]


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text."""

    kind: ClassVar[str] = "prose"
    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """One number with its interval, or the reason why there is none.

    Attributes:
        value: None or NaN = undefined
        low: lower end of the interval
        high: upper end
        note: a few words under the number
        digits: after the point
        signed: print a plus sign, for differences
        words: shown in place of the number, such as a p value in powers of ten
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    digits: int = 3
    signed: bool = False
    words: str = ""

    @property
    def text(self) -> str:
        return self.words or numbers.decimal(self.value, self.digits, signed=self.signed)

    @property
    def interval(self) -> str:
        return numbers.interval(self.low, self.high, self.digits, signed=self.signed)


@dataclass(frozen=True)
class MetricRow:
    """One model, baseline or limit in a metric table.

    Attributes:
        label: what was scored
        cells: column -> number; a column left out was not measured and shows a dash
        role: own = the model this report is about; chance and ceiling are the ends of the scale
        remark: a few words under the label
    """

    label: str
    cells: Mapping[str, Measured]
    role: Role = "baseline"
    remark: str = ""


@dataclass(frozen=True)
class MetricTable:
    """Numbers with their intervals, the model and everything it must beat in one table.

    Attributes:
        columns: column -> what it is, with its best direction ("higher is better")
        rows: shown in the order given
        caption: must say on which cases
    """

    kind: ClassVar[str] = "metrics"
    columns: Mapping[str, str]
    rows: Sequence[MetricRow]
    caption: str

    def __post_init__(self) -> None:
        for row in self.rows:
            if unknown := sorted(set(row.cells) - set(self.columns)):
                raise ValueError(
                    f"metric table row {row.label!r}: no column {unknown[0]!r}; there are {list(self.columns)}"
                )


@dataclass(frozen=True)
class Table:
    """Any other table; numbers are aligned by their last digit."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"table {self.caption!r}: a row has {len(row)} cells, the header has {len(self.header)}"
                )


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        key: name of the figure: file name, and prefix of the ids in its SVG
        image: SVG text, or the bytes of a PNG
        title: a few words above the picture
        caption: what is drawn, with units
        n: how many cases are drawn, in words ("359 patients, 156 events")
        alt: what a reader who cannot see it must know
        wide: take the whole width of the page
        sound: bytes of a WAV file to be heard with the picture
    """

    kind: ClassVar[str] = "figure"
    key: str
    image: str | bytes
    title: str
    caption: str
    n: str
    alt: str
    wide: bool = False
    sound: bytes = b""

    def __post_init__(self) -> None:
        for name in ("alt", "n"):
            if not getattr(self, name).strip():
                raise ValueError(f"figure {self.key!r}: {name!r} is empty; every figure says it")
        if self.sound and not self.sound.startswith(b"RIFF"):
            raise ValueError(f"figure {self.key!r}: the sound is not a WAV (starts with {self.sound[:8]!r})")
        if isinstance(self.image, str):
            _refuse_active(self.key, self.image)
        elif not self.image.startswith(b"\x89PNG\r\n"):
            raise ValueError(f"figure {self.key!r}: the bytes are not a PNG (start with {self.image[:8]!r})")

    @property
    def inline(self) -> str:
        """The SVG in the page's colours, as wide as its place; the element around it carries the alt text."""
        if not isinstance(self.image, str):
            raise ValueError(f"figure {self.key!r} is a PNG, not an SVG")
        svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", self.image, count=1)
        svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
        return themed(svg)

    @property
    def data_uri(self) -> str:
        """The PNG as a `data:` address, empty for an SVG."""
        return "" if isinstance(self.image, str) else "data:image/png;base64," + base64.b64encode(self.image).decode()

    @property
    def sound_uri(self) -> str:
        """The WAV as a `data:` address, empty without one."""
        return "data:audio/wav;base64," + base64.b64encode(self.sound).decode() if self.sound else ""

    def under(self, prefix: str) -> Figure:
        """The same figure with a name, and ids in its SVG, that no figure of another report on the page has."""
        image = self.image
        if isinstance(image, str):
            image = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", image)
        return replace(self, key=f"{prefix}-{self.key}", image=image)

    def save(self, folder: Path) -> Path:
        """Write the picture alone as `<key>.svg` or `<key>.png`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.key}.{'svg' if isinstance(self.image, str) else 'png'}"
        path.write_bytes(self.image.encode() if isinstance(self.image, str) else self.image)
        return path


@dataclass(frozen=True)
class Failure:
    """A unit of work that did not finish.

    Attributes:
        unit: which
        reason: one line
        detail: everything that is known, folded away on the page
    """

    unit: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Failures:
    """What went wrong; says so explicitly when nothing did."""

    kind: ClassVar[str] = "failures"
    items: Sequence[Failure]


@dataclass(frozen=True)
class Facts:
    """Names and values, such as the versions of an environment. Nested mappings are joined with dots."""

    kind: ClassVar[str] = "facts"
    items: Mapping[str, object]

    @property
    def flat(self) -> dict[str, str]:
        def walk(items: Mapping[str, object], prefix: str) -> dict[str, str]:
            found: dict[str, str] = {}
            for name, value in items.items():
                if isinstance(value, Mapping):
                    found |= walk(value, f"{prefix}{name}.")
                elif isinstance(value, list | tuple):
                    found[prefix + name] = ", ".join(map(str, value))
                else:
                    found[prefix + name] = "–" if value is None else str(value)
            return found

        return walk(self.items, "")


@dataclass(frozen=True)
class Listing:
    """Text in a fixed-width font: a config, a log, a command.

    Attributes:
        text: shown as it is
        summary: when given, the text is folded away under these words
    """

    kind: ClassVar[str] = "listing"
    text: str
    summary: str = ""


@dataclass(frozen=True)
class Exhibit:
    """One item as it is: a picture, a sound to play, or a text.

    Attributes:
        title: what it is called
        note: a few words under it
        picture: bytes of a PNG
        sound: bytes of a WAV file
        text: of a text
    """

    title: str
    note: str = ""
    picture: bytes = b""
    sound: bytes = b""
    text: str = ""

    def __post_init__(self) -> None:
        for name, content, begins in (
            ("picture", self.picture, b"\x89PNG\r\n"),
            ("sound", self.sound, b"RIFF"),
        ):
            if content and not content.startswith(begins):
                raise ValueError(f"exhibit {self.title!r}: the {name} starts with {content[:8]!r}, not with {begins!r}")

    @property
    def picture_uri(self) -> str:
        """The picture as a `data:` address, empty without one."""
        return "data:image/png;base64," + base64.b64encode(self.picture).decode() if self.picture else ""

    @property
    def sound_uri(self) -> str:
        """The sound as a `data:` address, empty without one."""
        return "data:audio/wav;base64," + base64.b64encode(self.sound).decode() if self.sound else ""


@dataclass(frozen=True)
class Exhibits:
    """Items one beside another."""

    kind: ClassVar[str] = "exhibits"
    items: Sequence[Exhibit]


Part = Prose | MetricTable | Table | Figure | Failures | Facts | Listing | Exhibits


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; figures that follow one another share a row where there is room."""

    title: str
    parts: Sequence[Part] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def runs(self) -> list[list[Part]]:
        """Parts in order, neighbouring figures together."""
        grouped: list[list[Part]] = []
        for part in self.parts:
            if isinstance(part, Figure) and grouped and isinstance(grouped[-1][0], Figure):
                grouped[-1].append(part)
            else:
                grouped.append([part])
        return grouped


def _refuse_active(key: str, svg: str) -> None:
    """A figure is a picture: no scripts, no handlers, nothing fetched from elsewhere."""
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"figure {key!r}: not a well-formed SVG ({error})") from error
    for element in root.iter():
        name = str(element.tag).rsplit("}", 1)[-1].lower()
        if name in {"script", "foreignobject", "iframe"}:
            raise ValueError(f"figure {key!r}: a figure may not contain <{name}>")
        for attribute, value in element.attrib.items():
            plain = attribute.rsplit("}", 1)[-1].lower()
            if plain.startswith("on") or (plain == "href" and not value.startswith(("#", "data:image/"))):
                raise ValueError(f"figure {key!r}: a figure may not carry {plain}={value!r}")
