"""A run of which the second process fails while the first waits for it; processes import it."""

from hpa_kit.errors import InputError
from hpa_kit.training import Trainer


class Failing(Trainer):
    def step(self, *args):
        if self.processes.rank == 1 and self.state.step_number == 1:
            raise InputError("fields: the second process cannot read on")
        return super().step(*args)


def fail(settings):
    Failing(settings).fit()
