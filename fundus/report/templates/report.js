"use strict";
(() => {
  const holder = document.getElementById("data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const byId = (id) => document.getElementById(id);
  const rows = data.eyes.map((values, at) =>
    Object.fromEntries([["at", at], ...data.columns.map((name, i) => [name, values[i]])]));
  const key = `fundus:verdicts:${data.run}`;
  const STEP = 200;
  const SVG = "http://www.w3.org/2000/svg";
  const VERDICTS = { a: "agree", d: "disagree", u: "ungradable" };

  // ---- small helpers ---------------------------------------------------------------------------
  const element = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [attribute, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) node.setAttribute(attribute, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const shape = (name, attributes = {}, ...children) => {
    const node = document.createElementNS(SVG, name);
    for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
    node.append(...children);
    return node;
  };
  const fixed = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
  const uri = (row) => data.prefix + row.name;
  const label = (row) => (row.frames > 1 ? `${row.name} · frame ${row.frame}` : row.name);
  const call = (row) => (row.suspect ? "suspect" : "not suspect");
  const identity = (row) => `${uri(row)}\n${row.frame}`;

  // ---- verdicts: in this browser, until they are exported --------------------------------------
  let verdicts = {};
  try {
    verdicts = JSON.parse(localStorage.getItem(key)) || {};
  } catch (error) {
    verdicts = {};
  }
  const verdictOf = (row) => verdicts[identity(row)] || { verdict: "", outline: "", note: "" };
  const record = (row, change) => {
    const now = { ...verdictOf(row), ...change };
    if (now.verdict || now.outline || now.note) {
      verdicts[identity(row)] = {
        ...now, uri: uri(row), frame: row.frame, call: call(row), laterality: row.eye || "",
        vcdr: row.vcdr, risk: row.risk,
      };
    } else {
      delete verdicts[identity(row)];
    }
    try {
      localStorage.setItem(key, JSON.stringify(verdicts));
    } catch (error) {
      byId("count").textContent = "this browser cannot store verdicts: export them before you leave";
    }
    const item = byId(`row-${row.at}`);
    if (item) item.lastChild.textContent = mark(row);
  };
  const mark = (row) => ({ agree: "✓", disagree: "✗", ungradable: "?" })[verdictOf(row).verdict] || "";
  const COLUMNS = ["uri", "frame", "run_id", "call", "verdict", "outline", "note", "laterality", "vcdr", "risk"];
  const exported = () => {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = Object.values(verdicts).map((one) =>
      COLUMNS.map((name) => cell(name === "run_id" ? data.run : one[name])).join(","));
    return [COLUMNS.join(","), ...lines, ""].join("\r\n");
  };

  // ---- the list --------------------------------------------------------------------------------
  let shown = [];
  let drawn = 0;
  let selected = null;
  const asymmetry = (row) => (row.fellow === null || !rows[row.fellow] ? null
    : Math.abs(row.vcdr - rows[row.fellow].vcdr));
  const SORTS = {
    rank: (a, b) => a.at - b.at,
    vcdr: (a, b) => (b.vcdr ?? -1) - (a.vcdr ?? -1),
    sd: (a, b) => (b.sd ?? -1) - (a.sd ?? -1),
    asymmetry: (a, b) => (asymmetry(b) ?? -1) - (asymmetry(a) ?? -1),
    quality: (a, b) => (a.quality ?? 2) - (b.quality ?? 2),
    name: (a, b) => (a.name < b.name ? -1 : 1),
  };
  const wanted = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const show = byId("show").value;
    return (row) => {
      const text = `${row.name} ${row.status} ${row.error || ""} ${row.flags} ${row.eye || ""} ${verdictOf(row).note}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) return false;
      if (show === "suspects") return row.suspect;
      if (show === "measured") return row.vcdr !== null;
      if (show === "open") return !verdictOf(row).verdict;
      if (show === "done") return Boolean(verdictOf(row).verdict);
      return show === "all" || row.status === show.slice(7);
    };
  };
  const item = (row) => {
    const columns = row.vcdr === null
      ? [element("span", { class: "failed" }, row.status)]
      : [
          element("span", {}, row.eye || "–"),
          element("span", { class: row.suspect ? "suspect" : "" }, `${fixed(row.vcdr)} ± ${fixed(row.sd)}`),
          element("span", {}, data.order === "risk" ? fixed(row.risk) : fixed(row.percentile, 0)),
          element("span", { class: "quality" }, fixed(row.quality)),
        ];
    const name = element("span", { class: "name", title: label(row) }, element("bdi", {}, label(row)));
    const node = element("li", { role: "option", id: `row-${row.at}`, "aria-selected": "false" },
      element("span", {}, String(data.first + row.at + 1)), name, ...columns,
      element("span", {}, mark(row)));
    node.addEventListener("click", () => select(row));
    return node;
  };
  const drawMore = (least = drawn + STEP) => {
    const list = byId("list");
    const part = document.createDocumentFragment();
    for (; drawn < Math.min(least, shown.length); drawn += 1) part.append(item(shown[drawn]));
    list.append(part);
  };
  const refresh = () => {
    shown = rows.filter(wanted()).sort(SORTS[byId("sort").value]);
    drawn = 0;
    byId("list").replaceChildren();
    drawMore();
    byId("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    if (shown.length) select(shown.includes(selected) ? selected : shown[0], false);
    else { selected = null; byId("eye").replaceChildren(element("p", {}, "No row answers to this filter.")); }
  };
  const select = (row, scroll = true) => {
    const before = selected && byId(`row-${selected.at}`);
    if (before) before.setAttribute("aria-selected", "false");
    selected = row;
    drawMore(shown.indexOf(row) + 20);
    const now = byId(`row-${row.at}`);
    now.setAttribute("aria-selected", "true");
    byId("list").setAttribute("aria-activedescendant", now.id);
    if (scroll) now.scrollIntoView({ block: "nearest" });
    byId("eye").replaceChildren(...detail(row));
  };
  const step = (by) => {
    const next = shown[shown.indexOf(selected) + by];
    if (next) select(next);
  };

  // ---- one eye ---------------------------------------------------------------------------------
  const path = (flat) => {
    let text = "";
    for (let i = 0; i < flat.length; i += 2) text += `${i ? "L" : "M"}${flat[i]} ${flat[i + 1]}`;
    return `${text}Z`;
  };
  const roi = (row, details) => {
    const title = `ROI of ${label(row)}${details.picture ? "" : ", mask only"}`;
    const svg = shape("svg", { viewBox: "0 0 1000 1000", class: "roi", role: "img", "aria-label": title });
    if (details.picture) svg.append(shape("image", { href: details.picture, width: 1000, height: 1000 }));
    const group = shape("g", { class: details.picture ? "outline" : "" });
    for (const [name, lines] of [["disc", details.disc], ["cup", details.cup]]) {
      for (const flat of lines) {
        if (details.picture) group.append(shape("path", { d: path(flat), class: "halo" }));
        group.append(shape("path", { d: path(flat), class: name }));
      }
    }
    svg.append(group);
    return svg;
  };
  const rim = (row, details, other) => {
    const [left, top, width, height] = [34, 10, 350, 150];
    const usual = data.usual;
    const every = [details.rim, other ? other.rim : [], ...usual].flat().filter((v) => v !== null);
    const most = Math.max(0.3, ...every) * 1.05;
    const x = (i, count) => left + (width * (i + 0.5)) / count;
    const y = (value) => top + height * (1 - value / most);
    const line = (values) => values.map((v, i) => `${i ? "L" : "M"}${x(i, values.length).toFixed(1)} ${y(v ?? 0).toFixed(1)}`).join("");
    const sides = row.eye ? ["T", "S", "N", "I", "T"] : ["left", "above", "right", "below", "left"];
    const svg = shape("svg", { viewBox: `0 0 400 ${height + 36}`, class: "rim", role: "img",
      "aria-label": `Rim width by angle, in vertical disc diameters: inferior ${fixed(row.rim[0])}, superior ${fixed(row.rim[1])}, nasal ${fixed(row.rim[2])}, temporal ${fixed(row.rim[3])}` });
    if (usual.length) {
      const low = line(usual[0]);
      const high = usual[2].map((v, i) => `L${x(i, usual[2].length).toFixed(1)} ${y(v).toFixed(1)}`).reverse().join("");
      svg.append(shape("path", { d: `${low}${high}Z`, class: "usual" }), shape("path", { d: line(usual[1]), class: "median" }));
    }
    for (const value of [0, 0.1, 0.2, 0.3, 0.4]) {
      if (value > most) continue;
      svg.append(shape("line", { x1: left, x2: left + width, y1: y(value), y2: y(value), class: "axis", "stroke-opacity": value ? 0.35 : 1 }));
      svg.append(shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1)));
    }
    sides.forEach((name, i) => svg.append(shape("text", { x: left + (width * i) / 4, y: top + height + 18, "text-anchor": i === 0 ? "start" : i === 4 ? "end" : "middle" }, name)));
    if (other) svg.append(shape("path", { d: line(other.rim), class: "fellow" }));
    svg.append(shape("path", { d: line(details.rim), class: "line" }));
    return svg;
  };
  const facts = (pairs) => {
    const list = element("dl", { class: "facts" });
    for (const [name, value] of pairs) list.append(element("dt", {}, name), element("dd", {}, value));
    return list;
  };
  const view = (row, caption) => {
    const details = data.details[row.at];
    return element("figure", { class: "view" }, roi(row, details), element("figcaption", {}, caption));
  };
  const detail = (row) => {
    const details = data.details[row.at];
    const head = element("div", { class: "head" }, element("h3", {}, label(row)),
      row.suspect ? element("span", { class: "tag suspect" }, "suspect") : null,
      element("span", { class: "tag" }, row.status),
      ...row.flags.split(" ").filter(Boolean).map((flag) => element("span", { class: "tag" }, flag)));
    const parts = [head];
    if (row.error) parts.push(element("p", {}, row.error));
    const fellow = row.fellow === null ? null : rows[row.fellow];
    const other = fellow && data.details[fellow.at];
    if (details) {
      const views = element("div", { class: "views" });
      views.append(view(row, `${row.eye || "eye"}: vCDR ${fixed(row.vcdr)} ± ${fixed(row.sd)}`));
      const chart = element("figure", { class: "view" }, rim(row, details, other), element("figcaption", {},
        `Rim width by angle, vertical disc diameters.${data.usual.length ? " Grey: the middle 80 % of this run." : ""}${other ? " Dashed: the other eye." : ""}`));
      if (other) views.append(view(fellow, `Other eye, ${fellow.eye}: vCDR ${fixed(fellow.vcdr)} ± ${fixed(fellow.sd)}`));
      parts.push(views);
      if (other) parts.push(element("div", { class: "views" }, chart, summary(row, fellow)));
      else views.append(chart);
    } else if (row.vcdr !== null && row.page) {
      parts.push(element("p", {}, element("a", { href: `eyes-${String(row.page + 1).padStart(3, "0")}.html#${row.at}` }, "The outline and the rim profile are on another page")));
    }
    if (row.vcdr !== null && !other) parts.push(summary(row, fellow));
    parts.push(verdictForm(row));
    return parts;
  };
  const summary = (row, fellow) => {
    const pairs = [
      ["vCDR", `${fixed(row.vcdr)} ± ${fixed(row.sd)}`],
      ["percentile here", fixed(row.percentile, 0)],
      ["risk", fixed(row.risk)],
      ["rim I, S", `${fixed(row.rim[0])}, ${fixed(row.rim[1])}`],
      ["rim N, T", `${fixed(row.rim[2])}, ${fixed(row.rim[3])}`],
      ["quality", fixed(row.quality)],
      ["eye", row.eye ? `${row.eye}, by ${row.eyeSource}` : "unknown"],
      ["detector", fixed(row.confidence)],
    ];
    if (fellow) pairs.push(["asymmetry", `${fixed(Math.abs(row.vcdr - fellow.vcdr))} vCDR`]);
    return facts(pairs);
  };
  const verdictForm = (row) => {
    const now = verdictOf(row);
    const form = element("fieldset", { class: "verdict" }, element("legend", {}, `Verdict on “${call(row)}”`));
    for (const [letter, name] of Object.entries(VERDICTS)) {
      const radio = element("input", { type: "radio", name: "verdict", value: name, checked: now.verdict === name });
      radio.addEventListener("change", () => record(row, { verdict: name }));
      form.append(element("label", {}, radio, name, element("kbd", {}, letter)));
    }
    const wrong = element("input", { type: "checkbox", id: "wrong", checked: now.outline === "wrong" });
    wrong.addEventListener("change", () => record(row, { outline: wrong.checked ? "wrong" : "" }));
    form.append(element("label", {}, wrong, "outline is wrong", element("kbd", {}, "x")));
    const clear = element("button", { type: "button" }, "Clear");
    clear.addEventListener("click", () => { record(row, { verdict: "", outline: "", note: "" }); select(row); });
    form.append(clear);
    const note = element("textarea", { id: "note", "aria-label": "Note", rows: "1", placeholder: "Note (n)" });
    note.value = now.note;
    note.addEventListener("input", () => record(row, { note: note.value }));
    form.append(element("div", { class: "grow" }, note));
    return form;
  };

  // ---- keys and controls -----------------------------------------------------------------------
  const toggleOutlines = () => {
    const hidden = document.body.classList.toggle("no-outlines");
    byId("outlines").setAttribute("aria-pressed", String(!hidden));
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("textarea, input[type=search], select");
    if (event.key === "Escape" && typing) { byId("list").focus(); return; }
    if (typing || (event.target.matches("input[type=radio]") && event.key.startsWith("Arrow"))) return;
    const keys = {
      j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
      Home: () => shown.length && select(shown[0]), o: toggleOutlines, "/": () => byId("find").focus(),
      n: () => byId("note") && byId("note").focus(), x: () => byId("wrong") && byId("wrong").click(),
    };
    for (const [letter, verdict] of Object.entries(VERDICTS)) {
      keys[letter] = () => { if (selected) { record(selected, { verdict }); select(selected); } };
    }
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  byId("outlines").addEventListener("click", toggleOutlines);
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("find").addEventListener("input", refresh);
  byId("show").addEventListener("change", refresh);
  byId("sort").addEventListener("change", refresh);
  byId("list").addEventListener("scroll", (event) => {
    const list = event.target;
    if (list.scrollTop + list.clientHeight > list.scrollHeight - 300) drawMore();
  });
  byId("export").addEventListener("click", () => {
    const link = element("a", { download: `verdicts-${data.run}.csv`,
      href: URL.createObjectURL(new Blob([exported()], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  window.addEventListener("beforeprint", () => {
    const pictured = rows.filter((row) => data.details[row.at] && data.details[row.at].picture);
    byId("print").replaceChildren(...pictured.map((row) =>
      view(row, `${data.first + row.at + 1}. ${label(row)}: ${row.eye || "eye"}, vCDR ${fixed(row.vcdr)} ± ${fixed(row.sd)}${row.suspect ? ", suspect" : ""}`)));
  });
  refresh();
  const linked = rows[Number(location.hash.slice(1)) - data.first];
  if (location.hash && linked) select(linked);
})();
