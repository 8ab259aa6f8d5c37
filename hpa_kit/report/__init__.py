"""What a person looks at: pictures, tables, the experiment log, and the page of ``hpa-kit report``."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.report.page import Report, write_report

__getattr__ = lazy(__name__)
