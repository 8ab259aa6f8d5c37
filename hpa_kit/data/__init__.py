"""What comes in: fields, tables and folds. Made-up data comes from ``hpa_kit.data.simulate``."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.classes import location_to_class, locations_to_labels
    from hpa_kit.data.cell_scores import (
        CLASS_COLUMNS,
        PseudoLabels,
        read_cell_scores,
        read_label_round,
        read_pseudo_labels,
        write_cell_scores,
    )
    from hpa_kit.data.external import CELL_LINES, read_external, sample_external
    from hpa_kit.data.fields import (
        CHANNELS,
        Images,
        field_size,
        find_fields,
        lab_pixel,
        lab_scale,
        read_field,
        resize_field,
    )
    from hpa_kit.data.folds import find_folds, load_folds, make_folds, take_folds, write_folds
    from hpa_kit.data.lab_folder import LabFolder
    from hpa_kit.data.labelled import LabelledFields, labelled_fields
    from hpa_kit.data.layout import DataFolder, SplitFields, read_labels, read_sample
    from hpa_kit.data.store import FieldStore, store_fields

__getattr__ = lazy(__name__)
