const $ = (chosen, within = document) => [...within.querySelectorAll(chosen)];
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => { root.dataset.scheme = dark.matches ? "dark" : "light"; };
follow();
dark.addEventListener("change", follow);
document.getElementById("scheme").onclick = () => { root.dataset.scheme = root.dataset.scheme === "dark" ? "light" : "dark"; };

// what is said below the pointer, of marks of the figures and of lines
const tip = document.getElementById("tip");
function tell(event) {
  const of = event.target.closest?.("[data-tip], .plot [aria-label]");
  tip.style.visibility = of ? "visible" : "hidden";
  if (!of) return;
  tip.textContent = of.dataset.tip ?? of.getAttribute("aria-label");
  const { left, bottom, top } = of.getBoundingClientRect(), { width, height } = tip.getBoundingClientRect();
  const x = event.clientX || left, below = (event.clientY || bottom) + 16;
  tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - width - 8))}px`;
  tip.style.top = `${below + height < innerHeight ? below : Math.max(8, (event.clientY || top) - height - 12)}px`;
}
for (const kind of ["pointermove", "pointerdown", "focusin"]) addEventListener(kind, tell);
addEventListener("scroll", () => { tip.style.visibility = "hidden"; }, true);

const links = new Map($("nav a").map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) links.get(target.id)?.classList.toggle("here", isIntersecting);
}, { rootMargin: "-20% 0px -75%" });
$("section").forEach((section) => seen.observe(section));

// claims: what is pressed within a key is shown, all of a key where nothing is
const filters = $("#filters button");
function filter() {
  const wanted = {};
  for (const { dataset } of filters.filter((button) => button.ariaPressed === "true")) (wanted[dataset.key] ??= []).push(dataset.value);
  const lines = $("#claims-list .line[data-verdict]");
  for (const line of lines) line.hidden = Object.entries(wanted).some(([key, values]) => !values.includes(line.dataset[key]));
  for (const item of $("#claims-list li:not(.axis)")) item.hidden = !item.querySelector(".line:not([hidden])");
  document.querySelector("#filters output").textContent = `${lines.filter((line) => !line.hidden).length} shown`;
}
for (const button of filters) button.onclick = () => { button.ariaPressed = button.ariaPressed !== "true"; filter(); };

// the explorer
const explored = JSON.parse(document.getElementById("explored")?.textContent ?? "null");
const percent = (part) => `${(100 * part).toFixed(1)} %`;
const escaped = (text) => text.replace(/[&<"]/g, (sign) => `&#${sign.charCodeAt()};`);
function curves({ steps, curves }) {
  const means = curves.map((seeds) => steps.map((_, at) => seeds.reduce((sum, seed) => sum + seed[at] / seeds.length, 0) / 1000));
  const lowest = Math.min(0.9, Math.floor(10 * Math.min(1, ...curves.flat(2).map((each) => each / 1000))) / 10);
  const last = steps.at(-1), x = (step) => 50 + 395 * step / last, y = (part) => 260 - 225 * (part - lowest) / (1 - lowest);
  const path = (of) => "M" + of.map((part, at) => `${x(steps[at]).toFixed(1)} ${y(part).toFixed(1)}`).join("L");
  const ticks = [0, 1, 2, 3, 4, 5].map((each) => lowest + (1 - lowest) * each / 5);
  let drawn = ticks.map((part) => `<line x1="50" x2="445" y1="${y(part)}" y2="${y(part)}"/><text class="end" x="44" y="${y(part)}">${+(100 * part).toFixed(1)} %</text>`).join("");
  drawn += [0, 0.5, 1].map((part) => `<text class="middle" x="${x(part * last) - 12 * (part === 1)}" y="274">${Math.round(part * last).toLocaleString("en")}</text>`).join("");
  drawn += `<text class="middle" x="247" y="292">optimizer steps</text>`;
  means.forEach((mean, group) => {
    const color = explored.colors[group], title = explored.groups[group];
    drawn += `<text class="key" style="fill:${color}" x="${60 + 110 * group}" y="18">${escaped(title)}</text>`;
    for (const seed of curves[group]) drawn += `<path stroke="${color}" d="${path(seed.map((each) => each / 1000))}"/>`;
    drawn += `<path class="mean" stroke="${color}" d="${path(mean)}"/>`;
    mean.forEach((part, at) => {
      drawn += `<circle r="5" fill="${color}" cx="${x(steps[at])}" cy="${y(part)}" data-tip="${escaped(title)}\nstep: ${steps[at]}\nvalidation accuracy: ${percent(part)}\nn: ${curves[group].length}"/>`;
    });
  });
  return drawn;
}
function matrix({ confusion }) {
  const size = 300 / confusion.length, at = (label) => 32 + size * (label + 0.5);
  let drawn = `<text x="182" y="10">predicted label</text><text transform="translate(8,182) rotate(-90)">true label</text>`;
  confusion.forEach((row, label) => {
    const total = row.reduce((sum, count) => sum + count, 0), color = explored.colors[explored.rare.includes(label) ? 0 : 1] ?? explored.colors[0];
    drawn += `<text x="${at(label)}" y="24">${label}</text><text x="22" y="${at(label)}">${label}</text>`;
    row.forEach((count, predicted) => {
      const part = count / total || 0;
      drawn += `<rect x="${at(predicted) - size / 2}" y="${at(label) - size / 2}" width="${size}" height="${size}" fill="${color}" opacity="${0.05 + 0.95 * part}" data-tip="true label: ${label}\npredicted label: ${predicted}\nfraction: ${percent(part)}\nimages: ${count} of ${total}"/>`;
      if (part >= 0.005) drawn += `<text pointer-events="none" x="${at(predicted)}" y="${at(label)}"${part > 0.7 ? ' fill="white"' : ""}>${Math.round(100 * part)}</text>`;
    });
  });
  return drawn;
}
function digit([place, label, predicted]) {
  const [left, top] = [place % explored.row, Math.floor(place / explored.row)].map((each) => -56 * each);
  return `<span data-tip="true label: ${label}\npredicted label: ${predicted}"><i style="background-position:${left}px ${top}px;background-size:${56 * explored.row}px auto"></i>${label} → ${predicted}</span>`;
}
function explore(form) {
  const keys = ["model", "optimizer", "ground", "condition"];
  let left = explored.sets;
  for (const key of keys) {
    const select = form.elements[key], values = [...new Set(left.map((set) => set[key]))];
    const chosen = values.includes(select.value) ? select.value : values.includes("imbalanced") ? "imbalanced" : values[0];
    select.replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
    left = left.filter((set) => set[key] === chosen);
  }
  const [set] = left, [learned, taken, wrong] = $("#explore figcaption");
  const title = `${set.model}, ${set.optimizer}, ${set.condition}`;
  learned.textContent = set.steps.length ? `${title}: validation accuracy, ${set.curves[0].length} seeds and their mean.` : `${title}: no curves are kept.`;
  document.getElementById("curves").innerHTML = set.steps.length ? curves(set) : "";
  taken.textContent = `Confusion matrix of the test set, % of the true label, n = ${set.n}.`;
  document.getElementById("matrix").innerHTML = matrix(set);
  wrong.textContent = set.seed === null ? "No predictions are kept." : `Test images that the run with seed ${set.seed} takes for another label: the first two of each label (true → predicted).`;
  document.getElementById("digits").innerHTML = set.mistaken.map(digit).join("");
}
if (explored) {
  if (explored.digits) root.style.setProperty("--digits", `url(${explored.digits})`);
  const form = document.querySelector("#explore form");
  form.onchange = () => explore(form);
  explore(form);
}
