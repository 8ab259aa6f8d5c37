"""Learning where proteins are, from image labels."""

from hpa_kit.training.checkpoint import read_checkpoint
from hpa_kit.training.loop import Trainer, train
from hpa_kit.training.member import Member, load_member

__all__ = ["Member", "Trainer", "load_member", "read_checkpoint", "train"]
