"""What each method adds, on fields whose cells are known: ``hpa-kit ablation``."""

from hpa_kit.ablation.run import ablation

__all__ = ["ablation"]
