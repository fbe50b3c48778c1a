// Binary search in columns that grow.

/// The first index of [from, to) whose value is above `value`; `to` if there is none.
function firstAbove(values, value, from, to) {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (values[middle] > value) to = middle;
    else from = middle + 1;
  }
  return from;
}

/// The same for a value that is not below.
function firstNotBelow(values, value, from, to) {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (values[middle] >= value) to = middle;
    else from = middle + 1;
  }
  return from;
}

/// Whether [from, to) is in order.
function isSorted(values, from, to) {
  for (let index = from + 1; index < to; index++) {
    if (values[index] < values[index - 1]) return false;
  }
  return true;
}

/// Puts [from, to) of all `columns` into the order of `key`, which is one of them. Traces are in
/// order, but for damaged ones.
function sortRange(columns, key, from, to) {
  if (isSorted(key, from, to)) return;
  const order = Array.from({ length: to - from }, (_, index) => from + index);
  order.sort((a, b) => key[a] - key[b]);
  const sorted = columns.map((column) => order.map((index) => column[index]));
  columns.forEach((column, which) => {
    sorted[which].forEach((value, index) => (column[from + index] = value));
  });
}
