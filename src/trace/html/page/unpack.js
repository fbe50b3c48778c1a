// Turns the page's data back into columns. pack.rs wrote them, and says how they are packed.

const ARRAY_OF_KIND = [Uint32Array, Float64Array, Float64Array, BigUint64Array, Array];
const DELTA = 2;
const EXACT = 3;
const TEXT = 4;

function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

async function inflate(bytes) {
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
}

/// Reads one thing after the other from bytes.
class Unpacker {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
    this.decoder = new TextDecoder();
  }

  get atEnd() {
    return this.at >= this.bytes.length;
  }

  number() {
    const { bytes } = this;
    let { at } = this;
    let byte = bytes[at++];
    let value = byte & 127;
    for (let scale = 128; byte >= 128; scale *= 128) {
      byte = bytes[at++];
      value += (byte & 127) * scale;
    }
    this.at = at;
    return value;
  }

  /// A number as a BigInt.
  exact() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.bytes[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (!(byte >= 128)) return value;
    }
  }

  text() {
    const length = this.number();
    this.at += length;
    return this.decoder.decode(this.bytes.subarray(this.at - length, this.at));
  }

  /// The head of a part of a column; its values are skipped.
  part() {
    const [name, kind, count, length] = [this.text(), this.number(), this.number(), this.number()];
    const start = this.at;
    this.at += length;
    return { name, kind, count, start };
  }

  /// Reads the values of a part into `values`, from `offset` on.
  values({ kind, count, start }, values, offset) {
    this.at = start;
    const end = offset + count;
    switch (kind) {
      case DELTA:
        for (let last = 0; offset < end; offset++) {
          const coded = this.number();
          last += coded % 2 === 0 ? coded / 2 : (1 - coded) / 2;
          values[offset] = last;
        }
        break;
      case EXACT:
        for (; offset < end; offset++) values[offset] = this.exact();
        break;
      case TEXT:
        for (; offset < end; offset++) values[offset] = this.text();
        break;
      default:
        for (; offset < end; offset++) values[offset] = this.number();
    }
  }
}

/// All columns: an array for each name, and an empty one for a name that is not there.
async function unpack(base64) {
  const unpacker = new Unpacker(await inflate(decodeBase64(base64)));
  const parts = new Map();
  while (!unpacker.atEnd) {
    const part = unpacker.part();
    parts.set(part.name, [...(parts.get(part.name) ?? []), part]);
  }
  const columns = new Map();
  for (const [name, [first, ...more]] of parts) {
    const count = more.reduce((sum, part) => sum + part.count, first.count);
    const values = new ARRAY_OF_KIND[first.kind](count);
    let offset = 0;
    for (const part of [first, ...more]) {
      unpacker.values(part, values, offset);
      offset += part.count;
    }
    columns.set(name, values);
  }
  return (name) => columns.get(name) ?? [];
}
