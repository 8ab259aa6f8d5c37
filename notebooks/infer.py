# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Cell scores for the test fields
#
# Cells are found, members' class maps are laid over them, and each cell gets a confidence per location class
# and its mask: `submission.csv`. Attach the competition, the `hpa-kit` dataset and your members. It is
# `hpa-kit infer` step by step; every variable here is an option of that command and may be set by papermill.

# %% tags=["parameters"]
inputs = "/kaggle/input"  # where attached data lies
working = "/kaggle/working"  # where results go
data = None  # competition folder; None looks for it under inputs
ensemble = None  # YAML of members; None looks for ensemble.yaml under inputs
members = None  # run folders or checkpoints in its place; None looks for best.safetensors where no YAML is
out = None  # submission CSV; None is working/submission.csv
split = "test"
masks = None  # folder of label maps (.npz, .png, .npy, .tif); None: the YAML's, else cells are found here
segmenter = None  # who finds them; None: the YAML's, else published with cell networks, classical without
weights = None  # folder of the published cell networks; None: the YAML's, else it is looked for under inputs
rule = None  # how a cell's confidence is formed, such as "cam_share"; None: the YAML's, else best
views = None  # test-time views of each field by members, such as "none"; None: the YAML's, else flips
budget = 8.5  # hours; what does not fit is given up in an order that is said
batch = 8
workers = 2
device = "auto"
settings = {}  # any other option of `hpa-kit infer`, such as {"map_size": 256}

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
# What goes in: the competition as it is mounted now, and what else is attached. **An interactive session and
# a saved run cover the 559 public rows only.** When Kaggle scores the notebook it runs it again with the
# larger hidden test set in their place, and the rows are those of the sample file beside it. The last line
# says what will be used: a variable above that is not None wins over what the ensemble's YAML says.

# %%
from hpa_kit.config import InferSettings
from hpa_kit.data import DataFolder
from hpa_kit.inference import summary_line

found_ensemble = ensemble if members else kaggle.find_ensemble(ensemble, [inputs])
chosen = kaggle.notebook_settings(
    InferSettings,
    globals(),
    data=kaggle.find_competition(data, [inputs]),
    ensemble=found_ensemble,
    members=None if found_ensemble else kaggle.find_members(members, [inputs]),
    weights=kaggle.find_cell_weights(weights, [inputs], found_ensemble),
    out=kaggle.output_path("submission.csv", out, working),
    device=environment.device(device),
    spent=(time.time() - started) / 3600,
)
fields = DataFolder(chosen.data).fields(chosen.split)
print(f"{kaggle.run_kind()}: {len(fields.ids)} fields in {chosen.data}")
print(f"{len(fields.missing)} of them have no image, {len(fields.extra)} images have no row")
print("uses", summary_line(chosen))

# %% [markdown]
# A first look, before the long run: the cells of a few fields and those scored highest. Nobody sees it when
# Kaggle scores the notebook, so it takes no time there.

# %%
from PIL import Image

from hpa_kit.report.notebook import first_look

scoring = "scoring" in kaggle.run_kind()
sheet = None if scoring else first_look(chosen)
Image.fromarray(sheet) if sheet is not None else None

# %% [markdown]
# Inference, field by field: cells, class maps, cell scores, masks.

# %%
from hpa_kit.inference import infer

gone = max(chosen.spent, (time.time() - started) / 3600)
submission = infer(chosen.model_copy(update={"spent": gone}))

# %% [markdown]
# The check finds what Kaggle would reject, against the sample file that is mounted now.

# %%
from hpa_kit.submission import check_submission

sample = DataFolder(chosen.data).sample()
faults = check_submission(submission, sample) if sample and chosen.split == "test" else []
print(*faults, sep="\n")
print(f"{submission}: {len(faults)} faults" if sample else f"{submission}: no sample file to check against")

# %% [markdown]
# The report of some fields, also `report.html` beside the submission: cells, their scores and class maps, the
# members' training. Nobody sees it when Kaggle scores the notebook, so it is not made there.

# %%
from hpa_kit.report.notebook import submission_report

None if scoring else submission_report(chosen, submission)
