"""Rehearsal: both notebooks run here as Kaggle runs them, before anything is uploaded."""

from hpa_kit.kaggle.publish.rehearsal.own import Own
from hpa_kit.kaggle.publish.rehearsal.play import Plan, rehearse

__all__ = ["Own", "Plan", "rehearse"]
