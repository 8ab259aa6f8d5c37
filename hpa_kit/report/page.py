"""``hpa-kit report``: fields, cells, scores, figures and training as one HTML file without a network."""

import html
import logging
import tempfile
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from hpa_kit import __version__
from hpa_kit.classes import CLASSES
from hpa_kit.config import ReportSettings
from hpa_kit.files import atomic_text, make_folder_of
from hpa_kit.report.error_analysis import Error, Evidence, measure
from hpa_kit.report.history import histories, inference_seconds
from hpa_kit.report.records import FieldRecord, Recorder, packed
from hpa_kit.report.shapes import UNITS
from hpa_kit.report.sources import Source, find_source
from hpa_kit.report.sprite_sheets import MAP_COLUMNS, MAP_SIDE, PackedMaps, crops_picture, maps_picture
from hpa_kit.submission import read_submission

log = logging.getLogger(__name__)

SCRIPTS = ("base", "pictures", "charts", "fields", "viewer", "cell", "figures", "training", "start")
PLACE_OF_SIZE = "@size@"


class Report(NamedTuple):
    """A written report: its file, its bytes, the fields shown, and those of the table."""

    path: Path
    size: int
    fields: int
    total: int


def write_report(settings: ReportSettings) -> Report:
    """Write a submission, or a run, as a page to look at in a browser.

    The page holds everything it shows and asks for nothing from a network. Pictures are kept small and read
    when they come into view. With the truth of every cell it shows what is right by the competition's own
    matching; with members (a run is its own) it shows class maps.

    Args:
        settings: see :class:`~hpa_kit.config.ReportSettings`.

    Raises:
        InputError: a file cannot be used, or the settings do not go together.
    """
    make_folder_of(settings.out)
    maps: dict[str, PackedMaps] = {}

    def keep(id: str, class_maps: Any) -> None:
        maps[id] = maps_picture(class_maps, settings.quality)

    with tempfile.TemporaryDirectory(prefix="hpa-kit-report-") as scratch:
        source = find_source(settings, Path(scratch), keep)
        evidence, records, seconds = None, list[FieldRecord](), dict(source.seconds)
        if source.submission is not None:
            if source.truth is not None:
                evidence = measure(source.truth, source.submission)
            started = monotonic()
            records = _records(settings, source, evidence, maps)
            seconds["drawing for this page"] = (monotonic() - started) / max(1, len(records))
    ids = [record.summary["id"] for record in records]
    index = {
        "name": settings.source.name or str(settings.source),
        "kind": source.kind,
        "version": __version__,
        "total": source.total,
        "side": settings.side,
        "units": UNITS,
        "map": [MAP_SIDE, MAP_COLUMNS],
        "maps": bool(maps),
        "crops": crops_picture(source.crops, settings.quality),
        "pictures": source.images is not None,
        "classes": [[one.name, one.colour] for one in CLASSES],
        "fields": [record.summary for record in records],
        "evidence": None if evidence is None else _evidence(evidence, ids),
        "training": histories(source.runs),
        "seconds": seconds,
        "inference": inference_seconds(settings.source),
    }
    page = _assembled(index, records)
    atomic_text(settings.out, page)
    return Report(settings.out, len(page.encode()), len(records), source.total)


def _records(
    settings: ReportSettings, source: Source, evidence: Evidence | None, maps: dict[str, PackedMaps]
) -> list[FieldRecord]:
    assert source.submission is not None
    shown = set(source.ids)
    recorder = Recorder(
        settings.source,
        source.images,
        {} if evidence is None else evidence.matches,
        source.labels,
        maps,
        settings.side,
        settings.quality,
    )
    table = read_submission(source.submission)
    rows = [row for row in table.itertuples(index=False, name=None) if row[0] in shown]
    return list(recorder.records(rows, settings.workers))


def _evidence(evidence: Evidence, ids: list[str]) -> dict[str, Any]:
    """Figures of all fields of the truth, errors of those that are shown."""
    number = {id: place for place, id in enumerate(ids)}
    errors = [_error(error, evidence, number[error.id]) for error in evidence.errors if error.id in number]
    return {
        "map": evidence.mean_ap,
        "fields": len(evidence.matches),
        "truth": sum(len(match.true_masks) for match in evidence.matches.values()),
        "matched": sum(len(match.found) for match in evidence.matches.values()),
        "classes": evidence.classes,
        "calibration": evidence.calibration,
        "confusion": evidence.confusion.round(2).tolist(),
        "errors": errors,
    }


def _error(error: Error, evidence: Evidence, field: int) -> list[Any]:
    """[kind, class, field, found cell or -1, place among the missed or -1, surety]."""
    missed = -1
    if error.cell is None and error.true_cell is not None:
        missed = evidence.matches[error.id].missed.index(error.true_cell)
    cell = -1 if error.cell is None else error.cell
    return [int(error.kind == "missed"), error.location, field, cell, missed, round(error.surety, 4)]


def _assembled(index: dict[str, Any], records: list[FieldRecord]) -> str:
    static = files("hpa_kit.report") / "static"
    page = (static / "report.html").read_text(encoding="utf-8")
    fields = "\n".join(
        f'<script type="application/json" id="field-{place}">{record.text}</script>'
        for place, record in enumerate(records)
    )
    scripts = "\n".join((static / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "title": html.escape(f"{index['name']} - hpa-kit report"),
        "style": (static / "report.css").read_text(encoding="utf-8"),
        "script": scripts,
        "index": packed(index),
        "fields": fields,
    }
    pieces = page.split("@@")  # text and names of parts in turn
    whole = "".join(piece if k % 2 == 0 else parts[piece] for k, piece in enumerate(pieces))
    size = f"{len(whole.encode()) / 1e6:.1f} MB"
    return whole.replace(PLACE_OF_SIZE, size, 1)
