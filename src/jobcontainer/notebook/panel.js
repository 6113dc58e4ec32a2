// The browser's half of the live panel. When something changed, the kernel sends one JSON model (`card`, the same content
// that the static HTML is made of); this script renders it and sends back the action of a button. Text enters the page
// only as text nodes, so nothing that a job prints can become markup.
//
// While jobs run, the panel is an output of its cell. When they have ended, the kernel makes that output empty, so that
// a saved notebook contains no widget, and the buttons that are still useful (Rerun) are added to the static card, as
// long as this page and the kernel exist.

const LABELS = {
  cancel: ["Cancel", "Cancelling…"],
  cancel_all: ["Cancel all", "Cancelling…"],
  cancel_earlier: ["Cancel the earlier run", "Cancelling…"],
  rerun: ["Rerun", "Starting…"],
  rerun_failed: ["Rerun failed", "Starting…"],
};

// ---- a small virtual DOM: nodes are kept between renderings, and with them focus, scroll positions and open folds ----

function h(tag, attributes, ...children) {
  return { tag, attributes: attributes || {}, children: children.flat().filter((child) => child !== null && child !== "") };
}

function patch(parent, children) {
  children.forEach((child, index) => {
    const node = parent.childNodes[index];
    if (typeof child === "string") {
      if (node && node.nodeType === Node.TEXT_NODE) {
        if (node.data !== child) node.data = child;
      } else insertText(parent, document.createTextNode(child), node);
      return;
    }
    const key = child.attributes["data-part"];
    let element = node;
    if (!matches(node, child, key)) {
      // a part that moved is found among the nodes that follow, so that a new part before it does not replace it
      element = key && [...parent.childNodes].slice(index).find((other) => matches(other, child, key));
      if (!element) {
        element = document.createElement(child.tag);
        for (const [name, value] of Object.entries(child.initial || {})) element.setAttribute(name, value);
      }
      parent.insertBefore(element, node || null);
    }
    patchElement(element, child);
  });
  while (parent.childNodes.length > children.length) parent.lastChild.remove();
}

function matches(node, child, key) {
  return (
    node && node.nodeType === Node.ELEMENT_NODE && node.localName === child.tag && (node.dataset.part || undefined) === key
  );
}

function insertText(parent, text, old) {
  if (old && old.nodeType === Node.TEXT_NODE) old.replaceWith(text);
  else parent.insertBefore(text, old || null);
}

