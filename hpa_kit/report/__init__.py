"""What a person looks at: pictures, tables, the experiment log, and the page of ``hpa-kit report``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_kit.report.page import Report, write_report

# Imported when first asked for: torch takes seconds, and a table of scores needs none.
_HOME = {"Report": "page", "write_report": "page"}

__all__ = ["Report", "write_report"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_kit.report.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
