// What the pointer and the keys do in the timeline.

const CLICK = 4; // pixels that a click may move

class Controls {
  /// `select` is called with a hit, or undefined; `step` with 1 or -1, for the next or the previous
  /// exit.
  constructor(timeline, { select, step, redraw }) {
    Object.assign(this, { timeline, select, step, redraw, drag: null });
    const { canvas } = timeline;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.#end());
    canvas.addEventListener("pointerleave", () => this.#leave());
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  #wheel(event) {
    // Over the names, and with Alt everywhere, the wheel scrolls the lanes.
    if (event.offsetX < GUTTER || event.altKey) return;
    event.preventDefault();
    const { view, width } = this.timeline;
    const scale = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    const sideways = event.shiftKey ? event.deltaX + event.deltaY : event.deltaX;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      view.pan((sideways * scale) / (width - GUTTER));
    } else {
      const speed = event.ctrlKey ? 0.01 : 0.002;
      view.zoom(Math.exp(-event.deltaY * scale * speed), this.timeline.timeAt(event.offsetX));
    }
    this.#hover(event);
  }

  #down(event) {
    if (event.button !== 0 || event.offsetX < GUTTER) return;
    const { canvas, view } = this.timeline;
    canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.offsetX, y: event.offsetY, start: view.start, moved: false };
    if (event.shiftKey) this.drag.from = this.timeline.timeAt(event.offsetX);
    this.#hideTooltip();
  }

  #move(event) {
    if (this.drag === null) return this.#hover(event);
    const { drag, timeline } = this;
    const { view } = timeline;
    drag.moved ||= Math.hypot(event.offsetX - drag.x, event.offsetY - drag.y) > CLICK;
    if (drag.from !== undefined) {
      timeline.brush = [drag.from, timeline.timeAt(event.offsetX)];
      this.redraw();
    } else if (drag.moved) {
      const start = drag.start - (event.offsetX - drag.x) * timeline.perPixel;
      view.show(start, start + view.span);
    }
  }

  #up(event) {
    const { drag, timeline } = this;
    if (drag === null) return;
    const { brush } = timeline;
    this.#end();
    if (!drag.moved) this.select(timeline.hit(event.offsetX, event.offsetY));
    else if (brush) timeline.view.show(Math.min(...brush), Math.max(...brush));
  }

  #end() {
    this.drag = null;
    this.timeline.brush = null;
    this.redraw();
  }

  #leave() {
    this.timeline.pointer = null;
    this.#hideTooltip();
    this.redraw();
  }

  #hideTooltip() {
    byId("tooltip").hidden = true;
  }

  #hover(event) {
    const { timeline } = this;
    const { offsetX, offsetY } = event;
    timeline.pointer = offsetX >= GUTTER ? timeline.timeAt(offsetX) : null;
    const hit = timeline.hit(offsetX, offsetY);
    timeline.canvas.style.cursor = hit ? "pointer" : "default";
    this.redraw();
    if (!hit) return this.#hideTooltip();
    const tooltip = byId("tooltip");
    tooltip.replaceChildren(...tooltipOf(timeline, hit, timeline.pointer));
    tooltip.hidden = false;
    const x = Math.min(event.clientX + 14, innerWidth - tooltip.offsetWidth - 8);
    const [above, below] = [event.clientY - tooltip.offsetHeight - 10, event.clientY + 16];
    tooltip.style.left = `${x}px`;
    tooltip.style.top = `${below + tooltip.offsetHeight + 8 > innerHeight ? above : below}px`;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input:not([type='checkbox'])")) return;
    const { timeline } = this;
    const { view, canvas, scroller } = timeline;
    const anywhere = {
      "+": () => view.zoom(2),
      "=": () => view.zoom(2),
      "-": () => view.zoom(0.5),
      0: () => view.showAll(),
      n: () => this.step(1),
      p: () => this.step(-1),
      Escape: () => this.select(undefined),
    };
    const inTimeline = {
      ArrowLeft: () => view.pan(-0.1),
      ArrowRight: () => view.pan(0.1),
      ArrowUp: () => (scroller.scrollTop -= LANE),
      ArrowDown: () => (scroller.scrollTop += LANE),
      Home: () => view.show(view.first, view.first + view.span),
      End: () => view.show(view.last - view.span, view.last),
    };
    const isFree = event.target === canvas || event.target === document.body;
    const action = anywhere[event.key] ?? (isFree ? inTimeline[event.key] : undefined);
    if (action === undefined) return;
    event.preventDefault();
    action();
  }
}

/// The contents of the tooltip for a hit.
function tooltipOf(timeline, { lane, what, index, crowd }, time) {
  const { trace } = timeline;
  const title = (...text) => element("strong", {}, ...text);
  switch (what) {
    case "point":
      return [
        title(pointText(trace, index)),
        descriptions([["at", `${grouped(trace.points.time[index])} ns`]]),
      ];
    case "service":
      return [title("service"), descriptions(serviceRows(trace, index))];
    case "output":
      return [title("write to the host"), descriptions(outputRows(trace, index))];
  }
  if (crowd > 3) {
    return [
      title(`${lane.name}: ${grouped(crowd)} exits in this pixel`),
      descriptions(timeline.sharesAt(lane, time)),
    ];
  }
  return [title(exitTitle(trace, index)), descriptions(exitRows(trace, index))];
}
