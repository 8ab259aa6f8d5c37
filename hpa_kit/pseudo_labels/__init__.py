"""What an ensemble says of the cells of training fields, for stage 2 to learn from."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.pseudo_labels.make import make_pseudo_labels

__getattr__ = lazy(__name__)
