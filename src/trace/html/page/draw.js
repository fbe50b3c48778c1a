// Drawing the timeline.

/// What stands for each kind of point: the colour, and where it has its head.
const POINT_STYLE = {
  marker: { color: "marker", head: "flag" },
  kick: { color: "kick", head: "down" },
  start: { color: "start", head: "right" },
  halt: { color: "halt", head: "square" },
  stop: { color: "stop", head: "square" },
  interrupt: { color: "interrupt", head: "down" },
  recording: { color: "muted", head: "square" },
  completed: { color: "muted", head: "down" },
};

/// Steps of the time axis: 1, 2 or 5 times a power of ten, at least `least`.
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

function drawTimeline(timeline, color) {
  const { context, width, visibleHeight, pinned, vcpuLanes, scroller } = timeline;
  const ticks = ticksOf(timeline);
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.fillStyle = color("surface");
  context.fillRect(0, 0, width, visibleHeight);
  const first = Math.max(0, Math.floor(scroller.scrollTop / LANE));
  const last = first + Math.ceil((visibleHeight - timeline.pinnedEnd) / LANE) + 1;
  for (const lane of vcpuLanes.slice(first, last)) drawLane(timeline, lane, ticks, color);
  // Over those that scroll.
  context.fillStyle = color("surface");
  context.fillRect(0, 0, width, timeline.pinnedEnd);
  for (const lane of pinned) drawLane(timeline, lane, ticks, color);
  drawAxis(timeline, ticks, color);
  drawSelection(timeline, color);
  drawOverlay(timeline, color);
}

function drawLane(timeline, lane, ticks, color) {
  const { context, width, exitSpans } = timeline;
  const top = timeline.topOf(lane);
  context.fillStyle = color("line");
  context.fillRect(0, top + LANE - 1, width, 1);
  context.fillStyle = color("text");
  context.font = "600 12px system-ui, sans-serif";
  context.fillText(lane.name, 12, top + 17);
  context.fillStyle = color("muted");
  context.font = "11px system-ui, sans-serif";
  const exits = exitSpans.shownBefore[lane.exits[1]] - exitSpans.shownBefore[lane.exits[0]];
  const count = {
    [DEVICES]: counted(lane.services[1] - lane.services[0], "service"),
    [SUPERVISOR]: counted(lane.points.length, "event"),
  }[lane.source];
  context.fillText(count ?? counted(exits, "exit"), 12, top + 32);
  const parts = lane.source === SUPERVISOR ? [] : timeline.partsOf(lane);
  context.fillStyle = color("track");
  for (const { box } of parts) context.fillRect(GUTTER, top + box.top, width - GUTTER, box.height);
  context.fillStyle = color("grid");
  for (const { x } of ticks) context.fillRect(x, top, 1, LANE - 1);
  for (const part of parts) drawPart(timeline, part, top, color);
  drawPoints(timeline, lane, top, color);
}

/// The spans of a bar or a strip.
function drawPart({ context, view, canvas }, { what, spans, range, box }, top, color) {
  const names =
    what === "exit" ? ["guest", "enqueue", "wait", "service", "run-loop"] : [what, what];
  const pixels = names.map((name) => pixelOf(color(name)));
  const scaled = (length) => Math.round(length * devicePixelRatio);
  const [x, y] = [scaled(GUTTER), scaled(top + box.top)];
  const area = { x, y, width: canvas.width - x, height: scaled(box.height) };
  paintSpans(context, spans, range, view, area, pixels, what === "exit" ? 1 : 0);
}

/// Points, at most one a pixel, and the names of markers where there is room.
function drawPoints(timeline, lane, top, color) {
  const { context, trace, view } = timeline;
  const { kind, name } = trace.points;
  const times = lane.pointTimes;
  let nameEnd = GUTTER;
  for (
    let at = firstNotBelow(times, view.start, 0, times.length);
    at < times.length && times[at] <= view.end;
  ) {
    const point = lane.points[at];
    const x = timeline.xOf(times[at]);
    const style = POINT_STYLE[kind[point]];
    context.fillStyle = color(style.color);
    context.fillRect(Math.round(x), top + 2, 1, LANE - 5);
    drawHead(context, Math.round(x), top + 2, style.head);
    if (kind[point] === "marker" && x > nameEnd) {
      nameEnd = drawName(context, name[point], x + 9, top, color);
    }
    at = Math.max(at + 1, firstAbove(times, times[at] + timeline.perPixel, at, times.length));
  }
}

function drawName(context, name, x, top, color) {
  context.font = "600 11px system-ui, sans-serif";
  const { width } = context.measureText(name);
  context.fillStyle = color("surface");
  context.globalAlpha = 0.85;
  context.fillRect(x - 1, top + 1, width + 4, 13);
  context.globalAlpha = 1;
  context.fillStyle = color("marker");
  context.fillText(name, x + 1, top + 11);
  return x + width + 12;
}

