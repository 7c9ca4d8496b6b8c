"""The report's folder of some committed records, and its page in Chromium, headless."""

import base64
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records import table as records
from mnist_imbalance.report import explorer, page, tables
from mnist_imbalance.report.stats import VERDICTS

CHROMIUM = shutil.which("chromium")
Files = dict[str, str]


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Two seeds of every committed run, and all of CNN and Adam."""
    every, damaged = records.read([REPOSITORY / "results"])
    assert damaged == []
    return every[every.seed < 2]


@pytest.fixture(scope="module")
def files(runs: pd.DataFrame) -> Files:
    return page.contents(runs, ["seed=7/result.json is damaged"], [f"data.dir={REPOSITORY}/data"])


def test_the_report_is_the_same_bytes_every_time(runs: pd.DataFrame) -> None:
    some = runs[(runs.model == "cnn") & (runs.optimizer == "adam")]
    assert page.contents(some, [], []) == page.contents(some, [], [])


def test_the_page_needs_no_network_and_holds_every_figure_and_table(files: Files) -> None:
    html, markdown = files["index.html"], files["report.md"]
    assert not re.search(r"(src|href)=.?(http|//)|@import|url\((?!\$)", html)
    figures = {name.removeprefix("figures/")[:-4] for name in files if name.startswith("figures/")}
    assert len(figures) == 16
    for name in figures:
        [caption] = re.findall(rf"!\[(.+)\]\(figures/{name}\.svg\)", markdown)
        plot = f'<figure id="{name}"><div class="plot" role="img" aria-label="{caption}"><svg '
        assert plot in html
    assert html.count("<table>") == len(re.findall(r"^\| ---", markdown, re.MULTILINE))
    assert "<code>docs/protocol.md</code>" in html
    for text in (html, markdown):
        assert "seed=7/result.json is damaged" in text
    assert files["finding.md"].split("\n")[0] in markdown
    assert {f"tables/{name}.csv" for name in ("table_1", "claims", "ranked")} <= files.keys()


def test_a_report_without_its_images_says_so(
    runs: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"data\.dir: there is no folder"):
        page.read_images([f"data.dir={tmp_path / 'none'}"])
    few = runs[runs.optimizer == "adam"]
    files = page.contents(few, [], [f"data.dir={tmp_path / 'none'}"])
    assert "Figure 3 is missing: data.dir: there is no folder" in files["report.md"]
    assert '"images":[]' in files["index.html"]


def test_samples_are_images_of_the_data_in_all_copies(runs: pd.DataFrame) -> None:
    images, copies = page.read_images([f"data.dir={REPOSITORY}/data"])
    table = explorer.samples(tables.on_grounds(runs), images, copies)
    assert len(table) == 10 * 5
    assert list(table.label.unique()) == [0, 1, 2, 3, 4]
    address = table[(table.angle == 0) & (table.noise == 0) & (table.label == 3)].image.item()
    decoded = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    pixels, labels = images.train
    first = pixels[labels == 3][0, 0]
    assert decoded.tobytes() == first.numpy().tobytes()


def test_only_mistakes_are_shown_as_such(runs: pd.DataFrame) -> None:
    some = tables.on_grounds(runs[(runs.model == "lstm") & (runs.optimizer == "adam")])
    images, _ = page.read_images([f"data.dir={REPOSITORY}/data"])
    found = explorer.explorer(some, images)
    predicted = records.predictions(some)
    [shown] = [s for s in found["sets"] if s["condition"] == "imbalanced"][:1]
    own = tables.on(some, shown["ground"]).query("condition == 'imbalanced'")
    [run] = own[own.seed == shown["seed"]].config_hash
    assert len(shown["mistakes"]) > 5
    for image, label, other in shown["mistakes"]:
        assert images.test[1][image] == label != other == predicted[run][image]
    assert len(shown["curves"]) == 2
    assert {len(curve) for group in shown["curves"] for curve in group} == {len(shown["steps"])}


def test_the_folder_is_that_of_the_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"runs_dir={tmp_path}", "records_dirs=[]", f"study.report_dir={tmp_path}/out"]
    with pytest.raises(ConfigError, match=f"records_dirs: no result below {tmp_path}"):
        page.write_report(compose_with(keys, name="study"))
    every, _ = records.read([REPOSITORY / "results" / "full.parquet"])
    records.pack(every[every.optimizer == "adam"], tmp_path / "records" / "adam.parquet")
    keys[1] = f"records_dirs=[{tmp_path / 'records'}]"
    assert page.write_report(compose_with(keys, name="study")) == tmp_path / "out" / "index.html"
    assert (tmp_path / "out" / "tables" / "runs.csv").exists()
    assert "the report:" in capsys.readouterr().out


@pytest.fixture(params=["light", "dark"])
def browser(
    request: pytest.FixtureRequest, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """The opened page; a complaint of the browser fails the test."""
    if CHROMIUM is None:
        pytest.skip("needs chromium (Debian's package)")
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(files["index.html"])
    complaints: list[str] = []
    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = process.new_context(offline=True, color_scheme=request.param)
        opened = context.new_page()
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(path.as_uri())
        yield opened
        process.close()
    assert complaints == []


def brightness(page: Page, element: str, key: str) -> float:
    color = page.evaluate(f"getComputedStyle(document.querySelector('{element}')).{key}")
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3


def hovered(page: Page, mark: str) -> str:
    """The text below the pointer over a mark."""
    page.locator(mark).first.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    page.locator(mark).first.hover(force=True)
    page.wait_for_function("document.getElementById('tip').style.visibility === 'visible'")
    return page.locator("#tip").inner_text()


CLIPPED = """() => {
  const out = [];
  const all = "h1, h2, h3, p, figcaption, .caption, summary, button, .line span, #digits span";
  for (const each of document.querySelectorAll(`main :is(${all})`)) {
    const { right, width } = each.getBoundingClientRect();
    const inline = getComputedStyle(each).display === "inline";
    const cut = !inline && each.scrollWidth > each.clientWidth + 1;
    if (width && (right > innerWidth || cut)) out.push(each.textContent);
  }
  return out;
}"""


@pytest.mark.slow
def test_figures_are_legible_in_both_schemes_and_hover_tells_the_numbers(browser: Page) -> None:
    before = brightness(browser, "body", "backgroundColor")
    for element in (".plot text", "#matrix text", "#curves text", ".interval text"):
        assert abs(brightness(browser, element, "fill") - before) > 70
    browser.click("#scheme")
    after = brightness(browser, "body", "backgroundColor")
    assert (before < 128) != (after < 128)
    assert abs(brightness(browser, ".plot text", "fill") - after) > 100
    for mark, facts in {
        "#figure_1 svg [aria-label]": ("true label: 0", "predicted label: 0", "images: "),
        "#restored svg [aria-label]": ("model: LSTM", "remedy: ", "n: 2", "95 % interval: "),
        "#figure_5 svg [aria-label]": ("label: labels 0–4", "weight: 1\n", "test accuracy: "),
        "#claims-list [data-tip]": ("n: 2", "section: ", "corrected: ", "what the effect is: "),
        "#matrix rect": ("fraction: ",),
    }.items():
        text = hovered(browser, mark)
        assert all(fact in text for fact in facts), (mark, text)


@pytest.mark.slow
def test_claims_are_filtered(browser: Page) -> None:
    shown = browser.locator("#claims-list .line[data-verdict]:visible")
    rows = browser.locator("#claims .more table tbody tr").count()
    assert shown.count() == rows > 60
    counts = {}
    for verdict in VERDICTS:
        button = browser.locator(f"#filters [data-value='{verdict}']")
        button.click()
        counts[verdict] = shown.count()
        assert button.locator("b").inner_text() == str(counts[verdict])
        button.click()
    assert sum(counts.values()) == rows
    browser.click("#filters [data-value=LSTM]")
    browser.click("#filters [data-value=SGD]")
    keys = {
        (line.get_attribute("data-model"), line.get_attribute("data-optimizer"))
        for line in shown.all()
    }
    assert keys == {("LSTM", "SGD")}
    assert browser.locator("#filters output").inner_text() == f"{shown.count()} shown"


@pytest.mark.slow
def test_the_explorer_shows_the_chosen_condition(browser: Page) -> None:
    form = browser.locator("#explore")
    assert "LSTM, SGD, imbalanced" in form.inner_text()
    form.locator("[name=model]").select_option("CNN")
    form.locator("[name=ground]").select_option("equal epochs")
    form.locator("[name=condition]").select_option("weight 3")
    assert "CNN, SGD, weight 3: validation accuracy, 2 seeds" in form.inner_text()
    assert browser.locator("#matrix rect").count() == 100
    assert browser.locator("#curves .mean").count() == 2
    form.locator("[name=optimizer]").select_option("Adam")
    assert "CNN, Adam, imbalanced" in form.inner_text()  # there is no weight 3 with Adam
    assert browser.locator("#digits span").count() > 5


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_page_fits_and_tables_scroll_below_their_heads(browser: Page, width: int) -> None:
    browser.set_viewport_size({"width": width, "height": 800})
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CLIPPED) == []
    box = browser.locator("#table-1 .scroll").first
    box.evaluate("each => each.scrollTo(200, 200)")
    around, head = box.bounding_box(), box.locator("th").first.bounding_box()
    assert around and head
    assert abs(head["x"] - around["x"]) < 3 and abs(head["y"] - around["y"]) < 3
    for link in browser.locator("header a").all():
        assert browser.locator(f"section{link.get_attribute('href')}").count() == 1
    assert {"n", "all", "p"} <= {*browser.locator("th.n").all_text_contents()}
    words = browser.locator("main").inner_text()
    assert not re.search(r"output_bias=|\b0-4\b", words)
