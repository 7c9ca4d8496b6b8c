"""The committed report's page in Chromium, headless."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import REPOSITORY
from playwright.sync_api import Browser, Page

from mnist_imbalance.report.stats import VERDICTS

pytestmark = pytest.mark.slow


@pytest.fixture
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The opened page; a complaint of the browser fails the test."""
    complaints: list[str] = []
    scheme: Any = getattr(request, "param", "light")
    with chromium.new_context(offline=True, color_scheme=scheme) as context:
        opened = context.new_page()
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto((REPOSITORY / "report" / "index.html").as_uri())
        opened.evaluate("document.querySelectorAll('.more').forEach((each) => each.open = true)")
        yield opened
    assert complaints == []


def brightness(page: Page, element: str, key: str = "fill") -> float:
    color = page.evaluate(f"getComputedStyle(document.querySelector('{element}')).{key}")
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3


def hovered(page: Page, mark: str) -> str:
    """The text below the pointer over a mark."""
    page.locator(mark).first.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    page.locator(mark).first.hover(force=True)
    page.wait_for_selector("#tip", state="visible")
    return page.locator("#tip").inner_text()


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_figures_are_legible_in_both_schemes_and_hover_tells_the_numbers(page: Page) -> None:
    before = brightness(page, "body", "backgroundColor")
    for element in (".plot text", "#matrix text", "#curves text", ".interval text"):
        assert abs(brightness(page, element) - before) > 70
    page.click("#scheme")
    after = brightness(page, "body", "backgroundColor")
    assert (before < 128) != (after < 128)
    assert abs(brightness(page, ".plot text") - after) > 100
    for mark, facts in {
        "#figure_1 svg [aria-label]": ("true label: 0", "predicted label: 0", "images: 4696 of"),
        "#restored_steps svg [aria-label]": ("model: LSTM", "step: ", "n: ", "95 % interval: "),
        "#figure_5 svg [aria-label]": ("label: labels 0–4", "weight: 1\n", "test accuracy: "),
        "#claims-list [data-tip]": ("n: ", "section: ", "corrected: ", "what the effect is: "),
        "#matrix rect": ("fraction: ",),
    }.items():
        text = hovered(page, mark)
        assert all(fact in text for fact in facts), (mark, text)


def test_claims_are_filtered(page: Page) -> None:
    shown = page.locator("#claims-list .line[data-verdict]:visible")
    corrected = page.locator("[data-optimizer] ~ .scroll td:nth-child(4)").all_text_contents()
    assert shown.count() == len(corrected) > 60
    for verdict in VERDICTS:
        button = page.locator(f"#filters [data-value='{verdict}']")
        button.click()
        assert button.locator("b").inner_text() == str(shown.count())
        assert {*shown.locator(".badge").all_inner_texts()} == {verdict}
        assert shown.count() == corrected.count(verdict)
        button.click()
    page.click("#filters [data-value=LSTM]")
    page.click("#filters [data-value=SGD]")
    keys = shown.evaluate_all("lines => lines.map((l) => [l.dataset.model, l.dataset.optimizer])")
    assert {*map(tuple, keys)} == {("LSTM", "SGD")}
    assert page.locator("#filters output").inner_text() == f"{shown.count()} shown"


def test_the_explorer_shows_the_chosen_condition(page: Page) -> None:
    form = page.locator("#explore")
    assert "LSTM, SGD, imbalanced" in form.inner_text()
    form.locator("[name=model]").select_option("CNN")
    form.locator("[name=training]").select_option("50 epochs")
    form.locator("[name=condition]").select_option("weight 3")
    assert re.search(r"CNN, SGD, weight 3: validation accuracy, \d+ seeds", form.inner_text())
    assert page.locator("#matrix rect").count() == 100
    assert page.locator("#curves .mean").count() == 2
    form.locator("[name=optimizer]").select_option("Adam")
    assert "CNN, Adam, imbalanced" in form.inner_text()  # there is no weight 3 with Adam
    assert page.locator("#digits span").count() > 5


CLIPPED = """() => {
  const all = "h1, h2, h3, p, figcaption, .caption, summary, button, .line span, #digits span";
  return [...document.querySelectorAll(`main :is(${all})`)].filter((each) => {
    const { right, width } = each.getBoundingClientRect();
    const inline = getComputedStyle(each).display === "inline";
    return width && (right > innerWidth || (!inline && each.scrollWidth > each.clientWidth + 1));
  }).map((each) => each.textContent);
}"""


def test_the_page_fits_and_tables_scroll_below_their_heads(page: Page) -> None:
    for width in (390, 800, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CLIPPED) == []
        box = page.locator("#tables .scroll").first
        box.evaluate("each => each.scrollTo(200, 200)")
        around, head = box.bounding_box(), box.locator("th").first.bounding_box()
        assert around and head
        assert abs(head["x"] - around["x"]) < 3 and abs(head["y"] - around["y"]) < 3
    for link in page.locator("header a").all():
        link.evaluate("each => document.querySelector(each.hash).scrollIntoView()")
        page.wait_for_function("here => here.className === 'here'", arg=link.element_handle())
        assert page.locator(f"section{link.get_attribute('href')}").count() == 1
    assert {"n", "all", "p"} <= {*page.locator("th.n").all_text_contents()}
    words = page.locator("main").inner_text()
    assert not re.search(r"output_bias=|\b0-4\b", words)
