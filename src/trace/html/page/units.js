// Numbers as people read and write them.

const UNITS = [
  ["s", 1e9],
  ["ms", 1e6],
  ["µs", 1e3],
  ["ns", 1],
];

/// The largest unit of which `ns` has at least one.
const unitOf = (ns) => UNITS.find(([, size]) => Math.abs(ns) >= size) ?? UNITS[3];

/// A duration, with four digits that count.
function duration(ns) {
  const [unit, size] = unitOf(ns);
  const value = ns / size;
  const digits = size === 1 ? 0 : Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value))));
  return `${grouped(value, digits)} ${unit}`;
}

/// A duration with all of its digits.
const exactDuration = (ns) => (ns < 1e4 ? duration(ns) : `${duration(ns)} (${grouped(ns)} ns)`);

/// A duration in few characters, to be read as "about".
function roughDuration(ns) {
  const [unit, size] = unitOf(ns);
  return `${Math.round(ns / size)} ${unit}`;
}

/// A number with thin spaces between groups of three digits before the point.
function grouped(value, digits = 0) {
  const [whole, fraction] = (
    typeof value === "bigint" ? String(value) : value.toFixed(digits)
  ).split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+$)/g, "\u2009");
  return fraction === undefined ? spaced : `${spaced}.${fraction}`;
}

const hex = (value) => `0x${value.toString(16)}`;

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;

/// `count` of something, with an s unless there is one.
const counted = (count, noun) => `${grouped(count)} ${noun}${Number(count) === 1 ? "" : "s"}`;

/// A duration such as `1.5us`, in nanoseconds; without a unit it is nanoseconds. Undefined if it
/// is none.
function parseDuration(text) {
  const [, value, unit] = /^(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)?$/.exec(text) ?? [];
  if (value === undefined) return undefined;
  const size = UNITS.find(([name]) => name === (unit ?? "ns").replace("us", "µs"))[1];
  return Number(value) * size;
}

/// An address or a range of them, such as `0x3f8` or `0x3f8-0x3ff`, as two BigInts. Undefined if
/// it is none.
function parseRange(text) {
  const number = "0x[0-9a-f]{1,16}|\\d{1,20}";
  const [, from, to] =
    new RegExp(`^(${number})(?:\\s*(?:-|–|\\.\\.)\\s*(${number}))?$`, "i").exec(text) ?? [];
  if (from === undefined) return undefined;
  return [BigInt(from), BigInt(to ?? from)];
}

/// Numbers and ranges of them, such as `0,4-7`, as a list of pairs. Undefined if it is none.
function parseList(text) {
  const pairs = text.split(",").map((part) => /^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$/.exec(part));
  if (pairs.includes(null)) return undefined;
  return pairs.map(([, from, to]) => [Number(from), Number(to ?? from)]);
}
