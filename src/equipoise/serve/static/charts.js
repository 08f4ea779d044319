// Pictures of a score, drawn as SVG. Each also says in words what it shows, for those who can't see it.

const SVG = "http://www.w3.org/2000/svg";

export function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

export function plain(value) {
  return value.toFixed(2).replace("-", "−");
}

// A value on its scale, with the interval that holds the truth.
export function drawScale(value, interval, range) {
  const [low, high] = range ?? around([value, ...(interval ?? [])]);
  const at = (x) => 10 + (280 * (Math.min(high, Math.max(low, x)) - low)) / (high - low);
  const said = interval ? `${plain(value)}, between ${plain(interval[0])} and ${plain(interval[1])}` : plain(value);
  const svg = picture(300, 44, `On a scale from ${plain(low)} to ${plain(high)}: ${said}`);
  add(svg, "line", { x1: 10, x2: 290, y1: 16, y2: 16, class: "axis" });
  if (low < 0 && high > 0) add(svg, "line", { x1: at(0), x2: at(0), y1: 9, y2: 23, class: "axis" });
  if (interval) {
    const [from, to] = interval.map(at);
    add(svg, "rect", { x: from, y: 10, width: Math.max(1, to - from), height: 12, rx: 3, class: "span" });
  }
  add(svg, "circle", { cx: at(value), cy: 16, r: 7, class: "up" });
  write(svg, 10, 40, plain(low), "start", "faint");
  write(svg, 290, 40, plain(high), "end", "faint");
  return svg;
}

// One bar a row, to both sides of zero where a value is negative. rows: [{name, value, text}]
export function drawBars(rows, title) {
  const height = 30 * rows.length;
  const svg = picture(300, height, `${title}: ${rows.map((row) => `${row.name} ${row.text}`).join(", ")}`);
  const most = Math.max(1e-9, ...rows.map((row) => Math.abs(row.value)));
  const both = rows.some((row) => row.value < 0);
  const zero = both ? 170 : 100;
  const length = both ? 68 : 138;
  rows.forEach((row, i) => {
    const y = 30 * i;
    const width = (length * Math.abs(row.value)) / most;
    write(svg, 0, y + 19, row.name.length > 13 ? `${row.name.slice(0, 12)}…` : row.name, "start", "");
    const x = row.value < 0 ? zero - width : zero;
    add(svg, "rect", { x, y: y + 6, width, height: 18, rx: 2, class: row.value < 0 ? "down" : "up" });
    write(svg, 300, y + 19, row.text, "end", "");
  });
  add(svg, "line", { x1: zero, x2: zero, y1: 2, y2: height - 2, class: "axis" });
  return svg;
}

// Values over time; `seek` is called with the second that is clicked. Returns the picture and a function that moves its head.
export function drawTimeline(points, range, seconds, seek) {
  const [low, high] = range ?? around(points.map((point) => point.value));
  const at = (t) => 40 + (550 * t) / seconds;
  const up = (value) => 130 - (115 * (Math.min(high, Math.max(low, value)) - low)) / (high - low);
  const lowest = points.reduce((one, other) => (other.value < one.value ? other : one));
  const highest = points.reduce((one, other) => (other.value > one.value ? other : one));
  const said =
    `Score over ${seconds.toFixed(1)} seconds: lowest ${plain(lowest.value)} at ${lowest.time.toFixed(1)} s, ` +
    `highest ${plain(highest.value)} at ${highest.time.toFixed(1)} s`;
  const svg = picture(600, 160, said);
  for (const value of low < 0 && high > 0 ? [low, 0, high] : [low, high]) {
    add(svg, "line", { x1: 40, x2: 590, y1: up(value), y2: up(value), class: "axis" });
    write(svg, 34, up(value) + 4, plain(value), "end", "faint");
  }
  write(svg, 40, 152, "0 s", "start", "faint");
  write(svg, 590, 152, `${seconds.toFixed(1)} s`, "end", "faint");
  const path = points.map((point) => `${at(point.time).toFixed(1)},${up(point.value).toFixed(1)}`).join(" ");
  add(svg, "polyline", { points: path, class: "line" });
  for (const point of points) add(svg, "circle", { cx: at(point.time), cy: up(point.value), r: 3, class: "up" });
  const head = add(svg, "line", { x1: 40, x2: 40, y1: 10, y2: 134, class: "head" });
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) * 600) / box.width;
    seek(Math.min(seconds, Math.max(0, ((x - 40) * seconds) / 550)));
  });
  const move = (time) => {
    for (const end of ["x1", "x2"]) head.setAttribute(end, at(Math.min(seconds, time)));
  };
  return { svg, move, said };
}

function around(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const more = Math.max(0.1, (high - low) / 10);
  return [low - more, high + more];
}

function picture(width, height, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return svg;
}

function add(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

function write(parent, x, y, text, anchor, kind) {
  const element = add(parent, "text", { x, y, "text-anchor": anchor, class: kind });
  element.textContent = text;
}
