// Spans: things that last, one after the other in each lane, each made of parts without a gap.
//
// How much time of a range each part takes is the difference of two prefix sums. So drawing costs
// two searches a pixel, whether a pixel is a nanosecond or has a million exits in it.

class Spans {
  /// `begin` holds the times at which the spans begin, `parts` the durations of their parts.
  constructor(begin, parts) {
    this.begin = begin;
    this.parts = parts;
    this.count = begin.length;
    this.sums = parts.map(() => new Float64Array(this.count + 1));
    this.shownBefore = new Uint32Array(this.count + 1);
    this.show(null);
  }

  /// Counts only spans for which `shown` is not 0; all, if it is null.
  show(shown) {
    this.shown = shown;
    this.parts.forEach((part, which) => {
      const sums = this.sums[which];
      for (let span = 0, sum = 0; span < this.count; span++) {
        if (shown === null || shown[span]) sum += part[span];
        sums[span + 1] = sum;
      }
    });
    for (let span = 0, sum = 0; span < this.count; span++) {
      if (shown === null || shown[span]) sum++;
      this.shownBefore[span + 1] = sum;
    }
  }

  end(span) {
    return this.parts.reduce((time, part) => time + part[span], this.begin[span]);
  }

  /// Puts into `sums` how much of each part has passed until `time`, counted from anywhere, and
  /// after them how many spans have got past their first `lead` parts.
  passed(time, from, to, sums, lead) {
    const next = firstAbove(this.begin, time, from, to);
    const last = next - 1;
    const isCurrent = last >= from && (this.shown === null || this.shown[last] !== 0);
    const count = this.parts.length;
    sums[count] = this.shownBefore[next];
    if (!isCurrent) {
      for (let which = 0; which < count; which++) sums[which] = this.sums[which][next];
      return;
    }
    let left = time - this.begin[last];
    for (let which = 0; which < count; which++) {
      const passed = Math.min(left, this.parts[which][last]);
      if (which < lead && left < this.parts[which][last]) sums[count]--;
      sums[which] = this.sums[which][last] + passed;
      left -= passed;
    }
  }

  /// The span of [from, to) that is at `time`, or else the nearest one; only those that are shown.
  /// Undefined if there is none within `reach`.
  nearest(time, from, to, reach) {
    const next = firstAbove(this.begin, time, from, to);
    const [before, after] = [this.#shownFrom(next - 1, from - 1, -1), this.#shownFrom(next, to, 1)];
    const distance = (span) => {
      if (span === undefined) return Infinity;
      return Math.max(0, this.begin[span] - time, time - this.end(span));
    };
    const best = distance(before) <= distance(after) ? before : after;
    return distance(best) <= reach ? best : undefined;
  }

  #shownFrom(span, stop, step) {
    while (span !== stop && this.shown !== null && !this.shown[span]) span += step;
    return span === stop ? undefined : span;
  }
}
