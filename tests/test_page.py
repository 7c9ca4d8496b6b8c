"""The page in a browser: Chromium, headless."""

import shutil
from collections.abc import Iterator

import pytest
from handmade import groups, scores, study_of, write_record
from playwright.sync_api import Page, sync_playwright

from mnist_imbalance.report.write import write_report

CHROMIUM = shutil.which("chromium")
WIDTHS = (390, 800, 1200)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package)"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of a study in which every condition has two seeds, but one run is missing."""
    root = tmp_path_factory.mktemp("page")
    overrides = ["study.seeds=[0,1]", "study.extension_seeds=[0,1]", f"runs_dir={root / 'runs'}"]
    keys, runs = study_of(*overrides, "records_dirs=[]")
    for number, run in enumerate(runs[:-1]):
        if not run.waits:
            write_record(root / "runs", run, scores(groups(0.5 + number / 1000, 0.9)))
    return write_report(keys, runs).as_uri()


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
        yield page
        browser.close()
    assert complaints == []


def brightness(page: Page, element: str, key: str) -> float:
    color = page.evaluate(f"getComputedStyle(document.querySelector('{element}')).{key}")
    channels = color.removeprefix("rgba(").removeprefix("rgb(").rstrip(")").split(",")[:3]
    return sum(map(float, channels)) / 3


def test_every_figure_is_drawn_in_the_schemes_colours(page: Page) -> None:
    plots = page.locator(".plot .wide").all()
    assert len(plots) == page.locator("figure .plot").count() >= 8
    for plot in plots:
        assert plot.locator("[aria-label]").count() > 0
    before = brightness(page, "body", "backgroundColor")
    assert abs(brightness(page, ".role-axis-label text", "fill") - before) > 100
    page.click("#scheme")
    after = brightness(page, "body", "backgroundColor")
    assert (before < 128) != (after < 128)
    for element in (".role-axis-label text", "#matrix text", "#curves text", ".interval text"):
        assert abs(brightness(page, element, "fill") - after) > 70


def hovered(page: Page, mark: str) -> str:
    """What is said of a mark below the pointer."""
    page.locator(mark).first.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    page.locator(mark).first.hover(force=True)
    page.wait_for_function("document.getElementById('tip').style.visibility === 'visible'")
    return page.locator("#tip").inner_text()


def test_hovering_tells_the_numbers(page: Page) -> None:
    said = hovered(page, "#figure_1 .wide [aria-label]")
    for text in ("true label: 0", "predicted label: 0", "of 2000"):  # two seeds of 1000 images
        assert text in said
    said = hovered(page, "#restored .wide [aria-label]")
    for text in ("model: LSTM", "optimizer: SGD", "remedy: ", "n: ", "95 % interval: "):
        assert text in said
    said = hovered(page, "#figure_5 .wide [aria-label]")
    for text in ("label: labels 0–4", "weight: ", "test accuracy: ", " %", "weight: 1\n", "n: "):
        assert text in said
    said = hovered(page, "#claims-list [data-tip]")
    for text in ("n: 2", "effect: ", "AI3607, section", "after correction: "):
        assert text in said
    assert "fraction: " in hovered(page, "#matrix rect")


def test_claims_are_filtered(page: Page) -> None:
    shown = page.locator("#claims-list .line[data-verdict]:visible")
    every = shown.count()
    assert every > 60
    counts = {}
    for verdict in ("holds", "contradicted", "no difference", "undecided"):
        button = page.locator(f"#filters [data-value='{verdict}']")
        button.click()
        counts[verdict] = shown.count()
        assert button.locator("b").inner_text() == str(counts[verdict])
        button.click()
    assert sum(counts.values()) == every
    page.click("#filters [data-value=LSTM]")
    page.click("#filters [data-value=SGD]")
    of_lstm = {line.get_attribute("data-model") for line in shown.all()}
    of_sgd = {line.get_attribute("data-optimizer") for line in shown.all()}
    assert (of_lstm, of_sgd) == ({"LSTM"}, {"SGD"})
    assert page.locator("#filters output").inner_text() == f"{shown.count()} shown"
    for item in page.locator("#claims-list li:visible:not(.axis)").all():
        assert item.locator(".line:visible").count() > 0
    assert page.locator("#claims-list .range").count() > 60


def test_the_explorer_shows_what_is_chosen(page: Page) -> None:
    explorer = page.locator("#explore")
    assert "LSTM, SGD, imbalanced" in explorer.inner_text()
    explorer.locator("[name=model]").select_option("CNN")
    explorer.locator("[name=ground]").select_option("equal epochs")
    explorer.locator("[name=condition]").select_option("weight 3")
    assert "CNN, SGD, weight 3: validation accuracy" in explorer.inner_text()
    assert page.locator("#matrix rect").count() == 100
    assert page.locator("#curves .mean").count() == 2
    explorer.locator("[name=optimizer]").select_option("Adam")
    assert "CNN, Adam, imbalanced" in explorer.inner_text()  # there is no weight 3 with Adam


def test_tables_are_complete(page: Page) -> None:
    rows = page.locator("#table-1 table").first.locator("tbody tr")
    assert rows.count() == 13
    assert page.locator("#claims table").count() == 3  # SGD, Adam, and what is not judged
    assert "ten_seeds_weighted" in page.locator("#missing-runs").inner_text()
    for link in page.locator("header a").all():
        assert page.locator(f"section{link.get_attribute('href')}").count() == 1
    heads = page.locator("th.n").all_text_contents()
    assert {"n", "all", "p"} <= set(heads)
    words = page.locator("main").inner_text()
    assert "model.output_bias=None" not in words
    assert "loss.normalize" not in words
    assert "0-4" not in words


CLIPPED = """() => {
  const out = [];
  for (const svg of document.querySelectorAll("figure svg")) {
    const card = svg.closest("figure").getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const { left, right, width } = text.getBoundingClientRect();
      if (width && (left < card.left || right > card.right)) out.push(text.textContent);
    }
  }
  const all = "h1, h2, h3, p, figcaption, .caption, summary, button, .line span, #digits span";
  for (const each of document.querySelectorAll(`main :is(${all})`)) {
    const { right, width } = each.getBoundingClientRect();
    const inline = getComputedStyle(each).display === "inline";
    const cut = !inline && each.scrollWidth > each.clientWidth + 1;
    if (width && (right > innerWidth || cut)) out.push(each.textContent);
  }
  return out;
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_clipped_and_the_page_scrolls_down_only(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CLIPPED) == []
    drawn = page.locator("#restored svg:visible")
    assert drawn.count() == 1
    page.locator("#table-1 .scroll").first.evaluate("each => each.scrollTo(200, 200)")
    box = page.locator("#table-1 .scroll").first.bounding_box()
    head = page.locator("#table-1 th").first.bounding_box()
    assert box and head
    assert abs(head["x"] - box["x"]) < 3  # the first column and the heads stay
    assert abs(head["y"] - box["y"]) < 3
