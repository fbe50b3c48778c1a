// The timeline: where its lanes are, and what is under a point of it. Lengths are CSS pixels.
//
// The lanes of the device thread, and of the main thread if it has anything, stay at the top;
// those of the vCPUs scroll below them.

const GUTTER = 116; // names of the lanes
const AXIS = 26;
const LANE = 42;
const BAR = { top: 7, height: 20 }; // exits, or services of the device thread
const STRIP = { top: 29, height: 7 }; // services for others, or writes to the host
const REACH = 4; // how far from a thing the pointer may be

class Timeline {
  constructor(trace, view, canvas) {
    this.trace = trace;
    this.view = view;
    this.canvas = canvas;
    this.scroller = canvas.closest(".scroller");
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    const { exits, services, outputs } = trace;
    this.exitSpans = new Spans(exits.begin, [
      exits.guest,
      exits.enqueue,
      exits.wait,
      exits.service,
    ]);
    this.serviceSpans = new Spans(services.time, [services.took]);
    this.outputSpans = new Spans(outputs.time, [outputs.took]);
    this.vcpuLanes = trace.lanes.filter(
      ({ source }) => source !== DEVICES && source !== SUPERVISOR,
    );
    this.pinned = trace.lanes.filter(
      ({ source, points }) => source === DEVICES || (source === SUPERVISOR && points.length > 0),
    );
    this.selected = null; // an exit
    this.links = []; // its services
    this.brush = null; // two times, while a range is being marked
    this.pointer = null; // the time under the pointer
    this.pinnedEnd = AXIS + this.pinned.length * LANE;
    this.height = this.pinnedEnd + this.vcpuLanes.length * LANE + 1;
    canvas.parentElement.style.height = `${this.height}px`;
    this.scroller.style.maxHeight = `${this.height + 2}px`;
    const room = Math.max(250, 0.45 * innerHeight);
    this.scroller.style.height = `${Math.min(this.height + 2, room)}px`;
    this.resize();
  }

  resize() {
    this.width = Math.max(GUTTER + 50, this.scroller.clientWidth);
    this.visibleHeight = this.scroller.clientHeight;
    this.canvas.width = Math.round(this.width * devicePixelRatio);
    this.canvas.height = Math.round(this.visibleHeight * devicePixelRatio);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.visibleHeight}px`;
  }

  get perPixel() {
    return this.view.span / (this.width - GUTTER);
  }

  xOf(time) {
    return GUTTER + (time - this.view.start) / this.perPixel;
  }

  timeAt(x) {
    return this.view.start + (x - GUTTER) * this.perPixel;
  }

  /// The top of a lane in the canvas, wherever the canvas ends.
  topOf(lane) {
    const place = this.pinned.indexOf(lane);
    if (place >= 0) return AXIS + place * LANE;
    return this.pinnedEnd + this.vcpuLanes.indexOf(lane) * LANE - this.scroller.scrollTop;
  }

  laneAt(y) {
    if (y < AXIS) return undefined;
    if (y < this.pinnedEnd) return this.pinned[Math.floor((y - AXIS) / LANE)];
    return this.vcpuLanes[Math.floor((y - this.pinnedEnd + this.scroller.scrollTop) / LANE)];
  }

  /// The rectangle of a lane's bar or strip in which a range of time is shown.
  boxOf(lane, part, start, end) {
    const x = this.xOf(start);
    return { x, y: this.topOf(lane) + part.top, width: this.xOf(end) - x, height: part.height };
  }

  /// The spans that a lane shows, and where.
  partsOf(lane) {
    if (lane.source === DEVICES) {
      return [
        { what: "service", spans: this.serviceSpans, range: lane.services, box: BAR },
        {
          what: "output",
          spans: this.outputSpans,
          range: [0, this.trace.outputs.count],
          box: STRIP,
        },
      ];
    }
    return [
      { what: "exit", spans: this.exitSpans, range: lane.exits, box: BAR },
      { what: "service", spans: this.serviceSpans, range: lane.services, box: STRIP },
    ];
  }

  /// What is at a point: `{ lane, what, index }`, `what` being exit, service, output or point, and
  /// `crowd` the number of exits if they are too many to be told apart. Undefined if nothing is.
  hit(x, y) {
    const lane = x >= GUTTER ? this.laneAt(y) : undefined;
    if (lane === undefined) return undefined;
    const [time, reach] = [this.timeAt(x), REACH * this.perPixel];
    const below = y - this.topOf(lane);
    const point = below < BAR.top + BAR.height / 3 ? this.#pointAt(lane, time, reach) : undefined;
    if (point !== undefined) return { lane, what: "point", index: point };
    const isIn = ({ box }) => Math.abs(below - box.top - box.height / 2) <= box.height / 2 + 1;
    const part = this.partsOf(lane).find(isIn);
    const index = part?.spans.nearest(time, ...part.range, reach);
    if (index === undefined) return undefined;
    const crowd = part.what === "exit" ? this.#crowdAt(lane, time) : 0;
    return { lane, what: part.what, index, crowd };
  }

  #pointAt(lane, time, reach) {
    const next = firstAbove(lane.pointTimes, time, 0, lane.points.length);
    const distance = (place) => Math.abs((lane.pointTimes[place] ?? Infinity) - time);
    const best = distance(next - 1) <= distance(next) ? next - 1 : next;
    return distance(best) <= reach ? lane.points[best] : undefined;
  }

  /// How many shown exits begin within a pixel around `time`.
  #crowdAt(lane, time) {
    const { begin, shownBefore } = this.exitSpans;
    const [first, last] = [-0.5, 0.5].map((pixels) =>
      firstAbove(begin, time + pixels * this.perPixel, ...lane.exits),
    );
    return shownBefore[last] - shownBefore[first];
  }

  /// The shares of a pixel at `time`, as rows of a name and a text.
  sharesAt(lane, time) {
    const { exitSpans, perPixel } = this;
    const sums = [-0.5, 0.5].map((pixels) => {
      const sum = new Float64Array(5);
      exitSpans.passed(time + pixels * perPixel, ...lane.exits, sum, 1);
      return sum;
    });
    return ["guest", "enqueue", "wait", "service"].map((name, part) => [
      name,
      percent((sums[1][part] - sums[0][part]) / perPixel),
    ]);
  }

  /// Scrolls so that a lane can be seen.
  revealLane(lane) {
    const place = this.vcpuLanes.indexOf(lane);
    if (place < 0) return;
    const room = this.visibleHeight - this.pinnedEnd - LANE;
    const top = Math.min(this.scroller.scrollTop, place * LANE);
    this.scroller.scrollTop = Math.max(top, place * LANE - Math.max(0, room));
  }
}
