// The flame graph. Only what can be seen is drawn: a node narrower than half a pixel is left out with all that lies below
// it, so the work depends on the size of the window and not on that of the profile.

const ROW = 20; // height of a frame in CSS pixels
const NARROWEST = 0.5;

// Hues of the kinds of frames that OpenTelemetry names (profile.frame.type), in degrees, and how coloured they are. A map,
// because a file may name a kind as it likes, also as what every object has.
const HUES = new Map(
  Object.entries({
    kernel: [22, 82],
    native: [214, 72],
    go: [178, 58],
    cpython: [48, 86],
    jvm: [345, 68],
    v8js: [102, 48],
    ruby: [2, 70],
    php: [252, 55],
    perl: [236, 45],
    dotnet: [282, 50],
    beam: [318, 52],
    luajit: [200, 80],
    rust: [14, 45],
    process: [220, 8],
    root: [220, 8],
    truncated: [220, 0],
    "": [220, 14],
  }),
);
const SHADES = 4; // neighbours of one kind differ a little

class Palette {
  constructor(dark) {
    this.dark = dark;
    this.text = dark ? "#f2f4f7" : "#14171c";
    this.found = dark ? "#f5d0fe" : "#a21caf";
    this.foundText = dark ? "#3b0764" : "#ffffff";
    this.outline = dark ? "#ffffff" : "#000000";
    this.cache = new Map();
  }

  color(kind, shade = 1) {
    const key = kind + "\n" + shade;
    let color = this.cache.get(key);
    if (color === undefined) {
      const [hue, saturation] = HUES.get(kind) ?? [hash(kind) % 360, 45];
      const lightness = this.dark ? 29 + 3 * shade : 70 + 4 * shade;
      color = `hsl(${hue} ${this.dark ? saturation * 0.75 : saturation}% ${lightness}%)`;
      this.cache.set(key, color);
    }
    return color;
  }
}

function hash(text) {
  let hashed = 2166136261; // FNV-1a
  for (let i = 0; i < text.length; i++) hashed = Math.imul(hashed ^ text.charCodeAt(i), 16777619);
  return hashed >>> 0;
}

class Chart {
  // Calls back with a node, or -1 for none: hovered(node, x, y), selected(node), zoomed().
  constructor(tree, elements, callbacks) {
    this.tree = tree;
    this.canvas = elements.canvas;
    this.scroller = elements.scroller;
    this.spacer = elements.spacer;
    this.callbacks = callbacks;
    this.context = this.canvas.getContext("2d");
    this.shades = Uint8Array.from({ length: tree.frames.count }, (_, i) => hash(tree.text(tree.frames.name[i])) % SHADES);
    this.matched = null;
    this.flipped = false; // the root is at the bottom
    this.zoom = 0;
    this.history = [];
    this.selection = -1;
    this.hover = -1;
    this.scheduled = false;

    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const paint = () => {
      this.palette = new Palette(scheme.matches);
      this.callbacks.painted?.();
      this.schedule();
    };
    this.palette = new Palette(scheme.matches);
    scheme.addEventListener("change", paint);
    new ResizeObserver(() => this.resize()).observe(this.scroller);
    this.scroller.addEventListener("scroll", () => this.schedule(), { passive: true });
    this.canvas.addEventListener("pointermove", (event) => this.pointed(event));
    this.canvas.addEventListener("pointerleave", () => this.setHover(-1));
    this.canvas.addEventListener("click", (event) => this.clicked(event));
    this.canvas.addEventListener("keydown", (event) => this.pressed(event));
    this.canvas.addEventListener("blur", () => this.select(-1));
  }

  // The values have changed.
  refresh() {
    this.history = this.history.filter((node) => this.tree.total[node] > 0);
    if (this.tree.total[this.zoom] === 0) this.zoom = 0;
    this.selection = -1;
    this.setHover(-1);
    this.measure();
    this.callbacks.zoomed();
  }

  zoomTo(node, remember = true) {
    if (node === this.zoom || node < 0) return;
    if (remember) this.history.push(this.zoom);
    this.zoom = node;
    this.setHover(-1);
    this.measure();
    // Ancestors stay in sight only if they fit: what was clicked matters more.
    if (!this.flipped) this.scroller.scrollTop = Math.max(0, this.tree.nodes.depth[node] * ROW - this.height / 3);
    else this.scroller.scrollTop = this.scroller.scrollHeight;
    this.callbacks.zoomed();
  }

  back() {
    if (this.history.length > 0) this.zoomTo(this.history.pop(), false);
  }

