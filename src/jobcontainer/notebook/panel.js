// The browser's half of the live panel. The kernel sends one JSON model (`card`, the same Card that the static HTML is
// painted from) when something changed; this paints it and sends back what was asked for. Text only ever enters the page
// as text nodes, so nothing that a job says can become markup.
//
// A panel lives in one of two places. While the work goes on it is the output of its cell. When the work has ended, the
// kernel replaces that output with nothing, so that a saved notebook holds no widget, and the buttons that are still of
// use (Rerun) are put onto the static card, for as long as this page and the kernel live.

const LABELS = {
  cancel: ["Cancel", "Cancelling…"],
  cancel_all: ["Cancel all", "Cancelling…"],
  cancel_earlier: ["Cancel the earlier run", "Cancelling…"],
  rerun: ["Rerun", "Starting…"],
  rerun_failed: ["Rerun failed", "Starting…"],
};

// ---- a small virtual DOM: nodes are kept from paint to paint, and with them focus, scrolling and open folds ----

function h(tag, attributes, ...children) {
  return { tag, attributes: attributes || {}, children: children.flat().filter((child) => child !== null && child !== "") };
}

function patch(parent, children) {
  children.forEach((child, index) => {
    const node = parent.childNodes[index];
    if (typeof child === "string") {
      if (node && node.nodeType === Node.TEXT_NODE) {
        if (node.data !== child) node.data = child;
      } else place(parent, document.createTextNode(child), node);
      return;
    }
    const key = child.attributes["data-part"];
    let element = node;
    if (!isFor(node, child, key)) {
      // a part that moved is looked for among what follows, so that a new part before it does not make it anew
      element = key && [...parent.childNodes].slice(index).find((other) => isFor(other, child, key));
      if (!element) {
        element = document.createElement(child.tag);
        for (const [name, value] of Object.entries(child.initial || {})) element.setAttribute(name, value);
      }
      parent.insertBefore(element, node || null);
    }
    update(element, child);
  });
  while (parent.childNodes.length > children.length) parent.lastChild.remove();
}

function isFor(node, child, key) {
  return (
    node && node.nodeType === Node.ELEMENT_NODE && node.localName === child.tag && (node.dataset.part || undefined) === key
  );
}

function place(parent, made, old) {
  if (old && old.nodeType === Node.TEXT_NODE) old.replaceWith(made);
  else parent.insertBefore(made, old || null);
}

