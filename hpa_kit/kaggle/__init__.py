"""What runs on Kaggle: finding what is attached, installing offline, the session and its parameters.

Standard library only at import. What makes datasets and notebooks and sends them is in ``kaggle/publish/``.
"""

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