function drawHead(context, x, y, head) {
  const shapes = {
    flag: [
      [0, 0],
      [8, 0],
      [8, 6],
      [0, 6],
    ],
    down: [
      [-3.5, 0],
      [4.5, 0],
      [0.5, 6],
    ],
    right: [
      [0, 0],
      [7, 3.5],
      [0, 7],
    ],
    square: [
      [-3, 0],
      [4, 0],
      [4, 6],
      [-3, 6],
    ],
  };
  context.beginPath();
  for (const [dx, dy] of shapes[head]) context.lineTo(x + dx, y + dy);
  context.fill();
}

/// Where the axis has its ticks, and what is written there.
function ticksOf(timeline) {
  const { view } = timeline;
  const step = niceStep(110 * timeline.perPixel);
  const [unit, size] = unitOf(step);
  const ticks = [];
  for (let time = Math.ceil(view.start / step) * step; time <= view.end; time += step) {
    const text = `${grouped(Math.round(time / size))} ${unit}`;
    ticks.push({ x: Math.round(timeline.xOf(time)), text });
  }
  return ticks;
}

function drawAxis(timeline, ticks, color) {
  const { context, width, visibleHeight, view } = timeline;
  context.fillStyle = color("line");
  context.fillRect(0, AXIS - 1, width, 1);
  context.fillRect(GUTTER, 0, 1, visibleHeight);
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  for (const { x, text } of ticks) {
    context.fillStyle = color("line");
    context.fillRect(x, AXIS - 6, 1, 6);
    context.fillStyle = color("muted");
    if (x > GUTTER + 30 && x < width - 30) context.fillText(text, x, 15);
  }
  context.textAlign = "start";
  context.fillText(`${duration(view.span)} shown`, 12, 16);
}

/// Marks the selected exit, and draws an arrow to each of its services.
function drawSelection(timeline, color) {
  const { context, trace, selected, links } = timeline;
  if (selected === null) return;
  context.save();
  context.beginPath();
  context.rect(GUTTER, AXIS, timeline.width - GUTTER, timeline.visibleHeight - AXIS);
  context.clip();
  context.strokeStyle = context.fillStyle = color("accent");
  const { begin, time, busy, enqueue } = trace.exits;
  const lane = trace.laneOfExit(selected);
  const box = timeline.boxOf(lane, BAR, begin[selected], time[selected] + busy[selected]);
  context.lineWidth = 2;
  context.strokeRect(box.x - 1, box.y - 1, Math.max(box.width, 1) + 2, box.height + 2);
  const from = { x: timeline.xOf(time[selected] + enqueue[selected]), y: box.y + box.height / 2 };
  for (const service of links.slice(0, 64)) {
    const server = trace.laneOfService(service);
    const part = server.source === DEVICES ? BAR : STRIP;
    const start = trace.services.time[service];
    const target = timeline.boxOf(server, part, start, start + trace.services.took[service]);
    drawArrow(context, from, { x: target.x, y: target.y + target.height / 2 });
    context.lineWidth = 1.5;
    context.strokeRect(
      target.x - 1,
      target.y - 1,
      Math.max(target.width, 1) + 2,
      target.height + 2,
    );
  }
  context.restore();
}

function drawArrow(context, from, to) {
  const bend = Math.max(24, Math.abs(to.x - from.x) / 2);
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.bezierCurveTo(from.x + bend, from.y, to.x - bend, to.y, to.x - 9, to.y);
  context.stroke();
  context.beginPath();
  context.arc(from.x, from.y, 3.5, 0, 7);
  context.fill();
  context.beginPath();
  for (const [dx, dy] of [
    [-1, 0],
    [-11, -5.5],
    [-11, 5.5],
  ])
    context.lineTo(to.x + dx, to.y + dy);
  context.fill();
}

/// The time under the pointer, and the range that is being marked.
function drawOverlay(timeline, color) {
  const { context, brush, pointer, visibleHeight } = timeline;
  if (brush) {
    const [start, end] = brush.map((time) => timeline.xOf(time));
    context.fillStyle = color("accent");
    context.globalAlpha = 0.2;
    context.fillRect(Math.min(start, end), AXIS, Math.abs(end - start), visibleHeight);
    context.globalAlpha = 1;
  } else if (pointer !== null) {
    context.fillStyle = color("muted");
    context.globalAlpha = 0.5;
    context.fillRect(Math.round(timeline.xOf(pointer)), AXIS, 1, visibleHeight);
    context.globalAlpha = 1;
  }
}
