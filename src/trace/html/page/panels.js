// The panels around the timeline: the head, the filters, the details, histograms and tables.

/// The most rows that a table shows.
const MOST_ROWS = 200;

/// What the trace is of, and what became of its exits.
function showHead(trace) {
  const { info, totals } = trace;
  document.title = `${info.guest || "guest"} – minivmm trace`;
  byId("guest").textContent = info.guest || "unnamed guest";
  const facts = [counted(BigInt(info.vcpus || 0), "vCPU"), duration(trace.end - trace.start)];
  if (info.epochNs !== "0")
    facts.push(new Date(Number(BigInt(info.epochNs) / 1000000n)).toLocaleString());
  if (info.filter) facts.push(`recorded with filter ${info.filter}`);
  if (info.complete === "") facts.push("ends early");
  byId("facts").append(...facts.map((fact) => element("li", {}, fact)));
  // Those of the exits: what is not a vCPU's has totals of its own.
  const isVcpu = (index) => totals.source[index] < SUPERVISOR;
  const sum = (column) =>
    Array.from(column).reduce((sum, value, index) => (isVcpu(index) ? sum + value : sum), 0n);
  if (totals.count > 0) {
    for (const name of ["seen", "kept", "filtered", "dropped"]) {
      const count = sum(totals[name]);
      const isBad = name === "dropped" && count > 0n;
      byId("totals").append(
        element(
          "div",
          { class: isBad ? "bad" : undefined },
          element("dt", {}, name),
          element("dd", {}, grouped(count)),
        ),
      );
    }
  }
  byId("note").textContent = info.note;
  byId("note").hidden = info.note === "";
}

