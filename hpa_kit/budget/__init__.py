"""What the whole job takes, measured: ``hpa-kit budget``."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.budget.page import Measured, read_page, tables
    from hpa_kit.budget.run import budget

__getattr__ = lazy(__name__)
