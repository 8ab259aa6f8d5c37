# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train a CAM classifier
#
# From image labels to a classifier whose logits are the mean of its maps, so that the maps say *where* in the
# field a location class shows. Attach the competition and the `hpa-kit` dataset, choose a GPU, run all. It is
# `hpa-kit train` step by step; every variable here is an option of that command and may be set by papermill.

# %% tags=["parameters"]
inputs = "/kaggle/input"  # where attached data lies
working = "/kaggle/working"  # where results go
data = None  # competition folder; None looks for it under inputs
recipe = None  # quick, best, fifteenth, demo or a YAML: all stages of a job in place of one network
goes_on = None  # of a recipe: True refuses to begin where no earlier session is attached, False begins anew
out = None  # run folder; None is working/run, of a recipe working/recipe
resume_from = None  # run folder of an earlier session; None looks for one under inputs, False starts anew
masks = None  # label maps of the training fields; None finds their cells, False learns from whole fields
time_limit = None  # hours; None is 11.5 on Kaggle, which stops at 12, and no limit elsewhere
backbone = "resnet50"  # timm model name
pretrained = None  # weights file of the backbone, such as one in an attached dataset
stride = 32  # input pixels per map pixel: 8, 16 or 32
size = 512  # side to which fields are resized
epochs = 25
batch = None  # fields per step, of all GPUs together; None is 8 to 40, after the number of fields
optimiser = "adamw"
lr = 2e-3  # take less with pretrained weights
fold = 0  # the fold kept for validation
seed = 42
workers = 2
device = "auto"  # all GPUs; "cuda:0" is one
settings = {}  # any other option of `hpa-kit train`, such as {"stride_by": "dilate", "contrast": "fixed"}

# %% [markdown]
# The kit comes from the attached dataset, however Kaggle has unpacked it, or from the checkout this notebook
# lies in. Of several, the one whose files are as they were built is taken; two different builds are refused.
# What it needs and the image lacks is installed from the dataset's wheels, without a network.

# %%
import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

started = time.time()
MARK = "hpa_kit/kaggle/"


def places(inputs: str) -> Iterator[Path]:
    """Every folder and zip under inputs, the shallowest first; folders of images are not opened."""
    level = [Path(inputs)]
    for _ in range(8):
        yield from level
        inside = [place for place in level if place.is_dir() and place.name not in ("train", "test")]
        entries = [entry for folder in inside for entry in os.scandir(folder)]
        level = sorted(Path(e.path) for e in entries if e.is_dir() or e.name.lower().endswith(".zip"))


def kit_in(place: Path) -> Path | None:
    """The folder of the kit that a folder, or a zip, holds; None where it holds none."""
    if not place.is_file():
        return place if (place / MARK).is_dir() else None
    with zipfile.ZipFile(place) as archive:
        inside = [name for name in archive.namelist() if f"/{MARK}" in f"/{name}"]
        if min((entry.header_offset for entry in archive.filelist), default=0):  # it is a wheel's, inside
            raise zipfile.BadZipFile("cut short")
        if not inside:
            return None
        unpacked = Path(tempfile.mkdtemp(prefix="hpa-kit-"))
        archive.extractall(unpacked)
        return unpacked / min(inside, key=len).partition(MARK)[0]


def build_of(kit: Path) -> str:
    """The build of a kit; an error where a file is not as its manifest says."""
    files = json.loads((kit / "manifest.json").read_text(encoding="utf-8"))["files"]
    for name, expected in files.items():
        path, wheel = kit / name, "-".join(Path(name).name.split("-")[:2])
        unpacked = not path.is_file() and any(kit.glob(f"wheels/**/{wheel}.dist-info"))  # a wheel, by Kaggle
        if not unpacked and sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{name} is not as it was built")
    return sha256("".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()).hexdigest()[:12]


def find_kit(inputs: str) -> Path:
    """The kit under inputs that is as it was built; where none is attached, the checkout around here."""
    builds: dict[str, tuple[Path, Path]] = {}
    kits, said = list[Path](), ""
    for place in places(inputs):
        try:
            kit = kit_in(place)
            kits += [kit] if kit else []
            if kit:
                builds.setdefault(build_of(kit), (place, kit))
        except Exception as error:  # whatever it is, this one is not as it was built
            said += f"{place} is damaged ({error}): if it is the kit, upload the bundle again; "
    if len(builds) > 1:
        found = ", ".join(f"build {build} in {place}" for build, (place, _) in builds.items())
        detach = "detach all but one (hpa-kit kaggle metadata --remove OWNER/SLUG) and push again"
        raise ValueError(f"several builds of hpa_kit are attached: {found}; {detach}")
    around = [folder for folder in (Path.cwd(), *Path.cwd().parents) if kit_in(folder)]
    kits = [kit for _, kit in builds.values()] + kits + around
    if not kits:
        said += f"hpa_kit is neither under {inputs} nor beside this notebook; attach its dataset"
        raise FileNotFoundError(said)
    print(said, end="\n" if said else "")
    return kits[0]


