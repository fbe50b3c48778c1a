// What the page tells about itself: to its reader when something goes wrong, and to tests.

const hook = {
  ready: false, // the trace is shown
  loadTime: 0, // until it was, from when the page was asked for, in milliseconds
  settled: false, // nothing is still to be computed or drawn
  errors: [],
  visible: [0, 0], // nanoseconds
  shown: 0, // exits that pass the filters
  total: 0, // exits in the trace
  selected: null, // { vcpu, sequence }
};
window.minivmm = hook;

function showError(message) {
  hook.errors.push(message);
  const banner = document.getElementById("error");
  banner.textContent = `This page failed: ${message}`;
  banner.hidden = false;
}

window.addEventListener("error", (event) => showError(event.message));
window.addEventListener("unhandledrejection", (event) => showError(String(event.reason)));
