"""Rehearsal: both notebooks run here as Kaggle runs them, before anything is uploaded."""

from hpa_kit.kaggle.rehearsal.own import Own
from hpa_kit.kaggle.rehearsal.play import Plan, rehearse

__all__ = ["Own", "Plan", "rehearse"]
