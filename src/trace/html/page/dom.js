// Making elements. Text goes in as text only, so that no name out of a trace becomes markup.

const byId = (id) => document.getElementById(id);

/// A new element; children that are no elements become text.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/// Rows of a name and a value each, as a description list.
function descriptions(rows) {
  const list = element("dl");
  for (const [name, value] of rows) {
    list.append(element("dt", {}, name), element("dd", {}, value));
  }
  return list;
}
