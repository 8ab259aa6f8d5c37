"""The page of a report in a real browser: Chromium from file://, without a network."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from hpa_kit.config import ReportSettings, TrainSettings
from hpa_kit.report import write_report
from hpa_kit.report.notebook import Frame
from hpa_kit.submission import read_submission
from hpa_kit.submission.table import parse_prediction

# CHROMIUM names another browser; its sandbox cannot be had as root, nor a GPU on most machines.
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser(tmp_path_factory, patience):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no {', '.join(NAMES)} here, and CHROMIUM names none")
    with playwright.sync_playwright() as driver:
        profile = tmp_path_factory.mktemp("profile")
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=path, args=FLAGS, viewport=DESK, offline=True, timeout=1000 * patience
        )
        context.set_default_timeout(1000 * patience)
        yield context
        context.close()


@pytest.fixture(scope="module")
def report(simulated, tmp_path_factory) -> Path:
    """The submission with its truth, and an untrained member's class maps and curves."""
    from hpa_kit.training.checkpoint import BEST, write_checkpoint
    from hpa_kit.training.member import build_network

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("report")
    settings = TrainSettings(data="data", out=folder / "run", backbone="resnet10t", stride=16, size=64)
    model = build_network(settings)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    write_checkpoint(folder / "run" / BEST, settings, {"model": model.state_dict(), "epoch": 1})
    (folder / "run" / "metrics.csv").write_text("epoch,train_loss,val_loss\n1,2.0,2.5\n2,1.5,1.75\n")
    out, submission = folder / "report.html", folder / "submission.csv"
    shutil.copy(simulated.submission, submission)
    (folder / "submission_seconds.yaml").write_text(
        "reading: {seconds_per_field: 0.25, fields: 6}\nmembers: {seconds_per_field: 1, fields: 6}\n"
    )
    write_report(
        ReportSettings(
            source=submission, data=simulated.data, out=out, members=(folder / "run",), device="cpu"
        )
    )
    return out


@pytest.fixture
def page(browser, report):
    page = browser.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_viewport_size(DESK)
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    yield page
    page.close()
    assert faults == []


def test_a_notebook_shows_the_page_in_a_frame(browser, report, tmp_path):
    (tmp_path / "notebook.html").write_text(
        f"<!doctype html><p>{Frame(report)._repr_html_()}", encoding="utf-8"
    )
    page = browser.new_page()
    page.goto((tmp_path / "notebook.html").as_uri())
    inside = page.frame_locator("iframe[title=report]")
    inside.locator("#grid button").first.click()
    assert inside.locator("#viewer-name").inner_text() == inside.locator("#grid b").first.get_attribute(
        "title"
    )
    page.close()


def painted(page, selector):
    """How many different greys a canvas shows."""
    return page.evaluate(
        """selector => { const c = document.querySelector(selector);
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(d.filter((_, k) => k % 4 === 1)).size }""",
        selector,
    )


def wait_until_painted(page, selector):
    page.wait_for_function("s => document.querySelector(s)?.width > 1", arg=selector)
    assert painted(page, selector) > 20


def first_row(simulated):
    row = read_submission(simulated.submission).iloc[0]
    return row["ID"], parse_prediction(row["PredictionString"])


def test_fields_come_into_view_with_pictures_and_outlines(page):
    assert page.locator("#grid button").count() == 6
    wait_until_painted(page, "#grid canvas")
    assert page.locator("#grid li").first.locator("path").count() > 2


def test_classes_stand_as_numbers_in_small_pictures_and_below_them(page):
    """Nineteen outline colours cannot all be told apart."""
    wait_until_painted(page, "#grid canvas")
    cells = page.evaluate("record(0).c.filter(Boolean).map(cell => cell.s[0][0])")
    card = page.locator("#grid button").first
    texts = card.locator("svg text")
    assert texts.all_text_contents() == [str(first) for first in cells]
    sizes = texts.evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(sizes) > 7  # pixels
    shown = sorted(set(cells), key=lambda index: (-cells.count(index), index))
    assert card.locator(".firsts .swatch").all_inner_texts() == [str(index) for index in shown]
    names = page.evaluate("CLASSES.map(one => one.name)")
    assert card.get_attribute("aria-label").endswith(
        ": " + ", ".join(f"{cells.count(index)} {names[index]}" for index in shown)
    )
    page.uncheck("#outlines")
    page.wait_for_function("!document.querySelector('#grid svg text')")


def test_many_classes_below_a_picture_are_counted_in_a_line(page):
    page.evaluate("DATA.fields[0].f.fill(1); DATA.fields[1].f.fill(0); drawGrid()")
    cards = page.locator("#grid button")
    assert cards.nth(0).locator(".firsts").inner_text().split() == [*"012345", "+13"]
    assert cards.nth(1).locator(".firsts").count() == 0


