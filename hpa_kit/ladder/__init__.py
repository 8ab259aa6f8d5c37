"""What each method adds, on fields whose cells are known: ``hpa-kit ladder``."""

from hpa_kit.ladder.climb import ladder

__all__ = ["ladder"]