if __name__ == "__main__":  # as in a notebook
    sys.path.insert(0, str(find_kit(inputs)))
    from hpa_kit import kaggle

    kaggle.bootstrap()

# %% [markdown]
# What this machine has. Each GPU is tried with a tiny operation, because a card that today's torch no longer
# supports is still reported as available.

# %%
environment = kaggle.environment_report()
print(environment)

# %% [markdown]
# The data and its folds: how many fields of each location class lie in each fold; -1 is always learnt from.
# Nothing is written yet.

# %%
import pandas as pd

from hpa_kit.classes import CLASSES, multi_hot, parse_label
from hpa_kit.config import TrainSettings
from hpa_kit.kaggle.recipes import first_network, notebook_recipe, train_by_recipe
from hpa_kit.report.learnt_cells import cells_to_learn_from
from hpa_kit.training import find_start, run_folds

data_folder = kaggle.find_competition(data, [inputs])
hours = time_limit or kaggle.session_hours(time.time() - started)
job = None
if recipe is not None:
    job = notebook_recipe(globals(), data_folder, [inputs], hours, environment.device(device))
    chosen = first_network(job)
else:
    attached_for_more = [pretrained, *settings.values()]  # such as folds_of: no run to go on from
    folder, earlier = kaggle.output_path("run", out, working), None
    if resume_from is not False:
        earlier = kaggle.find_run(resume_from, [inputs], attached_for_more)
    chosen = kaggle.notebook_settings(
        TrainSettings,
        globals(),
        data=data_folder,
        out=folder,
        resume_from=earlier,
        **({"masks": None} | cells_to_learn_from(masks, folder, earlier, settings)),
        time_limit=hours,
        device=environment.device(device, several=False),
    )
divided = run_folds(chosen)
print(f"{len(divided)} fields of {chosen.data}, {chosen.folds} folds; fold {chosen.fold} is validated on")
earlier = job.resume_from or "nothing" if job else find_start(chosen)
print(f"goes on from: {earlier}; time limit: {f'{hours:.3g} hours' if hours else 'none'}")
names = [f"{place.index} {place.name}" for place in CLASSES]
hot = pd.DataFrame(multi_hot(map(parse_label, divided["Label"])), columns=names).astype(int)
hot.groupby(divided["fold"]).sum().T

# %% [markdown]
# The cells that the network learns from: a field shows a class where one of its cells does. Label maps that
# are not given are made here and kept beside the run, which counts in the time limit; run again, it goes on.
# A recipe makes its own, later.

# %%
from PIL import Image

from hpa_kit.report.learnt_cells import cells_learnt_from, with_label_maps

if not job:
    chosen = with_label_maps(chosen, kaggle.find_cell_weights(None, [inputs]))
Image.fromarray(cells_learnt_from(chosen))

# %% [markdown]
# A batch: above the fields as they are stored, below after augmentation, as the network gets them.

# %%
from hpa_kit.report.notebook import augmented_batch

Image.fromarray(augmented_batch(chosen))

# %% [markdown]
# Training, on all GPUs: one process each, which share every batch. A run that the time limit stops is gone on
# with: attach this notebook's output (or save it as a dataset and attach that) and run again, as often as it
# takes.

# %%
from hpa_kit.report.notebook import train_on_all

chosen = train_by_recipe(job) if job else chosen.model_copy(update={"out": train_on_all(chosen)})
run = chosen.out

# %% [markdown]
# Class maps that grow: a field of each of a few classes, and where the network sees that class after some
# epochs. It is `growing.png` in the run folder.

# %%
growing = run / "growing.png"
Image.open(growing) if growing.is_file() else print("no epoch was finished, or the network has no maps")

# %% [markdown]
# The curve, from the run folder's `metrics.csv`. Then `hpa-kit kaggle weights RUN OUT` makes the members'
# dataset of the run folder; the inference notebook finds it, or the run folder itself, where it is attached.

# %%
metrics = pd.read_csv(run / "metrics.csv") if (run / "metrics.csv").is_file() else pd.DataFrame()
if len(metrics):
    metrics.plot(x="epoch", subplots=True, figsize=(8, 2 * len(metrics.columns)), marker=".")
print(f"The run lies in {run}:", *sorted(path.name for path in run.glob("*")))
metrics.tail(3)

# %% [markdown]
# The report of the run, also `report.html` in its folder: its training, and fields that it has not learnt
# from, with their cells, scores and class maps.

# %%
from hpa_kit.report.notebook import run_report

run_report(chosen) if (run / "settings.yaml").is_file() else print("no network was trained yet")
