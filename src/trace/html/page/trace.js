// The trace: its columns, by the things they are about, and its threads.

const DEVICES = 0xffffffff;
const SUPERVISOR = 0xfffffffe;
const HANDLING = { PENDING: 0, RUN_LOOP: 1, POSTED: 2, SERVED: 3 };

function sourceName(source) {
  if (source === DEVICES) return "devices";
  return source === SUPERVISOR ? "supervisor" : `vCPU ${source}`;
}

/// The columns of one table: `table(column, "exit", ["time", ...])` has `time` and `count`.
function table(column, name, fields) {
  const made = {};
  for (const field of fields) made[field] = column(`${name}.${field}`);
  made.count = made[fields[0]].length;
  made.columns = fields.map((field) => made[field]);
  return made;
}

class Trace {
  constructor(column) {
    const keys = column("info.key");
    this.info = Object.fromEntries(keys.map((key, index) => [key, column("info.value")[index]]));
    this.reasons = column("reason.name");
    this.sites = table(column, "site", ["reason", "size", "number", "address", "code"]);
    this.codes = table(column, "code", ["rip", "name"]);
    this.totals = table(column, "totals", ["source", "seen", "kept", "filtered", "dropped"]);
    this.exits = table(column, "exit", [
      "time",
      "guest",
      "sequence",
      "site",
      "handling",
      "first",
      "second",
      "dataLow",
      "dataHigh",
    ]);
    this.services = table(column, "service", [
      "time",
      "vcpu",
      "sequence",
      "site",
      "wait",
      "took",
      "dataLow",
      "dataHigh",
    ]);
    this.outputs = table(column, "output", ["time", "offset", "len", "took"]);
    this.points = table(column, "point", ["time", "source", "kind", "number", "on", "name"]);
    this.#makeLanes(column);
    this.#makeParts();
    sortRange(this.outputs.columns, this.outputs.time, 0, this.outputs.count);
    sortRange(this.points.columns, this.points.time, 0, this.points.count);
    for (let point = 0; point < this.points.count; point++) {
      const lane = this.laneOf.get(this.pointLane(point));
      lane?.points.push(point);
      lane?.pointTimes.push(this.points.time[point]);
    }
    this.#measure();
  }

  /// A lane for each thread: the ranges of its exits and services, and its points.
  #makeLanes(column) {
    const { source, exits, services } = table(column, "lane", ["source", "exits", "services"]);
    let [exit, service] = [0, 0];
    this.lanes = Array.from(source, (source, index) => {
      const lane = { source, name: sourceName(source), points: [], pointTimes: [] };
      lane.exits = [exit, (exit += exits[index])];
      lane.services = [service, (service += services[index])];
      sortRange(this.exits.columns, this.exits.time, ...lane.exits);
      sortRange(this.services.columns, this.services.time, ...lane.services);
      return lane;
    });
    this.laneOf = new Map(this.lanes.map((lane) => [lane.source, lane]));
  }

  /// What the time of each exit consists of, whichever way it was handled.
  #makeParts() {
    const { count, time, guest, handling, first, second } = this.exits;
    const begin = new Float64Array(count);
    const [enqueue, wait] = [new Uint32Array(count), new Uint32Array(count)];
    const busy = new Float64Array(count);
    for (let exit = 0; exit < count; exit++) {
      begin[exit] = time[exit] - guest[exit];
      if (handling[exit] === HANDLING.POSTED) enqueue[exit] = first[exit];
      else wait[exit] = first[exit];
      busy[exit] = first[exit] + second[exit];
    }
    Object.assign(this.exits, { begin, enqueue, wait, service: second, busy });
  }

  /// From when to when anything happened.
  #measure() {
    let [start, end] = [Infinity, -Infinity];
    const include = (from, to) => {
      start = Math.min(start, from);
      end = Math.max(end, to);
    };
    const { exits, services, outputs, points } = this;
    for (let i = 0; i < exits.count; i++) include(exits.begin[i], exits.time[i] + exits.busy[i]);
    for (let i = 0; i < services.count; i++)
      include(services.time[i], services.time[i] + services.took[i]);
    for (let i = 0; i < outputs.count; i++)
      include(outputs.time[i], outputs.time[i] + outputs.took[i]);
    for (let i = 0; i < points.count; i++) include(points.time[i], points.time[i]);
    // An empty trace, or one of a single moment, still has something to look at.
    if (start > end) [start, end] = [0, 0];
    if (end - start < 1000) end = start + 1000;
    [this.start, this.end] = [Math.max(0, start), end];
  }

  /// The thread in whose lane a point is shown: a kick in that of its target.
  pointLane(point) {
    const { kind, number, source } = this.points;
    return kind[point] === "kick" ? number[point] : source[point];
  }

  laneOfExit(exit) {
    return this.#laneAt("exits", exit);
  }

  laneOfService(service) {
    return this.#laneAt("services", service);
  }

  #laneAt(table, index) {
    return this.lanes.find((lane) => lane[table][0] <= index && index < lane[table][1]);
  }

  /// The services of an exit, in the order of their times.
  servicesOf(exit) {
    const vcpu = this.laneOfExit(exit).source;
    const sequence = this.exits.sequence[exit];
    const { services } = this;
    const found = [];
    for (let service = 0; service < services.count; service++) {
      if (services.sequence[service] === sequence && services.vcpu[service] === vcpu)
        found.push(service);
    }
    return found.sort((a, b) => services.time[a] - services.time[b]);
  }

  /// The exit of a service; undefined if it is not in the trace.
  exitOf(service) {
    const sequence = this.services.sequence[service];
    const [from, to] = this.laneOf.get(this.services.vcpu[service])?.exits ?? [0, 0];
    const exit = firstNotBelow(this.exits.sequence, sequence, from, to);
    return exit < to && this.exits.sequence[exit] === sequence ? exit : undefined;
  }
}
