"""What comes in: fields, tables and folds. Made-up data comes from ``hpa_kit.data.simulate``."""

from hpa_kit.data.fields import CHANNELS, field_size, find_fields, read_field, resize_field
from hpa_kit.data.folds import load_folds, make_folds
from hpa_kit.data.layout import DataFolder, SplitFields
from hpa_kit.data.tables import read_labels, read_sample

__all__ = [
    "CHANNELS",
    "DataFolder",
    "SplitFields",
    "field_size",
    "find_fields",
    "load_folds",
    "make_folds",
    "read_field",
    "read_labels",
    "read_sample",
    "resize_field",
]
