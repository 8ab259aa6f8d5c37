"""A recipe goes on where it was, does again what has changed and nothing else, and stops in time."""

import json
import shutil
from types import SimpleNamespace

import pytest
from fake_children import ALL, RECIPE

from hpa_kit import __version__
from hpa_kit.config import read_ensemble
from hpa_kit.errors import InputError
from hpa_kit.recipe import STATE, carry_out, read_state
from hpa_kit.recipe.forecast import plan_text
from hpa_kit.recipe.stages import read_recipe
from hpa_kit.resume import TIMELESS


def test_every_step_is_done_once_and_the_state_says_so(settings, children, capsys):
    state = carry_out(settings())
    assert children.names == ALL
    assert state.finished and state.left == () and state.sessions == 1 and state.problem is None
    told = json.loads((settings().out / STATE).read_text())
    assert told["finished"] and told["recipe"] == "two" and len(told["done"]) == 8 and told["hours_left"] == 0
    said = capsys.readouterr().out
    assert "$ hpa-kit segment" in said and "[cam fold 1] makes cam_fold1" in said
    carry_out(settings())
    assert children.names == ALL and read_state(settings().out).sessions == 2


def test_what_has_a_file_per_field_is_packed(settings, children):
    carry_out(settings())
    assert [name for name, words, *_ in children.started if "--pack" in words] == ["label_maps", "soft"]


def test_networks_train_side_by_side_one_per_device_and_on_all_where_one_is_left(settings, children):
    one_fold = RECIPE.replace("epochs: 1}\n    folds: all", "epochs: 1}\n    folds: [1]")
    carry_out(settings(one_fold, device="cuda:0,cuda:1"))
    shown = {name: (environment.get("CUDA_VISIBLE_DEVICES"), processes)
             for name, _, environment, processes in children.started}  # fmt: skip
    assert shown["cam_fold0"] == ("0", 1) and shown["cam_fold1"] == ("1", 1)
    assert shown["crops_fold1"] == ("0,1", 2)
    assert shown["label_maps"] == ("", 1)
    words = children.words("cam_fold0")
    assert words[words.index("--device") + 1] == "auto"


def test_side_by_side_processes_share_processors_and_memory(settings, children, monkeypatch):
    monkeypatch.setattr("hpa_kit.recipe.run.cpus", lambda: 4)
    carry_out(settings(parallel=2))
    for name in ("cam_fold0", "cam_fold1"):
        _, words, environment, _ = next(one for one in children.started if one[0] == name)
        assert words[words.index("--workers") + 1] == "1"
        assert environment["OMP_NUM_THREADS"] == "2" and environment["HPA_KIT_MEMORY_SHARES"] == "3"


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("epochs: 1}", "epochs: 2}", ["crops_fold0", "crops_fold1", "ensemble", "members"]),
        ("labels: soft}", "labels: soft, floor: 0.25}", ALL[3:]),
        ("weight: 3", "weight: 1", ["ensemble", "members"]),
        ("{split: train}", "{split: train, segmenter: classical}", ALL),
        ("about: two", "about: more", []),
        ("epochs: 3", "epochs: 3, workers: 1, store: $scratch/store, time_limit: 3", []),
    ],
)  # fmt: skip
def test_a_changed_stage_is_done_again_with_what_depends_on_it(settings, children, old, new, again):
    carry_out(settings())
    children.started.clear()
    carry_out(settings(RECIPE.replace(old, new)))
    assert children.names == again
    children.started.clear()
    carry_out(settings())  # what it was before was kept
    assert children.names == []


def test_other_tables_do_all_again_and_another_place_of_the_same_none(settings, children, data, tmp_path):
    carry_out(settings())
    children.started.clear()
    moved = shutil.copytree(data, tmp_path / "moved")
    carry_out(settings(data=moved))
    assert children.names == []
    (moved / "train.csv").write_text("ID,Label\nx,1\n")
    carry_out(settings(data=moved))
    assert children.names == ALL


def test_a_result_that_is_gone_is_made_again(settings, children):
    carry_out(settings())
    (settings().out / "ensemble.yaml").unlink()
    children.started.clear()
    carry_out(settings())
    assert children.names == ["ensemble"]