  reset() {
    this.zoomTo(0, false);
    this.history = [];
    this.callbacks.zoomed();
  }

  flip() {
    this.flipped = !this.flipped;
    this.measure();
    this.scroller.scrollTop = this.flipped ? this.scroller.scrollHeight : 0;
  }

  resize() {
    // The canvas is as large as what can be seen of it, however deep the stacks are: canvases have a largest size.
    const ratio = devicePixelRatio || 1;
    this.width = this.scroller.clientWidth;
    this.height = this.scroller.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.font = `12px ${getComputedStyle(document.documentElement).getPropertyValue("--mono")}`;
    this.context.textBaseline = "middle";
    this.character = this.context.measureText("0").width;
    this.measure();
  }

  // How many rows are wide enough to be drawn, and so how far one can scroll.
  measure() {
    const { nodes, total } = this.tree;
    const narrowest = (total[this.zoom] * NARROWEST) / (this.width || 1);
    let deepest = nodes.depth[this.zoom];
    for (let i = this.zoom; i < nodes.end[this.zoom];) {
      if (total[i] < narrowest || total[i] === 0) {
        i = nodes.end[i];
        continue;
      }
      if (nodes.depth[i] > deepest) deepest = nodes.depth[i];
      i++;
    }
    this.levels = deepest + 1;
    this.spacer.style.height = `${this.levels * ROW}px`;
    this.schedule();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
    });
  }

  y(depth) {
    const row = this.flipped ? Math.max(this.levels, Math.floor(this.height / ROW)) - 1 - depth : depth;
    return row * ROW - this.scroller.scrollTop;
  }

  x(node) {
    const { start, total } = this.tree;
    return ((start[node] - start[this.zoom]) / total[this.zoom]) * this.width;
  }

  isAncestor(node) {
    return node < this.zoom && this.tree.nodes.end[node] > this.zoom;
  }

  draw() {
    const { tree, context, width, height } = this;
    const { nodes, total } = tree;
    context.clearRect(0, 0, width, height);
    if (total[this.zoom] === 0) return;
    for (let node = nodes.parent[this.zoom]; node >= 0; node = nodes.parent[node]) {
      this.drawFrame(node, 0, this.y(nodes.depth[node]), width, 0.5);
    }
    const scale = width / total[this.zoom];
    const end = nodes.end[this.zoom];
    for (let i = this.zoom; i < end;) {
      const wide = total[i] * scale;
      const y = this.y(nodes.depth[i]);
      const beyond = this.flipped ? y < -ROW : y > height; // so is all that lies below it
      if (wide < NARROWEST || beyond) {
        i = nodes.end[i];
        continue;
      }
      if (y > -ROW && y < height) this.drawFrame(i, this.x(i), y, wide, 1);
      i++;
    }
    if (this.selection >= 0) this.drawOutline(this.selection);
    if (this.hover >= 0 && this.hover !== this.selection) this.drawOutline(this.hover);
  }

  drawFrame(node, x, y, wide, opacity) {
    const { tree, context, palette } = this;
    const frame = tree.nodes.frame[node];
    const found = this.matched !== null && this.matched[frame] === 1;
    context.globalAlpha = this.matched !== null && !found ? opacity * 0.38 : opacity;
    context.fillStyle = found ? palette.found : palette.color(tree.kind(node), this.shades[frame]);
    context.fillRect(x, y, wide > 3 ? wide - 1 : wide, ROW - 1);
    const room = Math.floor((wide - 8) / this.character);
    if (room < 2) return;
    context.globalAlpha = this.matched !== null && !found ? 0.75 : Math.max(opacity, 0.8);
    context.fillStyle = found ? palette.foundText : palette.text;
    const label = this.label(tree.text(tree.frames.name[frame]), tree.kind(node), room);
    if (/^[\x20-\x7e…]*$/.test(label)) {
      context.fillText(label, x + 4, y + ROW / 2);
    } else {
      // of characters of any width
      context.save();
      context.beginPath();
      context.rect(x, y, wide - 4, ROW);
      context.clip();
      context.fillText(label, x + 4, y + ROW / 2);
      context.restore();
    }
    context.globalAlpha = 1;
  }

  // What fits of a name. Of a path of packages the end says most.
  label(name, kind, room) {
    if (name.length <= room) return name;
    if (kind === "jvm") {
      name = name.split(".").slice(-2).join("."); // class and method
    } else if (!name.startsWith("[")) {
      const head = name.search(/[<(]/); // slashes in arguments are not of the path
      const slash = name.lastIndexOf("/", head < 0 ? name.length : head);
      if (slash >= 0) name = name.slice(slash + 1);
    }
    return name.length <= room ? name : name.slice(0, room - 1) + "…";
  }

  drawOutline(node) {
    const { context, tree } = this;
    const above = this.isAncestor(node);
    const wide = above ? this.width : (tree.total[node] / tree.total[this.zoom]) * this.width;
    context.globalAlpha = 1;
    context.strokeStyle = this.palette.outline;
    context.lineWidth = node === this.selection ? 2 : 1;
    context.strokeRect(
      (above ? 0 : this.x(node)) + 0.5,
      this.y(tree.nodes.depth[node]) + 0.5,
      Math.max(wide - 2, 1),
      ROW - 2,
    );
  }

  // The node that is drawn at a point of the canvas, or -1.
  nodeAt(x, y) {
    const { nodes, total } = this.tree;
    if (total[this.zoom] === 0 || !(x >= 0 && x < this.width)) return -1;
    const row = Math.floor((y + this.scroller.scrollTop) / ROW);
    const depth = this.flipped ? Math.max(this.levels, Math.floor(this.height / ROW)) - 1 - row : row;
    if (depth < 0) return -1;
    let node = this.zoom;
    if (depth < nodes.depth[node]) {
      while (nodes.depth[node] > depth) node = nodes.parent[node];
      return node;
    }
    while (nodes.depth[node] < depth) {
      let inside = -1;
      for (let child = node + 1; child < nodes.end[node]; child = nodes.end[child]) {
        const left = this.x(child);
        const wide = (total[child] / total[this.zoom]) * this.width;
        if (wide >= NARROWEST && x >= left && x < left + wide) {
          inside = child;
          break;
        }
      }
      if (inside < 0) return -1;
      node = inside;
    }
    return node;
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  pointed(event) {
    const node = this.nodeAt(...this.place(event));
    this.setHover(node, event.clientX, event.clientY);
  }

  setHover(node, x = 0, y = 0) {
    if (this.hover !== node) {
      this.hover = node;
      this.canvas.style.cursor = node >= 0 ? "pointer" : "default";
      this.schedule();
    }
    this.callbacks.hovered(node, x, y);
  }

  clicked(event) {
    const node = this.nodeAt(...this.place(event));
    if (node >= 0) this.zoomTo(node);
  }

  select(node) {
    if (this.selection === node) return;
    this.selection = node;
    if (node >= 0) {
      const y = this.y(this.tree.nodes.depth[node]);
      if (y < 0) this.scroller.scrollTop += y;
      else if (y + ROW > this.height) this.scroller.scrollTop += y + ROW - this.height;
    }
    this.callbacks.selected(node);
    this.schedule();
  }

  // Where a frame that is selected is drawn, in the window.
  placeOf(node) {
    const box = this.canvas.getBoundingClientRect();
    const x = this.isAncestor(node) ? 0 : Math.max(this.x(node), 0);
    return [box.left + x, box.top + this.y(this.tree.nodes.depth[node]) + ROW];
  }

  pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      if (this.selection >= 0) this.zoomTo(this.selection);
    } else if (["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home"].includes(event.key)) {
      this.select(this.neighbour(event.key));
    } else {
      return;
    }
    event.preventDefault();
  }

  neighbour(key) {
    const { nodes, total } = this.tree;
    const from = this.selection;
    if (from < 0 || key === "Home") return this.zoom;
    const away = this.flipped ? "ArrowUp" : "ArrowDown"; // from the root
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const parent = nodes.parent[from];
      if (parent < 0) return from;
      let before = -1;
      for (let child = parent + 1; child < nodes.end[parent]; child = nodes.end[child]) {
        if (total[child] === 0) continue;
        if (key === "ArrowLeft" && child === from) return before < 0 ? from : before;
        if (key === "ArrowRight" && child > from) return child;
        before = child;
      }
      return from;
    }
    if (key !== away) return nodes.parent[from] < 0 ? from : nodes.parent[from];
    if (this.isAncestor(from)) {
      // the next on the way to what is zoomed
      let node = this.zoom;
      while (nodes.parent[node] !== from) node = nodes.parent[node];
      return node;
    }
    let widest = from;
    for (let child = from + 1; child < nodes.end[from]; child = nodes.end[child]) {
      if (total[child] > 0 && (widest === from || total[child] > total[widest])) widest = child;
    }
    return widest;
  }
}
