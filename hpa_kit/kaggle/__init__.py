"""Kaggle: finding what is mounted, installing offline, bundling the kit. Standard library only at import."""

from hpa_kit.kaggle.bootstrap import bootstrap, install_wheels
from hpa_kit.kaggle.environment import (
    Environment,
    environment_report,
    notebook_settings,
    run_kind,
    session_hours,
)
from hpa_kit.kaggle.mounts import (
    find_cell_weights,
    find_competition,
    find_ensemble,
    find_members,
    find_mounts,
    find_run,
    output_path,
)

__all__ = [
    "Environment",
    "bootstrap",
    "environment_report",
    "find_cell_weights",
    "find_competition",
    "find_ensemble",
    "find_members",
    "find_mounts",
    "find_run",
    "install_wheels",
    "notebook_settings",
    "output_path",
    "run_kind",
    "session_hours",
]