def test_an_ensemble_is_written_once_its_members_are_all_there(settings, children):
    children.how = {"crops_fold0": "fails"}
    with pytest.raises(InputError):
        carry_out(settings())
    assert not (settings().out / "untuned.yaml").exists()
    children.how = {}
    carry_out(settings())
    members = read_ensemble(settings().out / "untuned.yaml").members
    assert [member.checkpoint.name for member in members] == [
        "cam_fold0",
        "cam_fold1",
        "crops_fold0",
        "crops_fold1",
    ]


def test_where_a_step_fails_what_does_not_need_it_is_done(settings, children):
    children.how = {"crops_fold0": "fails"}
    with pytest.raises(
        InputError, match=r"recipe: crops fold 0 failed \(status 1; what it said stands above"
    ):
        carry_out(settings())
    assert children.names == ALL[:6]
    state = read_state(settings().out)
    assert state.problem.startswith("crops fold 0 failed") and state.left == (
        "crops fold 0",
        "ensemble",
        "members",
    )
    children.how, children.started = {}, []
    assert carry_out(settings()).finished
    assert (
        children.names == ["crops_fold0", "ensemble", "members"]
        and read_state(settings().out).problem is None
    )


class Clock:
    """Stands still, but for what children take."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_session_ends_in_time_and_the_next_goes_on(settings, children, capsys):
    clock = Clock()

    def half_an_hour(name):
        clock.seconds += 1800

    children.while_running = half_an_hour
    children.how = {"cam_fold1": 2}  # it stops by itself, of three epochs two are done
    state = carry_out(settings(time_limit=2), clock)
    assert children.names == ["label_maps", "cam_fold0", "cam_fold1"] and not state.finished
    assert state.left[0] == "cam fold 1" and state.hours_spent == pytest.approx(1.5)
    assert "it goes on in the next session" in capsys.readouterr().out
    limits = [float(words[words.index("--time-limit") + 1]) for _, words, *_ in children.started[1:]]
    assert limits == [pytest.approx(1.45), pytest.approx(0.95)]  # three minutes stay for the end
    children.how, children.started = {}, []
    state = carry_out(settings(time_limit=9), clock)
    assert children.names == ALL[2:] and state.finished and state.sessions == 2


def test_what_knows_no_time_limit_is_interrupted_and_goes_on(settings, children):
    clock = Clock()

    def hours(name):
        clock.seconds += 3 * 3600 if name == "soft" else 1

    children.while_running, children.how = hours, {"soft": "stays"}
    state = carry_out(settings(time_limit=2), clock)
    assert state.left[0] == "soft" and state.problem is None
    children.how, children.started = {}, []
    assert carry_out(settings(time_limit=4), clock).finished
    assert children.names == ALL[3:]


def test_a_network_that_fails_while_others_are_asked_to_end_has_failed(settings, children):
    clock = Clock()

    def both_end(name):
        if name == "cam_fold1":
            clock.seconds += 3 * 3600

    children.while_running = both_end
    children.how = {"cam_fold0": "stays", "cam_fold1": "fails"}
    with pytest.raises(InputError, match=r"cam fold 1 failed \(status 1"):
        carry_out(settings(time_limit=2, parallel=2), clock)
    assert read_state(settings().out).left[0] == "cam fold 0"


def test_an_earlier_session_is_taken_over_wherever_it_lies_and_only_read(settings, children, tmp_path):
    children.how = {"soft": "fails"}
    with pytest.raises(InputError):
        carry_out(settings())
    earlier = tmp_path / "input" / "some-notebook"
    shutil.move(settings().out, earlier)
    (earlier / "scratch").mkdir()
    (earlier / "scratch" / "large").write_text("of no use")
    before = sorted((path, path.stat().st_mtime_ns) for path in earlier.rglob("*"))
    children.how, children.started = {}, []
    state = carry_out(settings(resume_from=earlier, past_expected=True))
    assert children.names == ALL[3:] and state.finished and state.sessions == 2
    assert before == sorted((path, path.stat().st_mtime_ns) for path in earlier.rglob("*"))
    assert not (settings().out / "scratch").exists()
    children.started.clear()
    assert carry_out(settings(resume_from=earlier)).finished and not children.started


def test_where_an_earlier_session_was_expected_nothing_begins_anew(settings, children, tmp_path):
    with pytest.raises(
        InputError, match="an earlier session was expected, and no recipe_state.json was found"
    ):
        carry_out(settings(past_expected=True))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no recipe_state.json"):
        carry_out(settings(resume_from=tmp_path / "empty"))
    assert not children.started


def test_a_damaged_state_is_told_and_nothing_is_lost(settings, children):
    carry_out(settings())
    (settings().out / STATE).write_text('{"recipe": "two"')
    with pytest.raises(
        InputError, match=r"recipe_state.json is damaged .*delete it, and the results beside it"
    ):
        carry_out(settings())
    assert (settings().out / "cam_fold0").is_dir()


def test_stages_are_left_out_to_fit_the_hours_as_far_as_these_are_known(settings, children, capsys):
    clock = Clock()

    def an_hour(name):
        clock.seconds += 3600

    children.while_running, children.how = an_hour, {"crops_fold1": "fails"}
    with pytest.raises(InputError):
        carry_out(settings(hours=5), clock)
    assert "not in the 5 h, as never measured: label_maps, cam, soft, crops, ens" in capsys.readouterr().err
    children.how, children.started = {}, []
    state = carry_out(settings(hours=5), clock)
    assert "6 h are expected, 5 are to be taken: without crops" in capsys.readouterr().err
    assert children.names == ["ensemble", "members"] and state.finished
    children.started = []
    assert carry_out(settings(), clock).finished
    assert children.names == ["crops_fold1", "ensemble", "members"]


def test_the_plan_says_what_was_measured_and_does_nothing(settings, children, capsys):
    clock = Clock()

    def an_hour(name):
        clock.seconds += 3600

    children.while_running = an_hour
    carry_out(settings(), clock)
    capsys.readouterr()
    children.started.clear()
    carry_out(settings(plan=True))
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "2 of 2" in rows["cam"] and "2.0 h" in rows["cam"] and "MB" in rows["cam"] and not children.started
    assert "8.0 h" in plan_text(read_recipe(settings().recipe), settings()).splitlines()[-1]


def test_the_plan_without_data_says_what_is_done_in_the_folder(settings, children):
    carry_out(settings())
    there = plan_text(read_recipe(settings().recipe), settings(data=None)).splitlines()
    rows = {line.split()[0]: line for line in there if line.strip()}
    assert "2 of 2" in rows["cam"] and "MB" in rows["cam"] and "unknown" not in there[-1]
    path = settings().out / STATE
    path.write_text(path.read_text().replace('"recipe": "two"', '"recipe": "another"'))
    assert "0 of 2" in plan_text(read_recipe(settings().recipe), settings(data=None))


def test_what_another_version_of_the_kit_has_half_labelled_is_labelled_anew_and_networks_go_on(
    settings, children, capsys
):
    out = settings().out

    def half(name):
        if name in ("soft", "cam_fold1"):
            (out / name).mkdir(exist_ok=True)
            (out / name / "half").touch()

    children.while_running, children.how = half, {"cam_fold1": 2}
    carry_out(settings())
    children.how = {"soft": "fails"}
    with pytest.raises(InputError):
        carry_out(settings())
    assert (out / "soft" / "half").exists()
    path = out / STATE
    path.write_text(path.read_text().replace(f'"{__version__}"', '"0.0"'))
    children.how, children.started, children.while_running = {}, [], lambda name: None
    assert carry_out(settings()).finished
    assert not (out / "soft" / "half").exists() and (out / "cam_fold1" / "half").exists()
    said = [line for line in capsys.readouterr().err.splitlines() if "begins anew" in line]
    assert said == [f"recipe: soft begins anew: hpa-kit 0.0 had begun it, now {__version__} runs"]


def test_what_tune_has_worked_out_goes_along_as_one_file_and_images_are_known_without_their_times(
    settings, children, tmp_path
):
    scratch, clock = tmp_path / "scratch", Clock()
    evidence = scratch / "ensemble_evidence"

    def work_out(name):
        if name == "ensemble":
            evidence.mkdir(parents=True, exist_ok=True)
            (evidence / "a.npz").write_bytes(b"of a field")
            clock.seconds += 9 * 3600

    children.while_running, children.how = work_out, {"ensemble": "stays"}
    assert not carry_out(settings(scratch=scratch, time_limit=2), clock).finished
    assert {environment[TIMELESS] for _, _, environment, _ in children.started} == {"1"}
    shutil.rmtree(scratch)
    here = settings(scratch=tmp_path / "elsewhere", out=tmp_path / "next", resume_from=settings().out)
    found = []
    children.while_running = lambda name: found.extend((tmp_path / "elsewhere").rglob("*.npz"))
    children.how, children.started = {}, []
    assert carry_out(here).finished and children.names == ["ensemble", "members"]
    assert found[0].read_bytes() == b"of a field" and found[0].parent.name == "ensemble_evidence"
    assert not list((tmp_path / "next").glob("*_kept.zip"))


def test_what_a_changed_stage_was_before_goes_along_to_the_next_session(settings, children, tmp_path):
    carry_out(settings())
    changed = RECIPE.replace("weight: 3", "weight: 1")
    carry_out(settings(changed))
    children.started = []
    carry_out(settings(out=tmp_path / "next", resume_from=settings().out))
    assert children.names == []


def test_earlier_results_stay_where_they_are_if_the_disk_has_no_room(
    settings, children, tmp_path, monkeypatch, capsys
):
    carry_out(settings())
    carry_out(settings(RECIPE.replace("weight: 3", "weight: 1")))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    children.started = []
    carry_out(settings(out=tmp_path / "next", resume_from=settings().out))
    assert children.names == ["ensemble", "members"]
    assert "earlier stays there" in capsys.readouterr().err


def test_two_processes_do_not_do_one_recipe_at_a_time(settings, children, tmp_path):
    from hpa_kit.locks import locked
    from hpa_kit.recipe.state import LOCK

    settings().out.mkdir()
    with locked(settings().out / LOCK), pytest.raises(InputError, match=r"recipe\.lock is in use"):
        carry_out(settings())


class Killed(BaseException):
    """Nothing is written after it."""


def test_killed_before_any_write_of_its_state_it_goes_on_and_repeats_only_what_was_under_way(
    settings, children, monkeypatch
):
    from hpa_kit.recipe import run as running

    whole, writes = running.write_state, []
    monkeypatch.setattr(running, "write_state", lambda *words: (writes.append(1), whole(*words)))
    carry_out(settings())
    lost = 0
    for place in range(len(writes)):
        shutil.rmtree(settings().out)
        children.started, count = [], iter(range(10**6))

        def write(*words, place=place, count=count):
            if next(count) >= place:
                raise Killed
            whole(*words)

        monkeypatch.setattr(running, "write_state", write)
        with pytest.raises(Killed):
            carry_out(settings())
        monkeypatch.setattr(running, "write_state", whole)
        assert carry_out(settings()).finished
        assert set(children.names) == set(ALL) and len(children.names) <= len(ALL) + 1
        lost += len(children.names) - len(ALL)
    assert lost > 0


def test_a_session_without_an_input_that_the_ones_before_had_is_refused(settings, children, tmp_path):
    (tmp_path / "cells").mkdir()
    text = RECIPE.replace("{split: train}", "{split: train, weights: $weights}")
    carry_out(settings(text, inputs={"weights": tmp_path / "cells"}))
    children.started = []
    with pytest.raises(InputError, match="the sessions before had the input weights, which is missing now"):
        carry_out(settings(text))
    moved = shutil.copytree(tmp_path / "cells", tmp_path / "elsewhere")
    carry_out(settings(text, inputs={"weights": moved}))
    assert not children.started


def test_a_further_session_replaces_what_lies_in_the_folder_though_it_is_as_large(
    settings, children, tmp_path
):
    carry_out(settings())
    earlier = shutil.copytree(settings().out, tmp_path / "earlier")
    (settings().out / "soft" / "made").write_text(
        (earlier / "soft" / "made").read_text().swapcase()  # of the same size
    )
    path = earlier / STATE
    path.write_text(path.read_text().replace('"hours_spent": 0', '"hours_spent": 9'))
    carry_out(settings(resume_from=earlier))
    assert (settings().out / "soft" / "made").read_bytes() == (earlier / "soft" / "made").read_bytes()


def test_several_networks_on_two_devices_are_shared_out(settings, children):
    carry_out(settings(device="cuda:0,cuda:1", parallel=4))
    shown = {name: environment["CUDA_VISIBLE_DEVICES"] for name, _, environment, _ in children.started}
    assert (
        {shown["cam_fold0"], shown["cam_fold1"]} == {"0", "1"} == {shown["crops_fold0"], shown["crops_fold1"]}
    )


def test_a_run_without_a_checkpoint_that_can_be_read_has_failed_and_the_others_go_on(settings, children):
    children.how = {"cam_fold0": "nothing"}
    with pytest.raises(InputError, match=r"cam fold 0 failed \(checkpoint: .*is missing"):
        carry_out(settings())
    assert children.names == ALL[:3] and "cam fold 1" in read_state(settings().out).done
