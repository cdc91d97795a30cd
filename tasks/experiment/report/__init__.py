"""Reports any task can write: plain parts in, one self-contained page out."""

from tasks.experiment.report.page import Report
from tasks.experiment.report.parts import (
    Exhibit,
    Exhibits,
    Facts,
    Failure,
    Failures,
    Figure,
    Listing,
    Measured,
    MetricRow,
    MetricTable,
    Part,
    Prose,
    Role,
    Section,
    Table,
)

__all__ = [
    "Exhibit",
    "Exhibits",
    "Facts",
    "Failure",
    "Failures",
    "Figure",
    "Listing",
    "Measured",
    "MetricRow",
    "MetricTable",
    "Part",
    "Prose",
    "Report",
    "Role",
    "Section",
    "Table",
]
