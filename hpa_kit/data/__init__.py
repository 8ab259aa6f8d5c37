"""What comes in: fields, tables and folds. Made-up data comes from ``hpa_kit.data.simulate``."""

from hpa_kit.classes import location_to_class, locations_to_labels
from hpa_kit.data.cell_scores import (
    CLASS_COLUMNS,
    PseudoLabels,
    read_cell_scores,
    read_pseudo_labels,
    write_cell_scores,
)
from hpa_kit.data.external import CELL_LINES, read_external, sample_external
from hpa_kit.data.fields import CHANNELS, field_size, find_fields, read_field, resize_field
from hpa_kit.data.folds import find_folds, make_folds, write_folds
from hpa_kit.data.labelled import LabelledFields, labelled_fields
from hpa_kit.data.layout import DataFolder, SplitFields, read_labels, read_sample
from hpa_kit.data.store import FieldStore, store_fields

__all__ = [
    "CELL_LINES",
    "CHANNELS",
    "CLASS_COLUMNS",
    "DataFolder",
    "FieldStore",
    "LabelledFields",
    "PseudoLabels",
    "SplitFields",
    "field_size",
    "find_fields",
    "find_folds",
    "labelled_fields",
    "location_to_class",
    "locations_to_labels",
    "make_folds",
    "read_cell_scores",
    "read_external",
    "read_field",
    "read_labels",
    "read_pseudo_labels",
    "read_sample",
    "resize_field",
    "sample_external",
    "store_fields",
    "write_cell_scores",
    "write_folds",
]
