// Reading the data that is embedded in the page. page.go writes it: gzip in base64; inside, the length of a header in JSON,
// the header, and numbers of variable length.

async function readData(element) {
  const text = element.textContent;
  element.textContent = ""; // it is large, and not needed any more
  const packed = decodeBase64(text);
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot decompress the data: it needs one of 2023 or later");
  }
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const numbers = new Numbers(new Uint8Array(await new Response(stream).arrayBuffer()));
  const header = numbers.json(numbers.next());
  return { header, frames: readFrames(numbers), nodes: readNodes(numbers), rows: readRows(numbers) };
}

function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

class Numbers {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  // Multiplied rather than shifted: values have more than 32 bits. Above 2^53 they are rounded.
  next() {
    let number = 0;
    let scale = 1;
    for (;;) {
      const byte = this.bytes[this.at++];
      number += (byte & 127) * scale;
      if (!(byte & 128)) return number;
      scale *= 128;
    }
  }

  json(length) {
    const text = new TextDecoder().decode(this.bytes.subarray(this.at, this.at + length));
    this.at += length;
    return JSON.parse(text);
  }
}

function readFrames(numbers) {
  const count = numbers.next();
  const frames = {
    count,
    name: new Int32Array(count),
    file: new Int32Array(count),
    kind: new Int32Array(count),
    module: new Int32Array(count),
    line: new Float64Array(count),
  };
  for (let i = 0; i < count; i++) {
    frames.name[i] = numbers.next();
    frames.file[i] = numbers.next();
    frames.kind[i] = numbers.next();
    frames.module[i] = numbers.next();
    frames.line[i] = numbers.next();
  }
  return frames;
}

// Nodes come in the order in which they are drawn, so a node's descendants are those from it to its end.
function readNodes(numbers) {
  const count = numbers.next();
  const nodes = {
    count,
    frame: new Int32Array(count),
    depth: new Int32Array(count),
    parent: new Int32Array(count),
    end: new Int32Array(count),
    inlined: new Uint8Array(count),
  };
  const path = []; // the nodes that are open, by depth
  for (let i = 0; i < count; i++) {
    const up = numbers.next();
    const depth = path.length - (up >> 1);
    while (path.length > depth) nodes.end[path.pop()] = i;
    nodes.parent[i] = depth > 0 ? path[depth - 1] : -1;
    nodes.depth[i] = depth;
    nodes.inlined[i] = up & 1;
    nodes.frame[i] = numbers.next();
    path.push(i);
  }
  while (path.length > 0) nodes.end[path.pop()] = count;
  return nodes;
}

function readRows(numbers) {
  const count = numbers.next();
  const rows = {
    count,
    node: new Int32Array(count),
    process: new Int32Array(count),
    thread: new Int32Array(count),
    span: new Int32Array(count),
    type: new Uint8Array(count),
    value: new Float64Array(count),
  };
  let node = 0;
  for (let i = 0; i < count; i++) {
    node += numbers.next();
    rows.node[i] = node;
    rows.process[i] = numbers.next();
    rows.thread[i] = numbers.next();
    rows.span[i] = numbers.next();
    rows.type[i] = numbers.next();
    rows.value[i] = numbers.next();
  }
  return rows;
}
