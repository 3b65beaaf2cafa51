// What is computed from the data: the values of all nodes under the present filters, the functions, and what a search finds.

class CallTree {
  constructor(data) {
    this.header = data.header;
    this.frames = data.frames;
    this.nodes = data.nodes;
    this.rows = data.rows;
    this.self = new Float64Array(this.nodes.count);
    this.total = new Float64Array(this.nodes.count);
    this.start = new Float64Array(this.nodes.count); // in values, from the left
    this.type = this.header.default;
    // Sets of what is taken; null takes everything.
    this.filters = { process: null, thread: null, span: null };
  }

  text(place) {
    return this.header.strings[place];
  }
  name(node) {
    return this.text(this.frames.name[this.nodes.frame[node]]);
  }
  kind(node) {
    return this.text(this.frames.kind[this.nodes.frame[node]]);
  }

  // Sum up the values of the samples that the filters take. A pass over the rows, one backwards over the nodes (a parent
  // comes before its children), and one forwards for their places.
  update() {
    const { nodes, rows, self, total, start } = this;
    self.fill(0);
    for (let i = 0; i < rows.count; i++) if (this.takes(i, "")) self[rows.node[i]] += rows.value[i];
    total.set(self);
    for (let i = nodes.count - 1; i > 0; i--) total[nodes.parent[i]] += total[i];
    const next = new Float64Array(nodes.count);
    for (let i = 1; i < nodes.count; i++) {
      const parent = nodes.parent[i];
      start[i] = start[parent] + next[parent];
      next[parent] += total[i];
    }
  }

  // Whether the filters take a row, all of them but one.
  takes(row, except) {
    const { filters, rows } = this;
    return (
      rows.type[row] === this.type &&
      (filters.process === null || except === "process" || filters.process.has(rows.process[row])) &&
      (filters.thread === null || except === "thread" || filters.thread.has(rows.thread[row])) &&
      (filters.span === null || except === "span" || filters.span.has(rows.span[row]))
    );
  }

  // The values of each choice of one filter, with the other filters as they are.
  choices(filter) {
    const column = this.rows[filter];
    const sums = new Map();
    for (let i = 0; i < this.rows.count; i++) {
      if (this.takes(i, filter)) sums.set(column[i], (sums.get(column[i]) ?? 0) + this.rows.value[i]);
    }
    return sums;
  }

  // Self and total of each frame. In a recursion only the outermost call counts for the total.
  functions() {
    const { nodes, frames, self, total } = this;
    const list = { self: new Float64Array(frames.count), total: new Float64Array(frames.count) };
    const open = new Int32Array(frames.count); // how often a frame is on the path
    const path = [];
    for (let i = 0; i < nodes.count; i++) {
      while (path.length > nodes.depth[i]) open[nodes.frame[path.pop()]]--;
      const frame = nodes.frame[i];
      list.self[frame] += self[i];
      if (open[frame] === 0) list.total[frame] += total[i];
      open[frame]++;
      path.push(i);
    }
    return list;
  }

  // The self values of each kind of frames, the largest first.
  kinds() {
    const sums = new Map();
    for (let i = 0; i < this.nodes.count; i++) {
      if (this.self[i] > 0) sums.set(this.kind(i), (sums.get(this.kind(i)) ?? 0) + this.self[i]);
    }
    return [...sums].sort((left, right) => right[1] - left[1]);
  }

  // Which frames match: a Uint8Array by frame. The text of a search is looked for in names, files and modules; between
  // slashes it is a regular expression. Throws SyntaxError if that is none.
  matches(search) {
    const matched = new Uint8Array(this.frames.count);
    const expression = /^\/(.+)\/$/.exec(search);
    const known = new Map(); // texts are shared by many frames
    const wanted = search.toLowerCase();
    const pattern = expression ? new RegExp(expression[1], "i") : null;
    const test = (place) => {
      let found = known.get(place);
      if (found === undefined) {
        const text = this.text(place);
        found = pattern ? pattern.test(text) : text.toLowerCase().includes(wanted);
        known.set(place, found);
      }
      return found;
    };
    for (let i = 0; i < this.frames.count; i++) {
      matched[i] = test(this.frames.name[i]) || test(this.frames.file[i]) || test(this.frames.module[i]) ? 1 : 0;
    }
    return matched;
  }

  // The values below a node of the stacks that have a frame which matches, each stack once.
  matchedValue(matched, below) {
    const { nodes, total } = this;
    let value = 0;
    for (let i = below; i < nodes.end[below];) {
      if (matched[nodes.frame[i]]) {
        value += total[i];
        i = nodes.end[i];
      } else {
        i++;
      }
    }
    return value;
  }

  unit() {
    return this.header.types[this.type].unit;
  }

  format(value) {
    return formatValue(value, this.unit(), this.header.types[this.type].name);
  }
}

const wholeNumber = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function formatValue(value, unit, name) {
  if (unit === "nanoseconds") {
    if (value >= 1e9) return `${trimmed(value / 1e9)} s`;
    if (value >= 1e6) return `${trimmed(value / 1e6)} ms`;
    if (value >= 1e3) return `${trimmed(value / 1e3)} µs`;
    return `${value} ns`;
  }
  if (unit === "bytes") {
    for (const [size, suffix] of [
      [2 ** 30, "GiB"],
      [2 ** 20, "MiB"],
      [2 ** 10, "KiB"],
    ]) {
      if (value >= size) return `${trimmed(value / size)} ${suffix}`;
    }
    return `${value} B`;
  }
  return `${wholeNumber.format(value)} ${unit === "count" ? name : unit}`;
}

// Three digits that count, and thousands apart.
function trimmed(value) {
  return value >= 1000 ? wholeNumber.format(value) : String(Number(value.toPrecision(3)));
}

function formatShare(value, of) {
  if (!(of > 0) || value === 0) return "0 %";
  const share = (100 * value) / of;
  if (share > 0 && share < 0.01) return "<0.01 %";
  return `${share >= 99.995 ? 100 : share.toFixed(share < 10 ? 2 : 1)} %`;
}
