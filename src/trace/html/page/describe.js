// What things are called, and all that is known of one of them.

/// The address space of the reasons that have an address.
const SPACE = { "io-out": "port", "io-in": "port", "mmio-write": "mmio", "mmio-read": "mmio" };

/// What the number of an exit means that is no access.
const NUMBER_NAME = {
  "fail-entry": "host CPU",
  "internal-error": "suberror",
  "system-event": "kind",
  unhandled: "KVM's reason",
};

const reasonOf = (trace, site) => trace.reasons[trace.sites.reason[site]];

/// The port or the address of a site, or its reason if it has none.
function placeOf(trace, site) {
  const reason = reasonOf(trace, site);
  return reason in SPACE ? `${SPACE[reason]} ${hex(trace.sites.address[site])}` : reason;
}

/// The name of a code, which is a number above 0, or else its RIP.
function codeName(trace, code) {
  return trace.codes.name[code - 1] || hex(trace.codes.rip[code - 1]);
}

/// Data of `size` bytes: in hexadecimal, and as a character if it is one.
function dataText(low, high, size) {
  const value = (BigInt(high) << 32n) | BigInt(low);
  const digits = value.toString(16).padStart(2 * Math.min(size, 8), "0");
  const isCharacter = size === 1 && value > 32n && value < 127n;
  return isCharacter ? `0x${digits}  '${String.fromCharCode(low)}'` : `0x${digits}`;
}

/// One line: what an exit was.
function exitTitle(trace, exit) {
  const site = trace.exits.site[exit];
  const reason = reasonOf(trace, site);
  return reason in SPACE ? `${reason}  ${hex(trace.sites.address[site])}` : reason;
}

function handlingText(trace, exit) {
  const { handling, enqueue, wait, service } = trace.exits;
  switch (handling[exit]) {
    case HANDLING.PENDING:
      return "pending";
    case HANDLING.RUN_LOOP:
      return "by the run loop";
    case HANDLING.POSTED:
      return `posted in ${duration(enqueue[exit])}`;
    default:
      return `served in ${duration(service[exit])} after ${duration(wait[exit])}`;
  }
}

/// The rows that the access of a site has.
function accessRows(trace, site, dataLow, dataHigh) {
  const reason = reasonOf(trace, site);
  const { size, number, address } = trace.sites;
  const rows = [];
  if (reason in SPACE) {
    rows.push([SPACE[reason] === "port" ? "port" : "address", hex(address[site])]);
    const times = number[site] === 1 ? "" : ` × ${grouped(number[site])}`;
    rows.push(["size", `${counted(size[site], "byte")}${times}`]);
    rows.push(["data", dataText(dataLow, dataHigh, size[site] * number[site])]);
  } else if (reason in NUMBER_NAME) {
    rows.push([NUMBER_NAME[reason], String(number[site])]);
    if (reason === "fail-entry") rows.push(["hardware's reason", hex(address[site])]);
  }
  return rows;
}

/// All fields of an exit.
function exitRows(trace, exit) {
  const { exits, sites, codes } = trace;
  const site = exits.site[exit];
  const rows = [
    ["vCPU", String(trace.laneOfExit(exit).source)],
    ["number", grouped(exits.sequence[exit])],
    ["reason", reasonOf(trace, site)],
    ...accessRows(trace, site, exits.dataLow[exit], exits.dataHigh[exit]),
  ];
  const code = sites.code[site];
  if (code > 0) {
    rows.push(["RIP", hex(codes.rip[code - 1])]);
    if (codes.name[code - 1]) rows.push(["code", codes.name[code - 1]]);
  }
  rows.push(
    ["exit at", `${grouped(exits.time[exit])} ns`],
    ["in the guest", exactDuration(exits.guest[exit])],
    ["handling", handlingText(trace, exit)],
  );
  return rows;
}

/// All fields of a service.
function serviceRows(trace, service) {
  const { services } = trace;
  return [
    ["served by", trace.laneOfService(service).name],
    ["for", `vCPU ${services.vcpu[service]}, exit ${grouped(services.sequence[service])}`],
    ...accessRows(
      trace,
      services.site[service],
      services.dataLow[service],
      services.dataHigh[service],
    ),
    ["begin", `${grouped(services.time[service])} ns`],
    ["waited", exactDuration(services.wait[service])],
    ["took", exactDuration(services.took[service])],
  ];
}

/// All fields of a write to the host.
function outputRows(trace, output) {
  const { time, offset, len, took } = trace.outputs;
  return [
    ["begin", `${grouped(time[output])} ns`],
    ["bytes", grouped(len[output])],
    ["written before", grouped(offset[output])],
    ["took", exactDuration(took[output])],
  ];
}

/// One line: what a point was.
function pointText(trace, point) {
  const { kind, source, number, on, name } = trace.points;
  switch (kind[point]) {
    case "kick":
      return `kicked by ${sourceName(source[point])}`;
    case "interrupt":
      return `IRQ ${number[point]} ${on[point] ? "high" : "low"}`;
    case "completed":
      return `completed ${name[point]}`;
    case "marker":
      return `marker ${name[point]}`;
    case "recording":
      return `recording ${on[point] ? "on" : "off"}`;
    default:
      return kind[point];
  }
}
