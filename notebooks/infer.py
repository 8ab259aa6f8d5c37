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
masks = None  # folder of ID.npz or ID.png label maps; None: the YAML's, else cells are found here
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
# lies in. What it needs and the image lacks is installed from the dataset's wheels, without a network.

# %%
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

started = time.time()


def find_kit(inputs):
    """The folder that holds hpa_kit: attached (at any depth, or still a zip), else the checkout."""
    level = [Path(inputs)] if Path(inputs).is_dir() else []
    damaged = []
    while level:
        for folder in level:
            if (folder / "hpa_kit" / "__init__.py").is_file():
                return folder
            for path in filter(Path.is_file, sorted(folder.glob("hpa*kit*.zip"))):
                try:
                    with zipfile.ZipFile(path) as bundle:
                        if "hpa_kit/__init__.py" in bundle.namelist():
                            unpacked = tempfile.mkdtemp(prefix="hpa-kit-")
                            bundle.extractall(unpacked)
                            return Path(unpacked)
                except zipfile.BadZipFile as error:
                    damaged.append(f"{path} is damaged ({error}): upload the bundle again; ")
        inside = [folder for folder in level if folder.name not in ("train", "test")]
        level = sorted(
            Path(entry.path) for folder in inside for entry in os.scandir(folder) if entry.is_dir()
        )
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "hpa_kit" / "__init__.py").is_file():
            return folder
    nowhere = f"hpa_kit is neither under {inputs} nor beside this notebook; attach its dataset"
    raise FileNotFoundError("".join(damaged) + nowhere)


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
# What goes in: the competition as it is mounted now, and what else is attached. **A public run covers the 559
# public rows only.** When Kaggle scores the notebook it runs it again with the larger hidden test set in
# their place, and the rows are those of the sample file beside it. The last line says what will be used: a
# variable above that is not None wins over what the ensemble's YAML says.

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
from hpa_kit.report.frame import submission_report

None if scoring else submission_report(chosen, submission)