def test_a_class_filter_keeps_the_fields_that_show_it(page):
    fields = page.evaluate("DATA.fields")
    wanted = [f["id"] for f in fields if f["f"][14] or f["t"][14]]
    assert wanted
    page.select_option("#class", "14")
    shown = page.locator("#grid .caption b").evaluate_all("all => all.map(one => one.title)")
    assert shown == wanted
    assert page.locator("#count").inner_text().startswith(f"{len(wanted)} of 6")
    page.select_option("#class", "11")
    assert page.locator("#grid button").count() == 0
    assert "choose another class" in page.locator("#grid").inner_text()
    page.evaluate("DATA.fields[2].l = [11]")  # an image label that no cell scores first
    page.select_option("#class", "14")
    page.select_option("#class", "11")
    assert page.locator("#grid .caption b").evaluate_all("all => all.map(one => one.title)") == [
        fields[2]["id"]
    ]


def test_a_click_on_a_cell_shows_its_scores_crops_and_maps(page, simulated):
    id, detections = first_row(simulated)
    page.click("#grid button >> nth=0")
    assert page.locator("#viewer-name").inner_text() == id
    page.evaluate("fit()")  # else the picture may get its size between the aim and the click
    page.locator("#shot [data-cell='0']").click(force=True)
    own = [k for k, mask in enumerate(detections.masks) if mask == detections.masks[0]]
    best = max(own, key=lambda k: detections.confidences[k])
    first = page.locator("#scores tr").first
    assert first.get_attribute("data-class") == str(detections.classes[best])
    assert first.locator("td").last.inner_text() == f"{detections.confidences[best]:.3f}"
    assert page.locator("#panel h3").all_inner_texts() == ["Crops", "Class maps"]
    wait_until_painted(page, "#panel .crops canvas")
    assert page.locator("#panel .crops").nth(1).locator("canvas").count() >= 1


def test_a_class_map_lies_over_its_field(page):
    wait_until_painted(page, "#grid canvas")
    plain = page.evaluate("document.querySelector('#grid canvas').toDataURL()")
    page.select_option("#class", "7")
    page.select_option("#overlay", "map")
    wait_until_painted(page, "#grid canvas")
    page.wait_for_function("old => document.querySelector('#grid canvas').toDataURL() !== old", arg=plain)


def test_everything_can_be_reached_with_the_keyboard(page):
    page.locator("#grid button").first.focus()
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.dataset.place")
    assert second == "1"
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('viewer').open")
    page.keyboard.press("ArrowDown")
    assert page.locator("#cell-name").inner_text() == "Cell 1"
    page.keyboard.press("ArrowDown")
    assert page.locator("#cell-name").inner_text() == "Cell 2"
    page.keyboard.press("Escape")
    assert page.locator("#cell-name").count() == 0
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-name").inner_text() == page.evaluate("DATA.fields[2].id")
    page.locator("#shot [data-cell]").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#cell-name").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('viewer').open")
    assert page.evaluate("document.activeElement.dataset.place") == "1"


def test_tabs_show_figures_confusion_errors_and_training(page):
    page.click("#tab-classes")
    cards = page.locator("#panel-classes .card")
    assert cards.count() == 1 + page.evaluate("DATA.evidence.classes.filter(one => one.truth).length")
    assert cards.nth(1).locator(".curve").first.get_attribute("d").startswith("M")
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-confusion .same").count() > 2
    page.click("#tab-errors")
    assert page.locator(".errors li").count() > 0
    page.locator(".errors button").first.click()
    assert page.locator("#cell-name").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.click("#tab-training")
    assert page.locator("#panel-training .curve").count() == 2
    page.click("#tab-runs")
    assert "best.safetensors" in page.locator("#panel-runs").inner_text()
    rows = page.locator("#inference tbody tr")
    assert [text.split() for text in rows.all_inner_texts()] == [
        ["reading", "0.250", "s", "6"],
        ["members", "1.000", "s", "6"],
    ]
    bars = rows.locator(".track i").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert bars[0] == pytest.approx(bars[1] / 4, abs=1)


def test_a_phone_needs_no_sideways_scrolling(page):
    page.set_viewport_size(PHONE)
    for tab in ("classes", "confusion", "errors", "training", "runs", "fields"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.click("#grid button >> nth=0")
    page.locator("#panel .cells button").first.click()
    assert page.locator("#scores tr").first.is_visible()
    assert page.evaluate("document.getElementById('viewer').scrollWidth") <= PHONE["width"]
