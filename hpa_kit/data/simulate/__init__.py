"""A synthetic competition: fields that look as HPA's do, with the truth of every cell."""

from hpa_kit.data.simulate.folder import simulate

__all__ = ["simulate"]
