"""The kinds of bad input, one row each: how to make it, which command meets it, and what that says.

The tests run the rows; ``write_page.py`` writes them to ``docs/bad_input.md``.
"""

from bad_input_table import (
    caches,
    clusters,
    images,
    kaggle,
    lab,
    places,
    pretrained,
    settings,
    sizes,
    submissions,
    tables,
    weights,
)
from bad_input_table.case import Case, matches
from bad_input_table.page import PAGE, page
from bad_input_table.world import World, make_world

CASES: tuple[Case, ...] = (
    *images.CASES,
    *lab.CASES,
    *tables.CASES,
    *submissions.CASES,
    *settings.CASES,
    *weights.CASES,
    *pretrained.CASES,
    *caches.CASES,
    *places.CASES,
    *clusters.CASES,
    *sizes.CASES,
    *kaggle.CASES,
)

__all__ = ["CASES", "PAGE", "Case", "World", "make_world", "matches", "page"]
