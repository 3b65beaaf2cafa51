// The page: puts the parts together.

const byId = (id) => document.getElementById(id);

async function start() {
  const tree = new CallTree(await readData(byId("data")));
  const { header } = tree;
  tellAbout(header);

  let matched = null;
  const tooltip = byId("tooltip");
  const chart = new Chart(
    tree,
    { canvas: byId("chart"), scroller: byId("scroller"), spacer: byId("spacer") },
    {
      hovered: (node, x, y) => showTooltip(node, x + 14, y + 18),
      selected: (node) => {
        if (node < 0) {
          showTooltip(-1);
          return;
        }
        const [x, y] = chart.placeOf(node);
        showTooltip(node, x, y + 4);
        byId("spoken").textContent = tooltip.textContent;
      },
      zoomed: () => tellZoom(),
      painted: () => tellKinds(),
    },
  );
  const functions = new FunctionTable(tree, byId("functions"), byId("listed"), (name) => {
    showView("chart");
    setSearch(name);
  });
  const pickers = [
    new Picker(tree, "process", "Process", (place) => header.processes[place], update),
    new Picker(tree, "thread", "Thread", (place) => tree.text(place) || "(not told)", update),
    new Picker(tree, "span", "Span", (place) => describeSpan(header.spans[place]), update),
  ];
  // A filter by what no sample has is no filter.
  const offers = {
    process: header.processes.length > 1,
    thread: tree.rows.thread.some((place) => place !== 0),
    span: header.spans.length > 1,
  };
  byId("pickers").append(...pickers.filter((picker) => offers[picker.filter]).map((picker) => picker.element));

  const types = byId("type");
  types.append(
    ...header.types.map((type, place) =>
      make("option", {
        value: place,
        textContent: `${type.name} (${type.unit})`,
        title: type.derived ? "The number of samples times the period of sampling" : "",
      }),
    ),
  );
  types.value = tree.type;
  types.addEventListener("change", () => {
    tree.type = Number(types.value);
    update();
  });

  // Everything that depends on the values.
  function update() {
    tree.update();
    byId("empty").hidden = tree.total[0] > 0;
    tellKinds();
    chart.refresh();
    tellFound();
    if (!byId("view-functions").hidden) functions.update(matched, chart.palette);
  }

  function tellKinds() {
    byId("legend").replaceChildren(
      ...tree.kinds().map(([kind, value]) => {
        const swatch = make("i");
        swatch.style.background = chart.palette.color(kind);
        return make("li", {}, swatch, `${kind || "kind not told"} ${formatShare(value, tree.total[0])}`);
      }),
    );
  }

  function tellZoom() {
    const whole = tree.total[0];
    let text = `All: ${tree.format(whole)}`;
    if (chart.zoom !== 0) {
      const value = tree.total[chart.zoom];
      text = `${tree.name(chart.zoom)}: ${tree.format(value)}, ${formatShare(value, whole)} of ${tree.format(whole)}`;
    }
    byId("sum").textContent = text;
    byId("back").disabled = chart.history.length === 0;
    byId("reset").disabled = chart.zoom === 0;
    tellFound();
  }

  function tellFound() {
    const found = byId("found");
    if (matched === null) {
      if (!found.classList.contains("bad")) found.textContent = "";
      return;
    }
    const value = tree.matchedValue(matched, chart.zoom);
    const where = chart.zoom === 0 ? "" : " of what is zoomed";
    found.textContent = `${formatShare(value, tree.total[chart.zoom])}${where} found, ${tree.format(value)}`;
  }

  function setSearch(text) {
    byId("search").value = text;
    search();
  }

  function search() {
    const text = byId("search").value.trim();
    const found = byId("found");
    found.classList.remove("bad");
    matched = null;
    try {
      if (text !== "") matched = tree.matches(text);
    } catch (error) {
      found.classList.add("bad");
      found.textContent = error.message;
    }
    chart.matched = matched;
    chart.schedule();
    tellFound();
    if (!byId("view-functions").hidden) functions.update(matched, chart.palette);
  }

  function showTooltip(node, x, y) {
    tooltip.hidden = node < 0;
    if (node < 0) return;
    const frame = tree.nodes.frame[node];
    const rows = [
      ["Total", tree.total[node]],
      ["Self", tree.self[node]],
    ].flatMap(([title, value]) => [
      make("dt", { textContent: title }),
      make("dd", { textContent: tree.format(value) }),
      make("dd", { textContent: shares(value) }),
    ]);
    const where = whereIs(tree, frame) + (tree.nodes.inlined[node] ? " · inlined" : "");
    tooltip.replaceChildren(
      make("strong", { textContent: tree.name(node) }),
      " ",
      make("span", { className: "where", textContent: where }),
      " ",
      make("dl", {}, ...rows),
    );
    // Beside the pointer, but never out of the window.
    const box = tooltip.getBoundingClientRect();
    tooltip.style.left = `${Math.max(4, Math.min(x, innerWidth - box.width - 12))}px`;
    tooltip.style.top = `${Math.max(4, y + box.height > innerHeight - 8 ? y - box.height - 34 : y)}px`;
  }

  function shares(value) {
    const all = formatShare(value, tree.total[0]);
    return chart.zoom === 0 ? all : `${all}, ${formatShare(value, tree.total[chart.zoom])} of what is zoomed`;
  }

  const views = ["chart", "functions"];
  function showView(shown) {
    for (const view of views) {
      byId(`view-${view}`).hidden = view !== shown;
      byId(`tab-${view}`).setAttribute("aria-selected", String(view === shown));
      byId(`tab-${view}`).tabIndex = view === shown ? 0 : -1;
    }
    for (const id of ["back", "reset", "flip"]) byId(id).hidden = shown !== "chart";
    if (shown === "functions") functions.update(matched, chart.palette);
  }
  for (const [place, view] of views.entries()) {
    byId(`tab-${view}`).addEventListener("click", () => showView(view));
    byId(`tab-${view}`).addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = views[1 - place];
      showView(other);
      byId(`tab-${other}`).focus();
    });
  }

  byId("search").addEventListener("input", search);
  byId("back").addEventListener("click", () => chart.back());
  byId("reset").addEventListener("click", () => chart.reset());
  byId("flip").addEventListener("click", () => {
    chart.flip();
    byId("flip").setAttribute("aria-pressed", String(chart.flipped));
  });
  byId("clear").addEventListener("click", () => {
    for (const picker of pickers) picker.take(null);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      byId("search").focus();
    } else if (event.key === "Escape") {
      // One thing at a time: first a list that is open, then the search, then the zoom.
      const open = pickers.filter((picker) => !picker.popover.hidden);
      if (open.length > 0) open.forEach((picker) => picker.close());
      else if (byId("search").value !== "") setSearch("");
      else chart.reset();
      showTooltip(-1);
    } else if (event.key === "Backspace" && !typing) {
      event.preventDefault();
      chart.back();
    }
  });

  update();
  document.body.dataset.ready = "yes";
}

function describeSpan([trace, span]) {
  if (trace === "" && span === "") return "(in no span)";
  return `${span || "(not told)"} of trace ${trace || "(not told)"}`;
}

function tellAbout(header) {
  document.title = `${header.title} – flame graph`;
  byId("title").textContent = header.title;
  const about = [];
  if (header.start)
    about.push(`${header.start.replace("T", " ").replace("Z", " UTC")}, ${Number(header.seconds.toPrecision(3))} s`);
  if (header.hertz) about.push(`sampled at ${Number(header.hertz.toPrecision(3))} Hz`);
  byId("about").textContent = about.join(" · ");
  if (header.notes) {
    const notes = byId("notes");
    notes.hidden = false;
    notes.querySelector("summary").textContent =
      `${header.notes.length} ${header.notes.length === 1 ? "note" : "notes"} on what is missing`;
    notes.querySelector("ul").append(...header.notes.map((note) => make("li", { textContent: note })));
  }
}

start().catch((error) => {
  document
    .querySelector("main")
    .replaceChildren(make("p", { className: "failure", textContent: `Cannot show this profile: ${error.message}.` }));
});
