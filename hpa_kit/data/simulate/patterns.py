"""What the protein shows: one pattern for each location class.

A pattern takes the scene, the numbers of the cells that show it and a generator, and gives a float32 canvas
of about 0 to 1. It may paint on other cells too: the caller keeps what lies on the cells that show it. Class
10 is the red channel's own canvas, class 18 is nothing.
"""

from collections.abc import Callable

import numpy as np

from hpa_kit.data.simulate import cytoplasmic, nuclear
from hpa_kit.data.simulate.draw import Canvas
from hpa_kit.data.simulate.nuclear import Members
from hpa_kit.data.simulate.scene import Scene

Pattern = Callable[[Scene, Members, np.random.Generator], Canvas]

PATTERNS: dict[int, Pattern] = {
    0: nuclear.nucleoplasm,
    1: nuclear.nuclear_membrane,
    2: nuclear.nucleoli,
    3: nuclear.fibrillar_center,
    4: nuclear.nuclear_speckles,
    5: nuclear.nuclear_bodies,
    6: cytoplasmic.endoplasmic_reticulum,
    7: cytoplasmic.golgi,
    8: cytoplasmic.intermediate_filaments,
    9: cytoplasmic.actin_filaments,
    11: cytoplasmic.mitotic_spindle,
    12: cytoplasmic.centrosome,
    13: cytoplasmic.plasma_membrane,
    14: cytoplasmic.mitochondria,
    15: cytoplasmic.aggresome,
    16: cytoplasmic.cytosol,
    17: cytoplasmic.vesicles,
}
