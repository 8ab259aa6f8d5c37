"""The page of ``hpa-kit report`` inside a notebook."""

from pathlib import Path
from typing import Any

from hpa_kit.config import InferSettings, ReportSettings, TrainSettings, make_settings
from hpa_kit.report.page import write_report
from hpa_kit.training.checkpoint import BEST


class Frame:
    """A written page, which a notebook shows in a frame of its own when this is a cell's last value.

    The page is inside the notebook then, and is seen wherever that is: on Kaggle, or without its files.

    Args:
        path: of the page.
        height: of the frame in pixels.
    """

    def __init__(self, path: Path, height: int = 860) -> None:
        self.path, self.height = path, height

    def __repr__(self) -> str:
        return f"report: {self.path}"

    def _repr_html_(self) -> str:
        page = self.path.read_text(encoding="utf-8").replace("&", "&amp;").replace("'", "&#39;")
        style = f"width:100%;height:{self.height}px;border:1px solid #ccc"
        return f"<iframe title='report' style='{style}' srcdoc='{page}'></iframe>"


def submission_report(settings: InferSettings, submission: Path, fields: int = 24) -> Frame:
    """The report of a submission, ``report.html`` beside it, with class maps of the members that made it.

    Args:
        settings: of the inference.
        submission: the CSV.
        fields: most that are shown; each makes the notebook about 80 KB larger.

    Raises:
        InputError: as :func:`hpa_kit.report.write_report`.
    """
    return _frame(
        source=submission,
        out=submission.with_name("report.html"),
        data=settings.data,
        split=settings.split,
        members=settings.members,
        ensemble=settings.ensemble,
        views=settings.views,
        map_size=settings.map_size,
        fields=fields,
        batch=settings.batch,
        workers=max(1, settings.workers),
        device=settings.device.split(",")[0],
    )


def run_report(settings: TrainSettings, fields: int = 12) -> Frame:
    """The report of a run, ``report.html`` in its folder: its training, and fields it has not learnt from.

    A network without class maps, or a run without a whole epoch yet, shows its training only.

    Args:
        settings: of the run.
        fields: most that are shown; their cells are found without weights.

    Raises:
        InputError: as :func:`hpa_kit.report.write_report`.
    """
    looks = settings.network != "arcface" and (settings.out / BEST).is_file()
    return _frame(
        source=settings.out,
        out=settings.out / "report.html",
        data=settings.data if looks else None,
        split="train",
        fields=fields,
        workers=max(1, settings.workers),
        device=settings.device,
    )


def _frame(**values: Any) -> Frame:
    return Frame(write_report(make_settings(ReportSettings, values, source="report")).path)
