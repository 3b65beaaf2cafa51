// The lists beside the flame graph: pickers of processes, threads and spans, and the table of functions. They show so many
// rows as a person reads, and say how many there are.

const MOST_CHOICES = 200;
const MOST_FUNCTIONS = 500;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

class Picker {
  // describe(place) is the text of a choice; changed() is called when other ones are taken.
  constructor(tree, filter, title, describe, changed) {
    Object.assign(this, { tree, filter, title, describe, changed });
    this.button = make("button", { type: "button", id: `pick-${filter}` });
    this.button.setAttribute("aria-expanded", "false");
    this.search = make("input", { type: "search", placeholder: `Find ${title.toLowerCase()}`, spellcheck: false });
    this.search.setAttribute("aria-label", `Find in ${title.toLowerCase()}`);
    this.all = make("button", { type: "button", textContent: "All" });
    this.found = make("button", { type: "button", textContent: "Only what is found" });
    this.count = make("span");
    this.list = make("ul");
    this.popover = make(
      "div",
      { className: "popover", hidden: true },
      this.search,
      make("div", { className: "actions" }, this.all, this.found, this.count),
      this.list,
    );
    this.popover.setAttribute("role", "dialog");
    this.popover.setAttribute("aria-label", title);
    this.element = make("div", { className: "picker" }, this.button, this.popover);

    this.button.addEventListener("click", () => (this.popover.hidden ? this.open() : this.close()));
    this.search.addEventListener("input", () => this.fill());
    this.all.addEventListener("click", () => this.take(null));
    this.found.addEventListener("click", () => this.take(new Set(this.candidates().map(([place]) => place))));
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.popover.hidden) return;
      event.stopPropagation();
      this.close();
      this.button.focus();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!this.element.contains(event.target)) this.close();
    });
    this.name();
  }

  open() {
    this.popover.hidden = false;
    this.button.setAttribute("aria-expanded", "true");
    this.sums = [...this.tree.choices(this.filter)].sort((left, right) => right[1] - left[1]);
    // Those that are taken stay in the list, though they may have nothing under the other filters.
    for (const place of this.tree.filters[this.filter] ?? []) {
      if (!this.sums.some(([known]) => known === place)) this.sums.push([place, 0]);
    }
    this.sum = this.sums.reduce((sum, [, value]) => sum + value, 0);
    this.fill();
    this.search.focus();
  }

  close() {
    this.popover.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
  }

  candidates() {
    const wanted = this.search.value.trim().toLowerCase();
    return this.sums.filter(([place]) => wanted === "" || this.describe(place).toLowerCase().includes(wanted));
  }

  fill() {
    const candidates = this.candidates();
    const taken = this.tree.filters[this.filter];
    this.found.disabled = this.search.value.trim() === "" || candidates.length === 0;
    this.count.textContent =
      candidates.length > MOST_CHOICES
        ? `${MOST_CHOICES} of ${wholeNumber.format(candidates.length)}`
        : wholeNumber.format(candidates.length);
    this.list.replaceChildren(
      ...candidates.slice(0, MOST_CHOICES).map(([place, value]) => {
        const box = make("input", { type: "checkbox", checked: taken !== null && taken.has(place) });
        box.addEventListener("change", () => this.toggle(place, box.checked));
        return make(
          "li",
          {},
          make(
            "label",
            {},
            box,
            make("span", { className: "name", textContent: this.describe(place) }),
            make("span", { className: "share", textContent: this.tree.format(value) }),
            " ",
            make("span", { className: "share percent", textContent: formatShare(value, this.sum) }),
          ),
        );
      }),
    );
  }

  toggle(place, taken) {
    const next = new Set(this.tree.filters[this.filter] ?? []);
    if (taken) next.add(place);
    else next.delete(place);
    this.set(next.size === 0 ? null : next);
  }

  take(places) {
    this.set(places);
    if (!this.popover.hidden) this.fill();
  }

  // The list stays as it is: the box that was just ticked must not lose the focus.
  set(places) {
    this.tree.filters[this.filter] = places;
    this.name();
    this.changed();
  }

  name() {
    const taken = this.tree.filters[this.filter];
    let chosen = "all";
    if (taken !== null) chosen = taken.size === 1 ? this.describe([...taken][0]) : wholeNumber.format(taken.size);
    this.button.textContent = `${this.title}: ${chosen} ▾`;
    this.button.title = this.button.textContent;
    this.button.classList.toggle("chosen", taken !== null);
  }
}