function patchElement(element, child) {
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

function progress(label, fraction, texts) {
  return h("progress", {
    max: 1,
    value: fraction === undefined || fraction === null ? null : fraction.toFixed(4),
    "aria-label": label || "progress",
    "aria-valuetext": texts.join(", "),
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

function section(kind, content) {
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

function buttons(card, requested) {
  return (card.actions || []).map((action) => {
    const [label, busy] = LABELS[action];
    return h(
      "button",
      { type: "button", class: "jc-button", "data-part": action, "data-action": action, disabled: requested.has(action) && "" },
      requested.has(action) ? busy : label,
    );
  });
}

function head(card, requested) {
  const parts = [clock(card), ...(card.facts || [])].filter(Boolean).map((fact) => ` · ${fact}`).join("");
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
      h("span", { class: "jc-facts" }, parts),
    ),
    h("span", { class: "jc-actions" }, buttons(card, requested)),
  );
}

function body(card, requested) {
  return [
    head(card, requested),
    h("div", { class: "jc-spoken", role: "status", "data-part": "spoken" }, `${card.name} ${card.state.replaceAll("_", " ")}`),
    h("div", { class: "jc-grid", "data-part": "bars" }, (card.bars || []).map(bar)),
    h("div", { class: "jc-grid", "data-part": "rows" }, (card.rows || []).map((job) => row("row", "▶", job))),
    h("div", { "data-part": "failures" }, (card.failures || []).map((job) => row("failure", "✖", job))),
    section("error", card.error),
    ...(card.notes || []).map((note) => section("note", note)),
    log(card),
  ];
}

function renderCard(root, card, requested) {
  const box = root.querySelector("[role=log]");
  const atEnd = !box || box.scrollHeight - box.scrollTop - box.clientHeight < 8;
  root.dataset.state = card.state;
  root.dataset.job = card.id;
  root.setAttribute("aria-label", `${card.name}, ${card.state.replaceAll("_", " ")}`);
  patch(root, body(card, requested).filter((part) => part !== null));
  const updated = root.querySelector("[role=log]");
  if (updated && atEnd) updated.scrollTop = updated.scrollHeight;
}

// ---- the buttons of a static card ----

function staticCards(id) {
  return document.querySelectorAll(`.jobcontainer[data-card="${CSS.escape(id)}"]:not([data-snapshot])`);
}

function addButtons(model, requested, tries = 20) {
  const card = model.get("card");
  if (!card.closed) return;
  for (const element of staticCards(card.card)) {
    let actions = element.querySelector(".jc-actions");
    if (!actions) {
      actions = document.createElement("span");
      actions.className = "jc-actions";
      element.querySelector(".jc-head").append(actions);
      actions.addEventListener("click", (event) => request(model, requested, event, () => addButtons(model, requested)));
    }
    patch(actions, buttons(card, requested));
  }
  // the static card comes in a message of its own, before or after the model: try again for two seconds
  if (tries > 0) setTimeout(() => addButtons(model, requested, tries - 1), 100);
}

function request(model, requested, event, update) {
  const action = event.target.dataset.action;
  if (!action || requested.has(action)) return;
  requested.add(action);
  model.send({ action });
  update();
}

// ---- the saved outputs, repaired when a page returns to jobs that went on without it ----

function repair(model, cellId, outputs) {
  const cells = model.widget_manager?.context?.model?.cells; // JupyterLab and Notebook 7; elsewhere nothing to repair
  if (!cells) return;
  const outputsOfCard = outputs.map((output) => ({ output_type: "display_data", ...output }));
  for (let index = 0; index < cells.length; index++) {
    const { id, outputs: area } = cells.get(index);
    const saved = area ? area.toJSON() : [];
    const first = saved.findIndex((output) => belongsToCard(output, model.get("card").card));
    if (first < 0 && id !== cellId) continue;
    const before = first < 0 ? saved : saved.slice(0, first);
    if (!same(saved.slice(before.length), outputsOfCard)) area.fromJSON([...before, ...outputsOfCard]);
  }
}

function belongsToCard(output, id) {
  const data = output.data || {};
  const html = [data["text/html"] || ""].flat().join("");
  return html.includes(`data-card="${id}"`) || data["application/vnd.jupyter.widget-view+json"]?.card === id;
}

function same(saved, wanted) {
  const data = (output) => JSON.stringify(Object.entries(output.data || {}).sort());
  return saved.length === wanted.length && saved.every((output, index) => data(output) === data(wanted[index]));
}

// ---- the functions that anywidget calls ----

function initialize({ model }) {
  const requested = new Set();
  const receive = () => {
    requested.clear();
    addButtons(model, requested);
  };
  model.on("change:card", receive);
  model.on("msg:custom", (content) => content.outputs && repair(model, content.cell, content.outputs));
  model.send({ action: "page_loaded" });
  receive();
}

function render({ model, el }) {
  const requested = new Set();
  const root = document.createElement("div");
  root.className = "jobcontainer jc-panel tex2jax_ignore mathjax_ignore"; // MathJax passes over it
  root.setAttribute("role", "group");
  el.append(root);
  let card = {};
  const update = () => card.closed || renderCard(root, card, requested);
  const receive = () => {
    const before = card.state;
    card = { ...model.get("card"), received: performance.now() };
    if (card.state !== before) requested.clear();
    root.hidden = Boolean(card.closed); // in the classic Notebook, an empty output does not remove the panel
    update();
  };
  const tick = setInterval(() => card.clock !== undefined && update(), 1000);
  root.addEventListener("click", (event) => request(model, requested, event, update));
  model.on("change:card", receive);
  receive();
  return () => clearInterval(tick);
}

export default { initialize, render };