/// The form of the filters. `changed` is called after each change of one.
class FilterForm {
  constructor(trace, filter, changed) {
    Object.assign(this, { filter, changed });
    const counts = new Float64Array(trace.reasons.length);
    for (const site of trace.exits.site) counts[trace.sites.reason[site]]++;
    this.chips = new Map();
    counts.forEach((count, reason) => {
      if (count === 0) return;
      const chip = element(
        "button",
        { type: "button", class: "chip", onclick: () => this.toggleReason(reason) },
        trace.reasons[reason],
        element("small", {}, grouped(count)),
      );
      this.chips.set(reason, chip);
    });
    byId("reasons").append(...this.chips.values());
    for (const field of Object.keys(filter.text)) {
      byId(field).addEventListener("input", () => this.set({ [field]: byId(field).value }));
    }
    byId("in-view").addEventListener("change", () => {
      filter.inView = byId("in-view").checked;
      changed();
    });
    byId("clear").addEventListener("click", () => {
      filter.clear();
      changed();
    });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  set(fields) {
    Object.assign(this.filter.text, fields);
    this.changed();
  }

  toggleReason(reason) {
    const { reasons } = this.filter;
    if (!reasons.delete(reason)) reasons.add(reason);
    this.changed();
  }

  /// Brings the form to what the filter is.
  show() {
    const { filter } = this;
    for (const [field, text] of Object.entries(filter.text)) {
      const input = byId(field);
      if (input.value !== text) input.value = text;
      input.setAttribute("aria-invalid", String(field in filter.errors));
      input.title = filter.errors[field] ?? "";
    }
    for (const [reason, chip] of this.chips)
      chip.setAttribute("aria-pressed", String(filter.reasons.has(reason)));
    byId("in-view").checked = filter.inView;
    byId("clear").disabled = filter.isEmpty;
  }
}

/// Details of an exit with its services, or of what else was clicked.
function showDetails(timeline, hit) {
  const { trace } = timeline;
  const body = byId("details-body");
  if (hit === undefined) {
    body.replaceChildren(
      element(
        "p",
        { class: "hint" },
        "Click something in the timeline to see all that is known of it.",
      ),
    );
    return;
  }
  if (hit.what !== "exit") {
    body.replaceChildren(...tooltipOf(timeline, hit));
    return;
  }
  body.replaceChildren(
    element("h3", {}, exitTitle(trace, hit.index)),
    descriptions(exitRows(trace, hit.index)),
  );
  const posted = trace.exits.handling[hit.index] === HANDLING.POSTED;
  if (timeline.links.length === 0 && posted) {
    body.append(element("p", { class: "hint" }, "Its service is not in the trace."));
  }
  timeline.links.slice(0, 16).forEach((service) => {
    body.append(element("h3", {}, "Service"), descriptions(serviceRows(trace, service)));
  });
  if (timeline.links.length > 16) {
    body.append(
      element("p", { class: "hint" }, `and ${counted(timeline.links.length - 16, "more service")}`),
    );
  }
}

/// A histogram of a distribution. A click on a bar calls `pick` with the bucket's least duration.
function showHistogram(place, { buckets, count, sum, most }, pick) {
  const used = Array.from(buckets.keys()).filter((bucket) => buckets[bucket] > 0);
  const highest = buckets.reduce((highest, value) => Math.max(highest, value), 1);
  const bars = element("div", { class: "bars" });
  // Not each bar has a label, so that labels have room.
  const every = Math.ceil((used.length && used.at(-1) - used[0] + 1) / 8);
  const least = (bucket) => (bucket === 0 ? 0 : 2 ** (bucket - 1));
  for (let bucket = used[0]; bucket <= used.at(-1); bucket++) {
    const range =
      bucket === 0 ? "0 ns" : `${duration(least(bucket))} to ${duration(least(bucket + 1))}`;
    const label = `${range}: ${counted(buckets[bucket], "exit")}`;
    const bar = element(
      pick ? "button" : "div",
      { class: "bar", title: label, "aria-label": label, type: pick && "button" },
      element("i"),
      element("span", {}, (bucket - used[0]) % every === 0 ? roughDuration(least(bucket)) : ""),
    );
    bar.firstChild.style.height =
      buckets[bucket] === 0 ? "0" : `max(2px, ${(100 * buckets[bucket]) / highest}%)`;
    if (pick) bar.addEventListener("click", () => pick(least(bucket)));
    bars.append(bar);
  }
  const facts = count === 0 ? "no exits" : `mean ${duration(sum / count)} · max ${duration(most)}`;
  place.replaceChildren(bars, element("p", { class: "hint" }, facts));
}

const TABLE_COLUMNS = [
  ["name", null],
  ["count", grouped],
  ["total", duration],
  ["mean", duration],
  ["max", duration],
];

/// A table whose columns sort it, and whose rows filter.
class StatsTable {
  constructor(place, title, pick) {
    Object.assign(this, { place, title, pick, key: "count", reversed: false, rows: [] });
    this.heads = new Map(
      TABLE_COLUMNS.map(([key]) => {
        const button = element(
          "button",
          { type: "button", onclick: () => this.sortBy(key) },
          key === "name" ? title : key,
        );
        return [key, element("th", { scope: "col" }, button)];
      }),
    );
    this.body = element("tbody");
    place.append(
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...this.heads.values())),
        this.body,
      ),
    );
    this.more = element("p", { class: "hint" });
    place.append(this.more);
  }

  sortBy(key) {
    this.reversed = this.key === key && !this.reversed;
    this.key = key;
    this.show(this.rows);
  }

  show(rows) {
    this.rows = rows;
    sortRows(rows, this.key, this.reversed);
    for (const [key, head] of this.heads) {
      const isUp = (key === "name") !== this.reversed;
      head.setAttribute("aria-sort", key !== this.key ? "none" : isUp ? "ascending" : "descending");
    }
    const most = rows.reduce((most, row) => Math.max(most, row.count), 1);
    this.body.replaceChildren(...rows.slice(0, MOST_ROWS).map((row) => this.#row(row, most)));
    const hidden = rows.length - MOST_ROWS;
    this.more.textContent =
      rows.length === 0 ? "no exits" : hidden > 0 ? `and ${grouped(hidden)} more` : "";
  }

  #row(row, most) {
    const name = row.filter
      ? element(
          "button",
          { type: "button", title: row.hint ?? row.name, onclick: () => this.pick(row.filter) },
          row.name,
        )
      : row.name;
    const cells = TABLE_COLUMNS.slice(1).map(([key, format]) =>
      element("td", {}, format(row[key])),
    );
    const made = element("tr", {}, element("th", { scope: "row" }, name), ...cells);
    made.firstChild.style.setProperty("--share", `${(100 * row.count) / most}%`);
    return made;
  }
}
