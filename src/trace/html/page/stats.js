// What the shown exits come to: their number, histograms, and tables.

const BUCKETS = 54;

/// The bucket of a duration: 0 for 0, and n for 2^(n-1) up to 2^n.
const bucketOf = (ns) => (ns < 2 ** 31 ? 32 - Math.clz32(ns) : Math.floor(Math.log2(ns)) + 1);

class Distribution {
  buckets = new Uint32Array(BUCKETS);
  count = 0;
  sum = 0;
  most = 0;

  add(ns) {
    this.buckets[bucketOf(ns)]++;
    this.count++;
    this.sum += ns;
    if (ns > this.most) this.most = ns;
  }
}

class Stats {
  /// Of the exits that `shown` marks, and, if `range` is not null, that happened within it.
  constructor(trace, shown, range) {
    this.trace = trace;
    this.guest = new Distribution();
    this.busy = new Distribution();
    const sites = trace.sites.count;
    this.siteCount = new Uint32Array(sites);
    this.siteSum = new Float64Array(sites);
    this.siteMost = new Float64Array(sites);
    for (const lane of trace.lanes) this.#addLane(lane, shown, range);
  }

  get count() {
    return this.busy.count;
  }

  #addLane(lane, shown, range) {
    const { time, guest, busy, site } = this.trace.exits;
    let [from, to] = lane.exits;
    if (range) {
      [from, to] = [firstNotBelow(time, range[0], from, to), firstAbove(time, range[1], from, to)];
    }
    for (let exit = from; exit < to; exit++) {
      if (!shown[exit]) continue;
      this.guest.add(guest[exit]);
      this.busy.add(busy[exit]);
      const which = site[exit];
      this.siteCount[which]++;
      this.siteSum[which] += busy[exit];
      if (busy[exit] > this.siteMost[which]) this.siteMost[which] = busy[exit];
    }
  }

  /// Rows for the groups that `groupOf` puts the sites into: it returns the name of a site's group
  /// and whatever a row is to carry along.
  #rows(groupOf) {
    const rows = new Map();
    for (let site = 0; site < this.siteCount.length; site++) {
      if (this.siteCount[site] === 0) continue;
      const { name, ...more } = groupOf(site);
      const row = rows.get(name) ?? { name, ...more, count: 0, total: 0, max: 0 };
      row.count += this.siteCount[site];
      row.total += this.siteSum[site];
      row.max = Math.max(row.max, this.siteMost[site]);
      row.mean = row.total / row.count;
      rows.set(name, row);
    }
    return [...rows.values()];
  }

  /// By port or address; by reason what has none.
  places() {
    const { trace } = this;
    return this.#rows((site) => {
      const reason = trace.sites.reason[site];
      const name = placeOf(trace, site);
      return { name, filter: trace.reasons[reason] in SPACE ? { address: name } : { reason } };
    });
  }

  /// By the code that was running.
  codes() {
    const { trace } = this;
    return this.#rows((site) => {
      const code = trace.sites.code[site];
      if (code === 0) return { name: "unknown" };
      const rip = hex(trace.codes.rip[code - 1]);
      return { name: codeName(trace, code), hint: rip, filter: { code: rip } };
    });
  }
}

/// Sorts rows by a column: texts upwards, numbers downwards, or the other way if `reversed`.
function sortRows(rows, key, reversed) {
  const order =
    key === "name"
      ? (a, b) => a.name.localeCompare(b.name, "en", { numeric: true })
      : (a, b) => b[key] - a[key];
  rows.sort(reversed ? (a, b) => order(b, a) : order);
}
