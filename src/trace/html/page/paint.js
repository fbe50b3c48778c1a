// Painting spans: each column of pixels is divided as the time in it is. Close up it is one colour
// from top to bottom, from afar a chart of the shares. Nothing is too short to be seen.

/// The colours of the page's style, read again when it changes between light and dark.
function readColors() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/// A colour `#rrggbb` as a pixel of an ImageData seen as 32-bit numbers, which is little-endian.
function pixelOf(color) {
  const rgb = Number.parseInt(color.slice(1), 16);
  return ((255 << 24) | ((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
}

/// Paints `spans` of [from, to) into a rectangle of device pixels. `pixels` holds the colour of
/// each part, bottom part last, and then that of what took no time. `lead` is the number of parts
/// that come before what the span is about: they are background, the others are kept visible.
function paintSpans(context, spans, [from, to], view, area, pixels, lead) {
  if (from === to || area.width < 1) return;
  const image = context.getImageData(area.x, area.y, area.width, area.height);
  const data = new Uint32Array(image.data.buffer);
  const count = spans.parts.length;
  let [before, after] = [new Float64Array(count + 1), new Float64Array(count + 1)];
  const perPixel = (view.end - view.start) / area.width;
  spans.passed(view.start, from, to, before, lead);
  for (let x = 0; x < area.width; x++) {
    spans.passed(view.start + (x + 1) * perPixel, from, to, after, lead);
    let [y, passed, longest] = [area.height, 0, count];
    for (let part = count - 1; part >= 0; part--) {
      passed += after[part] - before[part];
      const isVisible = part >= lead && after[part] > before[part];
      if (
        isVisible &&
        (longest === count || after[part] - before[part] > after[longest] - before[longest])
      ) {
        longest = part;
      }
      if (part === lead && after[count] > before[count]) {
        y = fill(data, area, x, y, area.height - 2 * devicePixelRatio, pixels[longest]);
      }
      y = fill(data, area, x, y, area.height * (1 - passed / perPixel), pixels[part]);
    }
    [before, after] = [after, before];
  }
  context.putImageData(image, area.x, area.y);
}

/// Fills a column of pixels from `bottom` up to `top`, and returns where the next part begins.
function fill(data, area, x, bottom, top, pixel) {
  const end = Math.max(0, Math.round(top));
  for (let y = bottom - 1; y >= end; y--) data[y * area.width + x] = pixel;
  return Math.min(bottom, end);
}
