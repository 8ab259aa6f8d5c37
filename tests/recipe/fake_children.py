"""A recipe of each kind of stages, and children that write what a command would, at once."""

import signal
from pathlib import Path

from hpa_kit.config import TrainSettings
from hpa_kit.recipe.children import News
from hpa_kit.training.checkpoint import LAST, write_checkpoint

RECIPE = """
about: two networks
folds: 2
inputs: {weights: cell networks}
stages:
  label_maps:
    segment: {split: train}
  cam:
    train: {masks: $label_maps, backbone: test_resnet, size: 64, epochs: 3}
    folds: all
  soft:
    pseudo-labels: {members: $cam, masks: $label_maps, labels: soft}
  crops:
    train: {network: crops, pseudo_labels: $soft, folds_of: $cam, backbone: test_resnet, size: 64, epochs: 1}
    folds: all
    optional: 1
  untuned:
    ensemble:
      members: [{checkpoint: $cam, weight: 3}, {checkpoint: $crops}]
  ensemble:
    tune: {ensemble: $untuned, masks: $label_maps}
  members:
    weights: {sources: $ensemble}
"""
ALL = ["label_maps", "cam_fold0", "cam_fold1", "soft", "crops_fold0", "crops_fold1", "ensemble", "members"]


class Children:
    """Stands for :class:`hpa_kit.recipe.children.Child`; takes commands down.

    Attributes:
        started: (name of what it writes, words, environment, processes), in order.
        how: {name: fails, stays, nothing (it writes none), or epochs after which a run stopped}; all others
            are done at once.
        while_running: called as each begins, such as to let time go by.
    """

    def __init__(self):
        self.started, self.how = [], {}
        self.while_running = lambda name: None

    def __call__(self, words, environment, news, processes=1):
        out = Path(words[-1] if words[0] == "kaggle" else words[words.index("--out") + 1])
        self.started.append((out.stem, list(words), environment, processes))
        self.while_running(out.stem)
        return Child(words, out, news, self.how.get(out.stem, "done"))

    @property
    def names(self):
        return [name for name, *_ in self.started]

    def words(self, name):
        return next(words for found, words, *_ in self.started if found == name)


class Child:
    def __init__(self, words, out, news, how):
        self._news = news
        news.put(News(self, line=f"makes {out.name}"))
        if how == "stays":
            return
        if how == "nothing":
            out.mkdir()
        elif how != "fails":
            write(words, out, epochs=how)
        news.put(News(self, status=1 if how == "fails" else 0))

    def send(self, number):
        if number == signal.SIGINT:
            self._news.put(News(self, status=130))


def write(words, out, epochs):
    if words[0] == "train":
        wanted = int(words[words.index("--epochs") + 1])
        made = TrainSettings(data=words[1], out=out, epochs=wanted)
        write_checkpoint(out / LAST, made, {"epoch": wanted if epochs == "done" else epochs})
    elif out.suffix:
        out.write_text("members: []\n")
    else:
        out.mkdir(exist_ok=True)
        (out / "made").write_text(" ".join(words))
