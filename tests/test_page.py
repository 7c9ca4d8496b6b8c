"""The page in a browser: Chromium, headless."""

import shutil
from collections.abc import Iterator

import pytest
from handmade import groups, scores, study_of, write_record
from playwright.sync_api import Page, sync_playwright

from mnist_imbalance.report.write import write_report

CHROMIUM = shutil.which("chromium")
DRAWN = "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg'))"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package)"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of a study in which every condition has two seeds, but one run is missing."""
    root = tmp_path_factory.mktemp("page")
    overrides = ["study.seeds=[0,1]", "study.extension_seeds=[0,1]", f"runs_dir={root / 'runs'}"]
    keys, runs = study_of(*overrides, "records_dirs=[]", f"study.report_dir={root / 'report'}")
    for number, run in enumerate(runs[:-1]):
        if not run.waits:
            write_record(root / "runs", run, scores(groups(0.5 + number / 1000, 0.9)))
    return write_report(keys).as_uri()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, address: str) -> Iterator[Page]:
    """The opened page; what the browser complains of fails the test."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=request.param)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.wait_for_function(DRAWN)
        yield page
        browser.close()
    assert complaints == []


def test_every_figure_is_drawn_in_the_schemes_colours(page: Page) -> None:
    plots = page.locator("figure .plot").all()
    assert len(plots) == page.locator("figure").count() >= 8
    for plot in plots:
        assert plot.locator(".mark-symbol path, .mark-rect path, image").count() > 0

    def brightness(element: str, key: str) -> float:
        color = page.evaluate(f"getComputedStyle(document.querySelector('{element}')).{key}")
        channels = color.removeprefix("rgba(").removeprefix("rgb(").rstrip(")").split(",")[:3]
        return sum(map(float, channels)) / 3

    before = brightness("body", "backgroundColor")
    assert abs(brightness(".role-axis-label text", "fill") - before) > 100
    page.click("#scheme")
    after = brightness("body", "backgroundColor")
    assert (before < 128) != (after < 128)
    page.wait_for_timeout(300)
    assert abs(brightness(".role-axis-label text", "fill") - after) > 100


def hovered(page: Page, mark: str) -> str:
    """What is said of a mark below the pointer."""
    page.locator(mark).first.scroll_into_view_if_needed()
    page.locator(mark).first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    return tooltip.inner_text()


def test_hovering_tells_the_numbers(page: Page) -> None:
    said = hovered(page, "#figure_1 .mark-rect path")
    assert "true label" in said
    assert "of 2000" in said  # two seeds of 1000 images
    page.mouse.move(0, 0)
    said = hovered(page, "#figure_5 .mark-symbol.role-mark path")
    for text in ("LSTM", "labels 0–4", "test accuracy", "%", "95 % interval"):
        assert text in said


def test_tables_are_complete(page: Page) -> None:
    rows = page.locator("#table-1 table").first.locator("tbody tr")
    assert rows.count() == 13
    assert page.locator("#claims table").count() == 3  # SGD, Adam, and what is not judged
    classes = ("holds", "contradicted", "no-difference", "undecided")
    verdicts = page.locator(", ".join(f"#claims td.{name}" for name in classes))
    not_judged = page.locator("#claims table").last.locator("tbody tr").count()
    judged = page.locator("#claims tbody tr").count() - not_judged
    assert verdicts.count() == 2 * judged > 60  # raw and corrected
    assert "ten_seeds_weighted" in page.locator("#missing-runs").inner_text()
    for link in page.locator("nav a").all():
        assert page.locator(f"section{link.get_attribute('href')}").count() == 1


@pytest.mark.parametrize("width", [390, 800, 1200])
def test_no_width_needs_sideways_scrolling(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(1500)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator(".plot").all():
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] <= width
