// The range of time that is shown.

const SHORTEST = 20; // nanoseconds

class View {
  /// All of a trace, with a little room on both sides. `changed` is called after each change.
  constructor(trace, changed) {
    const margin = (trace.end - trace.start) / 100;
    this.first = trace.start - margin;
    this.last = trace.end + margin;
    this.changed = changed;
    [this.start, this.end] = [this.first, this.last];
  }

  get span() {
    return this.end - this.start;
  }

  /// Shows a range, made as long as is needed and moved to where there is a trace.
  show(start, end) {
    const whole = this.last - this.first;
    const span = Math.min(Math.max(end - start, SHORTEST), whole);
    const middle = (start + end) / 2;
    this.start = Math.min(Math.max(middle - span / 2, this.first), this.last - span);
    this.end = this.start + span;
    this.changed();
  }

  showAll() {
    this.show(this.first, this.last);
  }

  /// Makes everything `factor` times as long; what is at `time` stays where it is.
  zoom(factor, time = (this.start + this.end) / 2) {
    const span = Math.min(Math.max(this.span / factor, SHORTEST), this.last - this.first);
    const start = time - ((time - this.start) * span) / this.span;
    this.show(start, start + span);
  }

  /// Moves by a part of what is shown.
  pan(share) {
    this.show(this.start + share * this.span, this.end + share * this.span);
  }

  /// Brings a range into view with the zoom as it is, unless it does not fit.
  reveal(start, end) {
    if (end - start > this.span) {
      const margin = (end - start) / 4;
      this.show(start - margin, end + margin);
    } else if (start < this.start || end > this.end) {
      const margin = (this.span - (end - start)) / 2;
      this.show(start - margin, end + margin);
    }
  }
}
