// Which exits are shown. The fields hold what the user typed; one that cannot be understood
// filters nothing, and its form field says so.

/// A range of addresses such as `0x3f8` or `port 0x3f8-0x3ff`. Undefined if it is none.
function parsePlace(text) {
  const [, space, addresses] = /^(?:(port|mmio)\s+)?(.*)$/i.exec(text);
  const range = parseRange(addresses);
  if (range === undefined) return undefined;
  return { spaces: space ? [space.toLowerCase()] : ["port", "mmio"], from: range[0], to: range[1] };
}

class Filter {
  constructor(trace) {
    this.trace = trace;
    this.shown = new Uint8Array(trace.exits.count);
    this.clear();
  }

  clear() {
    this.text = { vcpus: "", address: "", code: "", busy: "" };
    this.reasons = new Set(); // none means all
    this.inView = false;
    this.errors = {};
  }

  get isEmpty() {
    return (
      this.reasons.size === 0 &&
      !this.inView &&
      Object.values(this.text).every((text) => text === "")
    );
  }

  /// Marks what is shown, without regard to `inView`, which `Stats` sees to.
  apply() {
    const { trace, shown } = this;
    this.errors = {};
    const siteShown = this.#sites();
    const [vcpus, leastBusy] = [this.#vcpus(), this.#leastBusy()];
    const { site, busy } = trace.exits;
    for (const lane of trace.lanes) {
      const isShown = vcpus.some(([from, to]) => from <= lane.source && lane.source <= to);
      for (let [exit, end] = lane.exits; exit < end; exit++) {
        shown[exit] = isShown && busy[exit] >= leastBusy ? siteShown[site[exit]] : 0;
      }
    }
  }

  /// The value of a field; `none` if it is empty or cannot be understood.
  #parsed(field, parse, none) {
    const text = this.text[field].trim();
    if (text === "") return none;
    const value = parse(text);
    if (value === undefined) this.errors[field] = `'${text}' is not understood`;
    return value ?? none;
  }

  #vcpus() {
    return this.#parsed("vcpus", parseList, [[0, Infinity]]);
  }

  #leastBusy() {
    return this.#parsed("busy", parseDuration, 0);
  }

  /// For each site whether its exits may be shown.
  #sites() {
    const { trace, reasons } = this;
    const { reason, address, code, count } = trace.sites;
    const place = this.#parsed("address", parsePlace, null);
    const codeShown = this.#codes();
    return Uint8Array.from({ length: count }, (_, site) => {
      if (reasons.size > 0 && !reasons.has(reason[site])) return 0;
      if (codeShown && !codeShown[code[site]]) return 0;
      if (place === null) return 1;
      const isIn = place.from <= address[site] && address[site] <= place.to;
      return isIn && place.spaces.includes(SPACE[reasonOf(trace, site)]) ? 1 : 0;
    });
  }

  /// For each code, and 0 for none, whether it is asked for: by its RIP, or by a part of its name.
  /// Null if all are.
  #codes() {
    const text = this.text.code.trim().toLowerCase();
    if (text === "") return null;
    const { rip, name, count } = this.trace.codes;
    const range = parseRange(text);
    const matches = (index) =>
      range
        ? range[0] <= rip[index] && rip[index] <= range[1]
        : name[index].toLowerCase().includes(text);
    return [false, ...Array.from({ length: count }, (_, index) => matches(index))];
  }
}
