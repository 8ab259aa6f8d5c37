"""Where the cells of a field are."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.cells.classical import ClassicalSegmenter
    from hpa_kit.cells.dpn_unet import DPNUnet
    from hpa_kit.cells.label_maps import LabelMaps, label_map_ids, write_label_maps
    from hpa_kit.cells.label_step import label_cells
    from hpa_kit.cells.mask_folder import MaskFolder, read_label_maps
    from hpa_kit.cells.own_segmenters import add_segmenter
    from hpa_kit.cells.packing import Packer, pack_label_maps
    from hpa_kit.cells.resize import resized
    from hpa_kit.cells.segmenters import FieldCells, code_of_segmenter, load_or_segment, segmenter
    from hpa_kit.cells.weights import load_published_network

__getattr__ = lazy(__name__)
