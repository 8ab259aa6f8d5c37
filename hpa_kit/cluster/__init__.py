"""Batches of fields done by the workers of a Dask cluster; without one ``distributed`` is not imported."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.cluster.batches import done_by_workers
    from hpa_kit.cluster.connect import connected, with_whole_paths
    from hpa_kit.cluster.worker import Item, Job, Work

__getattr__ = lazy(__name__)