class FunctionTable {
  // picked(name) is called for the name that is clicked.
  constructor(tree, table, listed, picked) {
    Object.assign(this, { tree, table, listed, picked });
    this.order = "self";
    this.palette = null;
    this.columns = [
      ["self", "Self"],
      ["self", "Self %"],
      ["total", "Total"],
      ["total", "Total %"],
      ["name", "Function"],
      ["where", "Where"],
    ];
    this.heads = this.columns.map(([order, title]) => {
      const button = make("button", { type: "button", textContent: title });
      const head = make("th", { scope: "col", className: order === "self" || order === "total" ? "number" : "" });
      if (order === "where") {
        button.disabled = true;
      } else {
        button.addEventListener("click", () => {
          this.order = order;
          this.fill();
        });
      }
      head.append(button);
      return head;
    });
    table.tHead.rows[0].replaceChildren(...this.heads);
  }

  update(matched, palette) {
    this.matched = matched;
    this.palette = palette;
    this.sums = this.tree.functions();
    this.fill();
  }

  fill() {
    const { tree, sums } = this;
    const places = [];
    for (let i = 0; i < tree.frames.count; i++) {
      const kind = tree.text(tree.frames.kind[i]);
      if (sums.total[i] > 0 && kind !== "root" && kind !== "process" && (this.matched === null || this.matched[i]))
        places.push(i);
    }
    const name = (place) => tree.text(tree.frames.name[place]);
    places.sort(
      this.order === "name"
        ? (left, right) => (name(left) < name(right) ? -1 : 1)
        : (left, right) => sums[this.order][right] - sums[this.order][left] || sums.total[right] - sums.total[left],
    );
    this.heads.forEach((head, i) => {
      if (this.columns[i][0] === this.order)
        head.setAttribute("aria-sort", this.order === "name" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    this.listed.textContent =
      places.length > MOST_FUNCTIONS
        ? `The first ${MOST_FUNCTIONS} of ${wholeNumber.format(places.length)} functions`
        : `${wholeNumber.format(places.length)} functions`;
    const all = tree.total[0];
    this.table.tBodies[0].replaceChildren(
      ...places.slice(0, MOST_FUNCTIONS).map((place) => {
        const kind = tree.text(tree.frames.kind[place]);
        const swatch = make("span", { className: "swatch", title: kind });
        swatch.style.background = this.palette.color(kind);
        const pick = make("button", { type: "button", textContent: name(place) });
        pick.addEventListener("click", () => this.picked(name(place)));
        const number = (text) => make("td", { className: "number", textContent: text });
        return make(
          "tr",
          {},
          number(tree.format(sums.self[place])),
          number(formatShare(sums.self[place], all)),
          number(tree.format(sums.total[place])),
          number(formatShare(sums.total[place], all)),
          make("td", { className: "name" }, swatch, pick),
          make("td", { className: "where", textContent: whereIs(tree, place) }),
        );
      }),
    );
  }
}

// Kind, module and source of a frame, as far as they are known.
function whereIs(tree, frame) {
  const { frames } = tree;
  const file = tree.text(frames.file[frame]);
  const line = frames.line[frame];
  return [tree.text(frames.kind[frame]), tree.text(frames.module[frame]), file && line > 0 ? `${file}:${line}` : file]
    .filter((part) => part !== "")
    .join(" · ");
}
