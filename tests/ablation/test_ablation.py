"""An ablation: which commands it runs, that none is run twice, and what it says in the end."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hpa_kit.ablation import ablation
from hpa_kit.ablation.classifiers import AblationPlan, plan_classifiers
from hpa_kit.ablation.scores import image_map, mean_average_precision
from hpa_kit.ablation.table import mean_and_spread
from hpa_kit.cli import main
from hpa_kit.config import AblationSettings, make_settings
from hpa_kit.config.ablation import VARIANT_GROUPS
from hpa_kit.errors import InputError
from hpa_kit.submission import write_submission


def planned(settings):
    plan = AblationPlan(settings)
    plan_classifiers(plan)
    return list(plan.steps.values())


def option(words, name):
    return words[words.index(name) + 1]


def test_a_step_comes_after_those_it_needs_and_only_once(settings):
    steps = planned(settings(seeds="0,1", variants="classifiers,longer,round1_fresh"))
    outs = [str(step.out) for step in steps]
    assert len(set(outs)) == len(outs)
    for number, step in enumerate(steps):
        for word in step.command[:-1]:
            assert word not in outs or outs.index(word) < number, (step.command, word)
    trained = [step.out.name for step in steps if step.command[0] == "train"]
    assert trained == ["round0", "longer", "round1", "round1_fresh", "puzzle", "both"] * 2
    assert sum(step.command[0] == "features" for step in steps) == 2
    assert sum(step.command[0] == "infer" for step in steps) == 2 * 6 * 3


def test_variants_differ_in_what_their_names_say_and_in_nothing_else(settings):
    steps = planned(settings(variants="classifiers,longer,round1_fresh"))
    extra = {}
    for step in steps:
        if step.command[0] == "train":
            words = step.command[step.command.index("--device") + 2 : -2]
            extra[step.out.name] = [word for word in words if word.startswith("--")]
    assert extra == {
        "round0": [],
        "longer": ["--warm-start"],
        "round1": ["--warm-start", "--round", "--subcategories"],
        "round1_fresh": ["--round", "--subcategories"],
        "puzzle": ["--puzzle"],
        "both": ["--warm-start", "--round", "--subcategories", "--puzzle"],
    }


def test_round_0_is_trained_for_variants_that_need_it_even_where_it_is_no_variant(settings):
    steps = planned(settings(variants="round1", rules="copied"))
    assert [step.command[0] for step in steps] == ["train", "features", "subcategories", "train", "infer"]


def test_variants_are_named_one_by_one_or_in_groups(settings):
    assert settings().variants == ("round0", "round1", "puzzle", "both")
    assert settings(variants="both,round0,both").variants == ("round0", "both")
    assert settings(variants="all").variants == VARIANT_GROUPS["all"]
    assert settings(seeds="3,1,3").seeds == (3, 1)
    with pytest.raises(InputError, match=r"variants: there is no variant 'puzzel'; did you mean 'puzzle'\?"):
        make_settings(AblationSettings, {"data": "d", "out": "o", "variants": "puzzel"})
    for name in ("variants", "seeds", "rules"):
        with pytest.raises(InputError, match=name):
            make_settings(AblationSettings, {"data": "d", "out": "o", name: ()})


def test_the_table_holds_every_seed_and_the_files_every_number(settings, commands, capsys):
    chosen = settings(seeds="0,1", variants="round0,puzzle", rules="mean_logit")
    path = ablation(chosen, commands)
    header, _, first, second = path.read_text().splitlines()
    assert header == "| classifier, true cells | image mAP | cells: image scores copied | cells: mean logit |"
    # Cells: class 0 is found in b first and 7 where it is, 18 never. Images: a and b are not told apart.
    numbers = " | ".join(["0.500 ± 0.000 (0.500, 0.500)"] * 3)
    assert (first, second) == (f"| round 0 | {numbers} |", f"| Puzzle-CAM | {numbers} |")
    results = pd.read_csv(chosen.out / "results.csv")
    assert len(results) == 2 * 2 * 3
    assert set(results["measure"]) == {"image mAP", "copied", "mean_logit"}
    assert path.read_text() in capsys.readouterr().out


def test_a_finished_step_is_not_done_again_and_one_whose_output_is_gone_is(settings, commands, capsys):
    chosen = settings(variants="round0", rules="mean_logit")
    table = ablation(chosen, commands).read_text()
    assert len(commands.commands) == 3
    assert ablation(chosen, commands).read_text() == table
    assert len(commands.commands) == 3
    (chosen.out / "seed0" / "submissions" / "round0_true_mean_logit.csv").unlink()
    assert ablation(chosen, commands).read_text() == table
    assert len(commands.commands) == 4 and commands.commands[-1][0] == "infer"
    (chosen.out / "results.csv").unlink()
    assert ablation(chosen, commands).read_text() == table
    assert len(commands.commands) == 4


def test_an_ablation_goes_on_with_more_seeds_and_variants_but_not_with_other_settings(settings, commands):
    ablation(settings(variants="round0", rules="mean_logit"), commands)
    with pytest.raises(
        InputError, match=r"started with epochs 12 \(now 3\), k 10 \(now 2\); give these again"
    ):
        ablation(settings(variants="round0", rules="mean_logit", epochs=3, k=2), commands)
    assert len(commands.commands) == 3
    ablation(settings(variants="round0", rules="mean_logit", seeds="0,1"), commands)
    assert len(commands.commands) == 6


def test_a_folder_that_was_begun_when_variants_were_called_rungs_is_gone_on_with(settings, commands):
    chosen = settings(variants="round0", rules="mean_logit")
    ablation(chosen, commands)
    for name, old_name in (("ablation.yaml", "ladder.yaml"), ("results.csv", "results.csv")):
        text = (chosen.out / name).read_text()
        (chosen.out / name).unlink()
        (chosen.out / old_name).write_text(text.replace("variant", "rung"))
    done = len(commands.commands)
    with pytest.raises(InputError, match=r"started with epochs 12 \(now 3\)"):
        ablation(settings(variants="round0", rules="mean_logit", epochs=3), commands)
    ablation(chosen, commands)
    assert len(commands.commands) == done
    assert (chosen.out / "ablation.yaml").is_file()
    assert (chosen.out / "results.csv").read_text().startswith("rung,")
    (chosen.out / "results.csv").write_text("seed,masks,measure,value\n")
    with pytest.raises(InputError, match="has no column variant"):
        ablation(chosen, commands)


def test_the_old_words_end_in_one_line_that_names_the_new_one(tmp_path, capsys):
    assert main(["ladder", "fields", "--out", "ladder"]) == 2
    assert capsys.readouterr().err == "hpa-kit: the command ladder is called ablation now\n"
    assert main(["ablation", "fields", "--out", "ladder", "--rungs", "round0"]) == 2
    assert capsys.readouterr().err == "hpa-kit: hpa-kit ablation: setting 'rungs' is called 'variants' now\n"
    (tmp_path / "old.yaml").write_text("rungs: [round0]\n")
    assert main(["ablation", "fields", "--config", str(tmp_path / "old.yaml")]) == 2
    assert "setting 'rungs' is called 'variants' now" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ablation", "--help"])
    assert "rungs" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["truth.csv", "train.csv", "test/a_red.png", "masks/a.npz"])
def test_an_ablation_does_not_go_on_with_other_fields_tables_or_label_maps(settings, commands, data, name):
    """Its finished steps would be taken for steps on what is there now."""
    for file in ("test/a_red.png", "masks/a.npz"):
        (data / file).write_bytes(b"1")
    chosen = settings(variants="round0", rules="copied")
    before = ablation(chosen, commands).read_text()
    done = len(commands.commands)
    ablation(settings(variants="round0", rules="copied,best"), commands)
    assert len(commands.commands) == done + 1
    (data / name).write_bytes((data / name).read_bytes() + b"\n")
    with pytest.raises(InputError, match="was started on other fields, tables or label maps"):
        ablation(chosen, commands)
    assert len(commands.commands) == done + 1
    (chosen.out / "made_from.txt").unlink()  # as an older version leaves it
    assert ablation(chosen, commands).read_text() == before


def test_a_step_that_fails_ends_the_ablation_which_goes_on_from_there(settings, commands):
    chosen = settings(variants="round0,round1", rules="mean_logit")
    commands.failing = "features"
    with pytest.raises(InputError, match="ablation: the step features failed"):
        ablation(chosen, commands)
    assert [words[0] for words in commands.commands] == ["train", "infer", "infer", "features"]
    commands.commands.clear()
    commands.failing = None
    ablation(chosen, commands)
    assert [words[0] for words in commands.commands] == [
        "features",
        "subcategories",
        "train",
        "infer",
        "infer",
    ]


def test_what_is_left_is_told_from_steps_of_the_same_kind(settings, commands, capsys, clock, monkeypatch):
    """A training takes an hour, an inference half as long."""
    for module in ("hpa_kit.script", "hpa_kit.ablation.run"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=clock))

    def slow(words):
        clock.seconds += {"train": 3600, "infer": 1800}[words[0]]
        return commands(words)

    ablation(settings(seeds="0,1", variants="round0", rules="mean_logit"), slow)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert lines[0] == "[1/6] train round0, seed 0, fold 0; 0 s so far"
    assert lines[1].endswith("; 60 min so far, about 60 min left and 4 steps of new kinds")
    assert lines[2].endswith("; 90 min so far, about 2.5 h left")


@pytest.mark.parametrize("lacking", ["truth.csv", "train.csv", "test", "masks"])
def test_what_data_lack_is_said_before_anything_is_trained(settings, commands, data, lacking):
    path = data / lacking
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=lacking):
        ablation(settings(), commands)
    assert commands.commands == []


def test_true_masks_may_lie_elsewhere(settings, commands, data, tmp_path):
    (data / "masks").rename(tmp_path / "elsewhere")
    ablation(settings(masks=tmp_path / "elsewhere", variants="round0"), commands)
    assert {option(words, "--masks") for words in commands.named("infer")} == {str(tmp_path / "elsewhere")}


@pytest.mark.parametrize(
    ("name", "text"), [("steps.csv", "command,seconds\ntrain,x\n"), ("results.csv", "a,b\n")]
)
def test_damaged_files_of_an_earlier_ablation_are_named(settings, commands, name, text):
    chosen = settings()
    chosen.out.mkdir()
    (chosen.out / name).write_text(text)
    with pytest.raises(InputError, match=name):
        ablation(chosen, commands)


def test_image_scores_are_measured_by_what_the_cells_of_a_field_show(tmp_path, mask):
    truth = [
        ("a", 8, 6, f"0 {mask(0)} 18 {mask(1)}"),
        ("b", 8, 6, f"18 {mask(0)}"),
        ("c", 8, 6, f"0 {mask(0)}"),
    ]
    found = [
        ("a", 8, 6, f"0 0.9 {mask(0)} 18 0.8 {mask(0)}"),
        ("b", 8, 6, f"0 0.5 {mask(0)} 18 0.9 {mask(0)}"),
    ]
    write_submission(tmp_path / "truth.csv", truth)
    write_submission(tmp_path / "found.csv", found)
    # Class 0: a is right, b wrong, c (no row: score 0) right: precision 1 and 2/3. Class 18: only b shows it.
    expected = ((1 + 2 / 3) / 2 + 1) / 2
    assert image_map(tmp_path / "truth.csv", tmp_path / "found.csv") == pytest.approx(expected)
    write_submission(tmp_path / "empty.csv", [("a", 8, 6, "")])
    with pytest.raises(InputError, match="nothing to score"):
        image_map(tmp_path / "empty.csv", tmp_path / "found.csv")


def test_classes_that_no_field_shows_are_left_out_of_the_mean():
    shown = np.array([[1, 0], [0, 0]], dtype=bool)
    assert mean_average_precision(shown, np.array([[0.9, 0.1], [0.2, 0.8]])) == 1


def test_the_spread_is_that_of_a_sample_and_one_seed_has_none():
    assert mean_and_spread([0.5, 0.6]) == "0.550 ± 0.071 (0.500, 0.600)"
    assert (mean_and_spread([0.5]), mean_and_spread([])) == ("0.500", "–")


def test_the_ablation_of_classifiers_runs_on_simulated_fields(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "ablation"
    simulated = ["simulate", str(data), "--train", "12", "--test", "4", "--size", "64", "--classes", "0,7"]
    assert main([*simulated, "--workers", "1"]) == 0
    words = ["ablation", str(data), "--seeds", "0", "--out", str(out), "--variants", "round0,both"]
    words += ["--rules", "copied", "--size", "32", "--backbone", "test_resnet"]
    words += ["--epochs", "1", "--folds", "2"]
    assert main(words) == 0
    results = pd.read_csv(out / "results.csv")
    assert results["variant"].unique().tolist() == ["round0", "both"]
    assert len(results) == 2 * 2 and results["value"].between(0, 1).all()
    capsys.readouterr()
    assert main(words) == 0
    assert "$ hpa-kit" not in capsys.readouterr().out
