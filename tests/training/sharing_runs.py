"""Runs that two processes share; both import this."""

import json

from safetensors.torch import save_file

from hpa_kit.errors import InputError
from hpa_kit.training import Trainer


def train_and_keep(settings):
    """Train at once, in sessions of a step each, and a run that is only begun; keep both's weights."""
    trainer = Trainer(settings)
    trainer.fit()
    folder = settings.out.parent
    sessions = settings.model_copy(update={"out": folder / "sessions", "time_limit": 1e-9})
    ended = []
    while (session := Trainer(sessions)).fit() and session.state.epoch < settings.epochs:
        ended.append([session.state.step_number, session.state.epoch])
    rank = trainer.processes.rank
    (folder / f"sessions{rank}.json").write_text(json.dumps(ended))
    Trainer(sessions.model_copy(update={"out": folder / "begun"})).fit()
    weights = {name: value.clone() for name, value in trainer.state.model.state_dict().items()}
    save_file(weights, folder / f"process{rank}.safetensors")


class Failing(Trainer):
    def step(self, *args):
        if self.processes.rank == 1 and self.state.step_number == 1:
            raise InputError("fields: the second process cannot read on")
        return super().step(*args)


def fail(settings):
    """Train until the second process fails while the first waits for it."""
    Failing(settings).fit()
