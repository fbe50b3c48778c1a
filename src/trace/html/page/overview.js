// The strip above the timeline: how many exits happen when in all of the trace, and which part of
// it the timeline shows.

class Overview {
  constructor(timeline, canvas) {
    this.timeline = timeline;
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.#followPointer();
    this.resize();
  }

  resize() {
    this.canvas.width = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.canvas.height = Math.round(this.canvas.clientHeight * devicePixelRatio);
    this.count();
  }

  /// Counts the shown exits of each pixel; to be done again when others are shown.
  count() {
    const { trace, exitSpans, view } = this.timeline;
    const width = this.canvas.width;
    this.counts = new Uint32Array(width);
    for (const {
      exits: [from, to],
    } of trace.lanes) {
      if (from === to) continue;
      for (let x = 0, before = from; x < width; x++) {
        const time = view.first + ((x + 1) / width) * (view.last - view.first);
        const after = firstAbove(trace.exits.time, time, before, to);
        this.counts[x] += exitSpans.shownBefore[after] - exitSpans.shownBefore[before];
        before = after;
      }
    }
    this.most = this.counts.reduce((most, count) => Math.max(most, count), 1);
  }

  draw(color) {
    const { context, canvas, counts, most } = this;
    const { view } = this.timeline;
    const { width, height } = canvas;
    context.fillStyle = color("track");
    context.fillRect(0, 0, width, height);
    context.fillStyle = color("service");
    for (let x = 0; x < width; x++) {
      if (counts[x] === 0) continue;
      const share = Math.log1p(counts[x]) / Math.log1p(most);
      context.fillRect(x, height, 1, -Math.max(2, share * (height - 4)));
    }
    const [start, end] = [view.start, view.end].map(
      (time) => ((time - view.first) / (view.last - view.first)) * width,
    );
    context.fillStyle = color("surface");
    context.globalAlpha = 0.65;
    context.fillRect(0, 0, start, height);
    context.fillRect(end, 0, width - end, height);
    context.globalAlpha = 1;
    context.strokeStyle = color("accent");
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeRect(start, 1, Math.max(2, end - start), height - 2);
  }

  /// A click or a drag moves what the timeline shows to the pointer.
  #followPointer() {
    const {
      canvas,
      timeline: { view },
    } = this;
    const move = (event) => {
      if (event.buttons !== 1) return;
      const time = view.first + (event.offsetX / canvas.clientWidth) * (view.last - view.first);
      view.show(time - view.span / 2, time + view.span / 2);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      move(event);
    });
    canvas.addEventListener("pointermove", move);
  }
}
