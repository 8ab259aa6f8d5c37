"""Learning where proteins are, from image labels."""

from hpa_kit.training.checkpoint import read_checkpoint, settings_of
from hpa_kit.training.loop import Trainer, train
from hpa_kit.training.member import Member, load_member
from hpa_kit.training.processes import Processes
from hpa_kit.training.subcategories import assign_subcategories

__all__ = [
    "Member",
    "Processes",
    "Trainer",
    "assign_subcategories",
    "load_member",
    "read_checkpoint",
    "settings_of",
    "train",
]
