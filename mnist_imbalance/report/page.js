const $ = (chosen, within = document) => [...within.querySelectorAll(chosen)];
const byId = (id) => document.getElementById(id);
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
const recolor = () => { root.dataset.scheme = dark.matches ? "dark" : "light"; };
recolor();
dark.addEventListener("change", recolor);
byId("scheme").onclick = () => { root.dataset.scheme = root.dataset.scheme === "dark" ? "light" : "dark"; };

// the description of a mark or a line, below the pointer
function describe(event) {
  const mark = event.target.closest?.("[data-tip], .plot [aria-label]"), tip = byId("tip");
  tip.style.visibility = mark ? "visible" : "hidden";
  if (!mark) return;
  tip.textContent = mark.dataset.tip ?? mark.getAttribute("aria-label");
  const { left, bottom, top } = mark.getBoundingClientRect(), { width, height } = tip.getBoundingClientRect();
  const x = event.clientX || left, below = (event.clientY || bottom) + 16;
  tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - width - 8))}px`;
  tip.style.top = `${below + height < innerHeight ? below : Math.max(8, (event.clientY || top) - height - 12)}px`;
}
for (const kind of ["pointermove", "pointerdown", "focusin"]) addEventListener(kind, describe);
addEventListener("scroll", ({ target }) => { if (!target.closest?.("nav")) byId("tip").style.visibility = "hidden"; }, true);

// a number and its % in one line
for (const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT); texts.nextNode();) {
  if (/\d %/.test(texts.currentNode.data)) texts.currentNode.data = texts.currentNode.data.replace(/(\d) %/g, "$1\u00a0%");
}

// the navigation follows the section that is read
const links = $("nav a"), sections = $("section");
function follow() {
  const atEnd = innerHeight + scrollY >= root.scrollHeight - 2;
  const here = sections.findLastIndex((section) => atEnd || section.getBoundingClientRect().top < innerHeight / 4);
  links.forEach((link, at) => link.classList.toggle("here", at === here));
  links[here]?.parentElement.scrollTo({ left: links[here].offsetLeft - 40 });
}
for (const kind of ["scroll", "resize"]) addEventListener(kind, follow);
follow();
addEventListener("beforeprint", () => $("details").forEach((each) => { each.open = true; }));
for (const plot of $(".plot")) plot.tabIndex = plot.scrollWidth > plot.clientWidth ? 0 : -1;

// tables: numbers to the right, verdicts in their colours
const VERDICTS = ["holds", "contradicted", "no difference", "undecided"];
const SHADES = { better: "holds", yes: "holds", worse: "contradicted", no: "contradicted", "?": "undecided" };
const shade = (text) => (SHADES[text] ?? (VERDICTS.includes(text) ? text : "")).replace(" ", "-");
for (const table of $("table")) {
  const rows = [...table.rows].map((row) => [...row.cells]);
  rows[0].forEach((head, column) => {
    const cells = rows.slice(1).map((row) => row[column]);
    const numeric = cells.every((cell) => /^([−+]?[\d.]|$)/.test(cell.textContent));
    for (const cell of [head, ...cells]) cell.className = numeric ? "n" : shade(cell.textContent);
  });
}

// claims: their tables as lines, by sentence; what is pressed within a key is shown
const place = (effect) => Math.sign(effect) * Math.sqrt(Math.min(Math.abs(effect), 50) / 50) * 100;
const strip = (drawn) => `<svg class="interval" aria-hidden="true" viewBox="-112 0 224 14">${drawn}</svg>`;
function drawClaims(list) {
  const sentences = new Map(), keys = { verdict: VERDICTS, model: [], optimizer: [] };
  for (const { dataset, nextElementSibling: box } of $("[data-optimizer]")) {
    const [heads, ...rows] = $("tr", box.parentElement).map((row) => $("th, td", row).map((cell) => cell.textContent));
    for (const cells of rows) {
      const claim = Object.fromEntries(heads.map((head, at) => [head, cells[at]]));
      const [effect, low, high] = (claim.effect.match(/[+−][\d.]+/g) ?? []).map((end) => place(end.replace("−", "-")));
      const points = low !== undefined && high === undefined ? [effect, low] : [effect]; // of two seeds, or a mean
      let drawn = '<path d="M-45 2v10M-14 2v10M14 2v10M45 2v10"/><path class="zero" d="M0 0v14"/>';
      if (high !== undefined) drawn += `<path class="range" d="M${low} 7H${high}"/>`;
      if (effect !== undefined) drawn += points.map((point) => `<circle cx="${point}" cy="7" r="3.5"/>`).join("");
      const line = document.createElement("div");
      line.className = `line ${shade(claim.corrected)}`;
      line.tabIndex = 0;
      Object.assign(line.dataset, { verdict: claim.corrected, model: claim.model, optimizer: dataset.optimizer });
      line.dataset.tip = heads.slice(2).map((head, at) => `${head}: ${cells[at + 2]}`).join("\n");
      line.innerHTML = `<span class="badge">${claim.corrected}</span><span class="who">${claim.model} · ${dataset.optimizer}</span>${strip(drawn)}<span class="effect">${claim.effect}</span>`;
      sentences.set(claim.claim, [...sentences.get(claim.claim) ?? [], line]);
      for (const key of ["model", "optimizer"]) if (!keys[key].includes(line.dataset[key])) keys[key].push(line.dataset[key]);
    }
  }
  const lines = [...sentences.values()].flat();
  list.innerHTML = `<div id="filters"></div><ol><li class="axis"><div class="line"><i></i><i></i>${strip(
    [-50, -10, -1, 0, 1, 10, 50].map((tick) => `<text x="${place(tick)}" y="11">${tick < 0 ? "−" : ""}${Math.abs(tick)}</text>`).join(""))}<span>against ← 0 → for, points</span></div></li></ol>`;
  for (const [sentence, own] of sentences) {
    const item = document.createElement("li");
    item.innerHTML = `<h3>${sentence}</h3>`;
    item.append(...own);
    list.lastChild.append(item);
  }
  const count = document.createElement("output");
  function filter() {
    const pressed = $("[aria-pressed=true]", list).map((button) => button.dataset);
    for (const line of lines) line.hidden = Object.keys(keys).some((key) => pressed.some((own) => own.key === key) && !pressed.some((own) => own.value === line.dataset[key]));
    for (const item of $("li:not(.axis)", list)) item.hidden = !item.querySelector(".line:not([hidden])");
    count.textContent = `${lines.filter((line) => !line.hidden).length} shown`;
  }
  for (const [key, values] of Object.entries(keys)) {
    const group = byId("filters").appendChild(document.createElement("span"));
    for (const value of values) {
      const number = key === "verdict" ? ` <b>${lines.filter((line) => line.dataset.verdict === value).length}</b>` : "";
      group.insertAdjacentHTML("beforeend", `<button type="button" aria-pressed="false" data-key="${key}" data-value="${value}" class="${shade(value)}">${value}${number}</button>`);
      group.lastChild.onclick = ({ currentTarget: button }) => { button.ariaPressed = button.ariaPressed !== "true"; filter(); };
    }
  }
  byId("filters").append(count);
  filter();
}
if (byId("claims-list")) drawClaims(byId("claims-list"));

// the explorer
const explored = JSON.parse(byId("data").textContent), KEYS = ["dataset", "model", "optimizer", "training", "condition"];
const percent = (part) => `${(100 * part).toFixed(1)} %`;
const dataOf = (set) => explored.data[set.dataset], escaped = (text) => String(text).replace(/[&<"]/g, (mark) => `&#${mark.charCodeAt()};`);
const nameOf = (set, label, most = 99) => escaped(String(dataOf(set).classes[label] ?? label).slice(0, most));
function drawCurves({ dataset, steps, curves }) {
  const lowest = Math.min(0.9, Math.floor(Math.min(...curves.flat(2)) / 100) / 10);
  const last = steps.at(-1), x = (step) => 50 + 395 * step / last, y = (part) => 260 - 225 * (part - lowest) / (1 - lowest);
  const path = (parts) => "M" + parts.map((part, at) => `${x(steps[at]).toFixed(1)} ${y(part).toFixed(1)}`).join("L");
  let drawn = [0, 1, 2, 3, 4, 5].map((each) => lowest + (1 - lowest) * each / 5).map((part) => `<line x1="50" x2="445" y1="${y(part)}" y2="${y(part)}"/><text class="end" x="44" y="${y(part)}">${+(100 * part).toFixed(1)} %</text>`).join("");
  drawn += [0, 0.5, 1].map((part) => `<text class="middle" x="${x(part * last) - 12 * (part === 1)}" y="274">${Math.round(part * last).toLocaleString("en")}</text>`).join("");
  drawn += '<text class="middle" x="247" y="292">optimizer steps</text>';
  curves.forEach((seeds, group) => {
    const color = explored.colors[group], title = escaped(explored.data[dataset].groups[group]);
    const mean = steps.map((_, at) => seeds.reduce((sum, seed) => sum + seed[at] / seeds.length, 0) / 1000);
    drawn += `<text x="${60 + 110 * group}" y="18"><tspan fill="${color}">●</tspan> ${title}</text>`;
    drawn += seeds.map((seed) => `<path stroke="${color}" d="${path(seed.map((part) => part / 1000))}"/>`).join("") + `<path class="mean" stroke="${color}" d="${path(mean)}"/>`;
    drawn += mean.map((part, at) => `<circle r="5" fill="${color}" cx="${x(steps[at])}" cy="${y(part)}" data-tip="${title}\nstep: ${steps[at]}\nvalidation accuracy: ${percent(part)}\nn: ${seeds.length}"/>`).join("");
  });
  return drawn;
}
function drawMatrix(set) {
  const { confusion } = set, { classes, rare } = dataOf(set), start = classes.length ? 70 : 32;
  const size = (332 - start) / confusion.length, at = (label) => start + size * (label + 0.5), turn = classes.length ? "rotate(-45)" : "";
  let drawn = '<text x="182" y="10">predicted label</text><text transform="translate(8,182) rotate(-90)">true label</text>';
  confusion.forEach((row, label) => {
    const name = nameOf(set, label), short = nameOf(set, label, 8);
    const total = row.reduce((sum, count) => sum + count, 0), color = explored.colors[rare.includes(label) ? 0 : 1] ?? explored.colors[0];
    drawn += `<text class="${classes.length && "start"}" transform="translate(${at(label)},${start - 8}) ${turn}">${short}</text><text class="${classes.length && "end"}" x="${start - 10 + 4 * !!classes.length}" y="${at(label)}">${short}</text>`;
    row.forEach((count, predicted) => {
      const part = count / total || 0;
      drawn += `<rect x="${at(predicted) - size / 2}" y="${at(label) - size / 2}" width="${size}" height="${size}" fill="${color}" opacity="${0.05 + 0.7 * part}" data-tip="true label: ${name}\npredicted label: ${nameOf(set, predicted)}\nfraction: ${percent(part)}\nimages: ${count} of ${total}"/>`;
      if (part >= 0.005) drawn += `<text pointer-events="none" x="${at(predicted)}" y="${at(label)}">${Math.round(100 * part)}</text>`;
    });
  });
  return drawn;
}
function digit(set, [image, label, predicted]) {
  const { images } = dataOf(set), at = images.indexOf(image), row = Math.min(explored.row, images.length);
  const [left, top] = [at % row, Math.floor(at / row)].map((each) => -56 * each);
  const [own, other] = [label, predicted].map((each) => nameOf(set, each));
  return `<span data-tip="true label: ${own}\npredicted label: ${other}"><i style="background-position:${left}px ${top}px;background-size:${56 * row}px auto"></i>${own} → ${other}</span>`;
}
function explore(form) {
  let left = explored.sets;
  for (const key of KEYS) {
    const select = form.elements[key], values = [...new Set(left.map((set) => set[key]))];
    const chosen = [select.value, "imbalanced", "plain loss", values[0]].find((value) => values.includes(value));
    select.parentElement.hidden = values.length < 2;
    select.replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
    left = left.filter((set) => set[key] === chosen);
  }
  const [set] = left, [learned, taken, wrong] = $("#explore figcaption"), title = `${set.model}, ${set.optimizer}, ${set.condition}`, data = dataOf(set);
  learned.textContent = set.steps.length ? `${title}: validation accuracy, ${set.curves[0].length} seed${set.curves[0].length > 1 ? "s and their mean" : ""}.` : `${title}: no curves are kept.`;
  byId("curves").innerHTML = set.steps.length ? drawCurves(set) : "";
  taken.textContent = `Confusion matrix of the test set, % of the true label, n = ${set.n}.`;
  byId("matrix").innerHTML = drawMatrix(set);
  wrong.textContent = set.seed === null ? "Mistakes are not shown: predictions or test images are not at hand." : `Mistakes on test images, seed ${set.seed}: the first two of each label (true → predicted).`;
  root.style.setProperty("--digits", `url(${data.digits})`);
  byId("digits").className = set.dataset === "MNIST" ? "inverted" : "";
  byId("digits").innerHTML = set.mistakes.map((each) => digit(set, each)).join("");
}
if (byId("explore") && explored.sets.length) {
  byId("explore").innerHTML = `<form>${KEYS.map((key) => `<label>${key === "dataset" ? "data" : key} <select name="${key}"></select></label>`).join("")}</form>
<figure><figcaption></figcaption><svg id="curves" viewBox="0 0 460 300" role="img" aria-label="learning curves"></svg></figure>
<figure><figcaption></figcaption><svg id="matrix" viewBox="0 0 340 340" role="img" aria-label="confusion matrix"></svg></figure>
<figure class="all"><figcaption></figcaption><div id="digits"></div></figure>`;
  const form = $("#explore form")[0];
  form.onchange = () => explore(form);
  explore(form);
}
