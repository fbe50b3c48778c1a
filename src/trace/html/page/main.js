// Puts the page together, and keeps its parts in step.

class App {
  constructor(trace) {
    this.trace = trace;
    this.view = new View(trace, () => this.viewChanged());
    this.timeline = new Timeline(trace, this.view, byId("timeline"));
    this.overview = new Overview(this.timeline, byId("overview"));
    this.filter = new Filter(trace);
    this.form = new FilterForm(trace, this.filter, () => this.filterChanged());
    const pick = (filter) => this.pick(filter);
    this.places = new StatsTable(byId("places"), "port or address", pick);
    this.codes = new StatsTable(byId("codes"), "code", pick);
    this.controls = new Controls(this.timeline, {
      select: (hit) => this.select(hit),
      step: (step) => this.step(step),
      redraw: () => this.redraw(),
    });
    this.color = readColors();
    this.frame = 0; // of requestAnimationFrame
    this.timer = 0; // for the statistics of what is in view
    showHead(trace);
    showDetails(this.timeline, undefined);
    this.#watch();
    hook.total = trace.exits.count;
    hook.locate = (vcpu, time) => this.locate(vcpu, time);
    this.filterChanged();
    this.viewChanged();
  }

  #watch() {
    const resize = () => {
      this.timeline.resize();
      this.overview.resize();
      this.redraw();
    };
    new ResizeObserver(resize).observe(byId("scroller"));
    byId("scroller").addEventListener("scroll", () => this.redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    byId("zoom-in").addEventListener("click", () => this.view.zoom(2));
    byId("zoom-out").addEventListener("click", () => this.view.zoom(0.5));
    byId("zoom-all").addEventListener("click", () => this.view.showAll());
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
  }

  /// Draws before the next frame, however often it is called until then.
  redraw() {
    hook.settled = false;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.color = readColors();
      drawTimeline(this.timeline, this.color);
      this.overview.draw(this.color);
      hook.settled = this.timer === 0;
    });
  }

  viewChanged() {
    hook.visible = [this.view.start, this.view.end];
    if (this.filter?.inView) {
      // Zooming is to be smooth; the statistics follow when it pauses.
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        this.timer = 0;
        this.showStats();
        this.redraw();
      }, 100);
    }
    this.redraw();
  }

  filterChanged() {
    this.filter.apply();
    const isAll = this.filter.isEmpty || this.filter.shown.every((shown) => shown === 1);
    this.timeline.exitSpans.show(isAll ? null : this.filter.shown);
    this.overview.count();
    this.form.show();
    this.showStats();
    this.redraw();
  }

  showStats() {
    const { filter, trace, view } = this;
    const stats = new Stats(trace, filter.shown, filter.inView ? [view.start, view.end] : null);
    hook.shown = stats.count;
    byId("count").textContent = `${grouped(stats.count)} of ${counted(trace.exits.count, "exit")}`;
    showHistogram(byId("guest-times"), stats.guest);
    showHistogram(byId("busy-times"), stats.busy, (least) => this.form.set({ busy: `${least}ns` }));
    this.places.show(stats.places());
    this.codes.show(stats.codes());
  }

  /// Filters for what a row of a table stands for, or no longer if it already does.
  pick({ reason, ...fields }) {
    if (reason !== undefined) return this.form.toggleReason(reason);
    const isSet = Object.entries(fields).every(([field, text]) => this.filter.text[field] === text);
    this.form.set(isSet ? { address: "", code: "" } : fields);
  }

  select(hit) {
    const { timeline, trace } = this;
    // A service stands for its exit.
    const exit =
      hit?.what === "exit"
        ? hit.index
        : hit?.what === "service"
          ? trace.exitOf(hit.index)
          : undefined;
    timeline.selected = exit ?? null;
    timeline.links = exit === undefined ? [] : trace.servicesOf(exit);
    hook.selected = null;
    if (exit !== undefined) {
      hit = { what: "exit", index: exit, lane: trace.laneOfExit(exit) };
      hook.selected = { vcpu: hit.lane.source, sequence: trace.exits.sequence[exit] };
    }
    showDetails(timeline, hit);
    this.redraw();
  }

  /// Selects the next or the previous shown exit of the same vCPU; without a selection, the first
  /// in view.
  step(step) {
    const { timeline, trace, view } = this;
    const { shown } = this.filter;
    const { selected } = timeline;
    const lane =
      selected === null
        ? timeline.vcpuLanes.find(({ exits }) => exits[0] < exits[1])
        : trace.laneOfExit(selected);
    if (lane === undefined) return;
    const [from, to] = lane.exits;
    let exit =
      selected === null ? firstNotBelow(trace.exits.time, view.start, from, to) : selected + step;
    while (exit >= from && exit < to && !shown[exit]) exit += step;
    if (exit < from || exit >= to) return;
    this.select({ what: "exit", index: exit, lane });
    view.reveal(trace.exits.begin[exit], trace.exits.time[exit] + trace.exits.busy[exit]);
    timeline.revealLane(lane);
  }

  /// Where in the window a vCPU's lane is at a time.
  locate(vcpu, time) {
    const { timeline } = this;
    const box = timeline.canvas.getBoundingClientRect();
    const y = timeline.topOf(this.trace.laneOf.get(vcpu)) + BAR.top + BAR.height - 4;
    return [box.left + timeline.xOf(time), box.top + y];
  }
}

const data = byId("data");
const column = await unpack(data.textContent.trim());
data.remove();
new App(new Trace(column));
byId("loading").remove();
hook.ready = true;
hook.loadTime = performance.now();