function update(element, child) {
  for (const [name, value] of Object.entries(child.attributes)) {
    if (value === null || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  patch(element, child.children);
}

// ---- the card ----

function seconds(amount) {
  if (amount < 59.95) return `${amount.toFixed(amount < 1 ? 2 : 1)} s`;
  const whole = Math.round(amount);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600).toLocaleString("en")} h ${Math.floor((whole % 3600) / 60)} min`;
}

function clock(card) {
  if (card.clock === undefined) return null;
  return seconds(card.clock + (performance.now() - card.received) / 1000);
}

function progress(label, fraction, facts) {
  return h("progress", {
    max: 1,
    value: fraction === undefined || fraction === null ? null : fraction.toFixed(4),
    "aria-label": label || "progress",
    "aria-valuetext": facts.join(", "),
  });
}

function facts(texts) {
  return h("span", { class: "jc-facts" }, texts.map((text) => h("span", {}, text)));
}

function bar(line) {
  return h(
    "div",
    { class: "jc-bar", "data-level": line.level || 0 },
    h("span", { class: "jc-label" }, line.label || ""),
    progress(line.label, line.fraction, line.facts),
    facts(line.facts),
  );
}

function row(kind, icon, job) {
  const texts = job.facts || [];
  const title = [h("span", { class: "jc-icon", "aria-hidden": "true" }, icon), " ", job.title];
  return h(
    "div",
    { class: `jc-${kind}`, "data-job": job.id },
    h("span", { class: "jc-label" }, title),
    kind === "row" ? progress(job.title, job.fraction, texts) : null,
    facts(texts),
  );
}

function logLine(line) {
  const segments = typeof line === "string" ? [line || " "] : line.map(([styles, text]) => styled(styles, text));
  return h("div", { class: "jc-line" }, segments);
}

function styled(styles, text) {
  return styles ? h("span", { class: styles.split(" ").map((name) => `jc-${name}`).join(" ") }, text) : text;
}

function text(kind, content) {
  return content ? h("div", { class: `jc-${kind}`, "data-part": kind }, content) : null;
}

function log(card) {
  if (!card.log) return null;
  const box = h(
    "div",
    { class: "jc-code", role: "log", "aria-live": "off", "aria-label": `Log of ${card.name}`, tabindex: 0 },
    card.log.map(logLine),
  );
  const fold = h(
    "details",
    { "data-part": "log" },
    h("summary", {}, card.log_title),
    box,
    h("div", { class: "jc-path" }, card.log_file || ""),
  );
  fold.initial = { open: "" };
  return fold;
}

function buttons(card, asked) {
  return (card.actions || []).map((action) => {
    const [label, busy] = LABELS[action];
    return h(
      "button",
      { type: "button", class: "jc-button", "data-part": action, "data-action": action, disabled: asked.has(action) && "" },
      asked.has(action) ? busy : label,
    );
  });
}

function head(card, asked) {
  const said = [clock(card), ...(card.facts || [])].filter(Boolean).map((fact) => ` · ${fact}`).join("");
  return h(
    "div",
    { class: "jc-head", "data-part": "head" },
    h(
      "span",
      { class: "jc-title" },
      h("span", { class: "jc-icon", "aria-hidden": "true" }, card.icon),
      " ",
      h("b", { class: "jc-name" }, card.name),
      " ",
      h("span", { class: "jc-words" }, card.words),
      h("span", { class: "jc-facts" }, said),
    ),
    h("span", { class: "jc-actions" }, buttons(card, asked)),
  );
}

function body(card, asked) {
  return [
    head(card, asked),
    h("div", { class: "jc-spoken", role: "status", "data-part": "spoken" }, `${card.name} ${card.state.replaceAll("_", " ")}`),
    h("div", { class: "jc-grid", "data-part": "bars" }, (card.bars || []).map(bar)),
    h("div", { class: "jc-grid", "data-part": "rows" }, (card.rows || []).map((job) => row("row", "▶", job))),
    h("div", { "data-part": "failures" }, (card.failures || []).map((job) => row("failure", "✖", job))),
    text("error", card.error),
    ...(card.notes || []).map((note) => text("note", note)),
    log(card),
  ];
}

function paint(root, card, asked) {
  const box = root.querySelector("[role=log]");
  const atEnd = !box || box.scrollHeight - box.scrollTop - box.clientHeight < 8;
  root.dataset.state = card.state;
  root.dataset.job = card.id;
  root.setAttribute("aria-label", `${card.name}, ${card.state.replaceAll("_", " ")}`);
  patch(root, body(card, asked).filter((part) => part !== null));
  const painted = root.querySelector("[role=log]");
  if (painted && atEnd) painted.scrollTop = painted.scrollHeight;
}

// ---- the buttons that stay on a static card ----

function staticCards(id) {
  return document.querySelectorAll(`.jobcontainer[data-card="${CSS.escape(id)}"]:not([data-snapshot])`);
}

function decorate(model, asked, looks = 20) {
  const card = model.get("card");
  if (!card.closed) return;
  for (const element of staticCards(card.card)) {
    let place = element.querySelector(".jc-actions");
    if (!place) {
      place = document.createElement("span");
      place.className = "jc-actions";
      element.querySelector(".jc-head").append(place);
      place.addEventListener("click", (event) => ask(model, asked, event, () => decorate(model, asked)));
    }
    patch(place, buttons(card, asked));
  }
  // the static card arrives by another way than the model, before or after it: look again for two seconds
  if (looks > 0) setTimeout(() => decorate(model, asked, looks - 1), 100);
}

function ask(model, asked, event, repaint) {
  const action = event.target.dataset.action;
  if (!action || asked.has(action)) return;
  asked.add(action);
  model.send({ action });
  repaint();
}

// ---- the saved outputs, repaired when a page comes back to work that went on without it ----

function repair(model, cellId, outputs) {
  const cells = model.widget_manager?.context?.model?.cells; // JupyterLab and Notebook 7; elsewhere nothing to repair
  if (!cells) return;
  const mine = outputs.map((output) => ({ output_type: "display_data", ...output }));
  for (let index = 0; index < cells.length; index++) {
    const { id, outputs: area } = cells.get(index);
    const saved = area ? area.toJSON() : [];
    const ours = saved.findIndex((output) => isOurs(output, model.get("card").card));
    if (ours < 0 && id !== cellId) continue;
    const first = ours < 0 ? saved.length : ours;
    if (!same(saved.slice(first), mine)) area.fromJSON([...saved.slice(0, first), ...mine]);
  }
}

function isOurs(output, id) {
  const data = output.data || {};
  const html = [data["text/html"] || ""].flat().join("");
  return html.includes(`data-card="${id}"`) || data["application/vnd.jupyter.widget-view+json"]?.card === id;
}

function same(saved, mine) {
  const data = (output) => JSON.stringify(Object.entries(output.data || {}).sort());
  return saved.length === mine.length && saved.every((output, index) => data(output) === data(mine[index]));
}

// ---- what anywidget calls ----

function initialize({ model }) {
  const asked = new Set();
  const receive = () => {
    asked.clear();
    decorate(model, asked);
  };
  model.on("change:card", receive);
  model.on("msg:custom", (content) => content.outputs && repair(model, content.cell, content.outputs));
  model.send({ action: "hello" });
  receive();
}

function render({ model, el }) {
  const asked = new Set();
  const root = document.createElement("div");
  root.className = "jobcontainer jc-panel";
  root.setAttribute("role", "group");
  el.append(root);
  let card = {};
  const repaint = () => card.closed || paint(root, card, asked);
  const receive = () => {
    const before = card.state;
    card = { ...model.get("card"), received: performance.now() };
    if (card.state !== before) asked.clear();
    root.hidden = Boolean(card.closed); // where emptying its output does not take a panel away: the classic Notebook
    repaint();
  };
  const tick = setInterval(() => card.clock !== undefined && repaint(), 1000);
  root.addEventListener("click", (event) => ask(model, asked, event, repaint));
  model.on("change:card", receive);
  receive();
  return () => clearInterval(tick);
}

export default { initialize, render };
