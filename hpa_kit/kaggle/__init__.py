"""Kaggle: finding what is mounted, installing offline, bundling the kit. Standard library only at import."""

from hpa_kit.kaggle.bootstrap import bootstrap, install_wheels
from hpa_kit.kaggle.environment import Environment, environment_report
from hpa_kit.kaggle.mounts import find_competition, find_members, find_mount, find_mounts, output_path
from hpa_kit.kaggle.parameters import notebook_settings

__all__ = [
    "Environment",
    "bootstrap",
    "environment_report",
    "find_competition",
    "find_members",
    "find_mount",
    "find_mounts",
    "install_wheels",
    "notebook_settings",
    "output_path",
]
