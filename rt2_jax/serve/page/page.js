"use strict";
// Every text from a robot or a bundle goes in as textContent: nothing of it is ever read as HTML.
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const REFRESH_MS = 1000;
const POINT_S = 2, SHOWN_S = 300, MOST_FRAMES = 24;

function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function digits(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function nice(top) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(top, 1e-6)));
  return unit * [1, 2, 5, 10].find(step => step * unit >= top);
}

// The last minutes as one value a point, null where nothing came.
function series(history, end, value) {
  const found = new Map(history.map(point => [point.time, point]));
  const points = [];
  for (let t = end - SHOWN_S; t <= end; t += POINT_S) {
    const point = found.get(t);
    points.push([t, point ? value(point) : null]);
  }
  return points;
}

function chart(svg, end, lines) {
  const width = svg.clientWidth || 900, height = 180, left = 44, right = 78, foot = 20, head = 8;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const values = lines.flatMap(line => line.points.map(point => point[1])).filter(value => value !== null);
  if (!values.length) {
    svg.append(draw("text", {x: left, y: height / 2}, "no request in the last five minutes"));
    return;
  }
  const top = nice(Math.max(...values, 1)), start = end - SHOWN_S;
  const x = t => left + (t - start) / SHOWN_S * (width - left - right);
  const y = value => height - foot - value / top * (height - foot - head);
  for (const part of [0, .5, 1]) {
    svg.append(draw("line", {class: "grid", x1: left, x2: width - right, y1: y(top * part), y2: y(top * part)}));
    svg.append(draw("text", {x: left - 6, y: y(top * part) + 4, "text-anchor": "end"}, digits(top * part)));
  }
  for (const [ago, word] of [[SHOWN_S, "5 min ago"], [SHOWN_S / 2, "2½ min"], [0, "now"]])
    svg.append(draw("text", {x: x(end - ago), y: height - 4, "text-anchor": ago ? "start" : "end"}, word));
  lines.forEach((line, row) => {
    let path = "", drawing = false;
    for (const [t, value] of line.points) {
      if (value !== null) path += `${drawing ? "L" : "M"}${x(t).toFixed(1)} ${y(value).toFixed(1)}${drawing ? "" : "h1"}`;
      drawing = value !== null;
    }
    svg.append(draw("path", {class: line.tone, d: path}));
    svg.append(draw("text", {class: line.tone, x: width - right + 8, y: 20 + 18 * row}, line.name));
  });
}

function bars(robot, action, limited) {
  const box = make("div", undefined, "bars"), {names, units, low, high} = robot.action;
  names.forEach((name, i) => {
    const at = value => Math.min(100, Math.max(0, (value - low[i]) / (high[i] - low[i]) * 100));
    const from = at(low[i] < 0 && high[i] > 0 ? 0 : low[i]), to = at(action[i]);
    const bar = make("span", undefined, limited.includes(name) ? "bar limited" : "bar"), fill = make("i");
    fill.style.left = `${Math.min(from, to, 98.5)}%`;
    fill.style.width = `${Math.max(Math.abs(to - from), 1.5)}%`;
    bar.append(fill);
    box.append(make("span", name), bar, make("span", `${digits(action[i])} ${units[i] || ""}`));
  });
  return box;
}

function frame(entry, robot) {
  const box = make("article", undefined, "frame"), seen = make("div", undefined, "seen"), image = make("img");
  image.src = entry.image;
  image.alt = `what robot ${entry.session} saw`;
  seen.append(image, make("p", entry.instruction, "told"));
  const said = make("div", undefined, "said"), limited = entry.limited || [];
  said.append(make("p", entry.text, "words"));
  if (robot) said.append(bars(robot, entry.action, limited));
  const limits = entry.held ? " · held by the envelope" : limited.length ? " · limited by the envelope" : "";
  const times = `${digits(entry.total_ms)} ms (queue ${digits(entry.queue_ms)}, model ${digits(entry.model_ms)})`;
  said.append(make("p", `robot ${entry.session} by ${entry.dialect} · ${entry.embodiment} · ${times}${limits}`, "words"));
  box.append(seen, said);
  return box;
}

function table(rows) {
  const body = make("table");
  for (const [name, value] of rows) {
    const row = make("tr");
    row.append(make("th", name), make("td", value));
    body.append(row);
  }
  return body;
}

function loaded(bundle) {
  const panel = make("div", undefined, "panel");
  panel.append(table([
    ["bundle", bundle.path], ["identity", bundle.identity], ["model", bundle.model], ["training steps", String(bundle.step)],
    ["modes", bundle.modes.join(", ")], ["loaded", new Date(bundle.since * 1000).toLocaleString()],
  ]));
  for (const [name, robot] of Object.entries(bundle.embodiments)) {
    const {names, units, low, high, kinds} = robot.action;
    panel.append(make("h3", name), table([
      ["cameras", robot.cameras.join(", ")], ["frames of history", String(robot.history)],
      ["actions an answer", String(robot.chunk)], ["control rate", robot.control_hz ? `${robot.control_hz} Hz` : "–"],
      ["safety envelope", robot.envelope ? "yes" : "none"],
    ]));
    const actions = make("table"), head = make("tr");
    for (const word of ["dimension", "unit", "low", "high", "kind"]) head.append(make("th", word));
    actions.append(head);
    names.forEach((dimension, i) => {
      const row = make("tr");
      for (const word of [dimension, units[i], digits(low[i]), digits(high[i]), kinds[i]]) row.append(make("td", word));
      actions.append(row);
    });
    panel.append(actions);
  }
  return panel;
}

let shownBundle = "", frames = [], newest = 0, started = 0;

function show(status) {
  const {server, loaded: bundle, history} = status;
  if (server.since !== started) {  // another process: its frames count from one
    [frames, newest, started] = [[], 0, server.since];
    $("frames").replaceChildren(make("p", "No robot has asked yet.", "about"));
  }
  const state = server.draining ? "draining" : "ready";
  $("state").textContent = state;
  $("state").dataset.state = state;
  $("title").textContent = `${bundle.model || "policy"} · ${Object.keys(bundle.embodiments).join(", ")}`;
  $("about").textContent = `Up ${Math.floor((server.time - server.since) / 60)} min, bundle ` +
    `${bundle.identity.slice(0, 12)}, deadline ${digits(server.deadline_ms)} ms.`;
  const end = Math.floor(server.time / POINT_S) * POINT_S - POINT_S;  // the last whole point
  const now = history.filter(point => point.time > end - 10 && point.time <= end);
  const count = points => points.reduce((total, point) => total + point.answers, 0);
  const slowest = Math.max(...now.map(point => point.total_ms ? point.total_ms.p99 : 0), 0);
  const refused = {};
  for (const point of history)
    for (const [code, number] of Object.entries(point.refusals)) refused[code] = (refused[code] || 0) + number;
  const refusals = Object.entries(refused).map(([code, number]) => `${code} ${number}`).join(", ");
  $("tiles").replaceChildren(...[
    [String(server.connections), "connections"], [digits(count(now) / 10), "answers a second (last 10 s)"],
    [slowest ? `${digits(slowest)} ms` : "–", "p99 (last 10 s)"], [String(server.waiting), "in the queue now"],
    [count(history).toLocaleString("en"), "answers in 15 min"],
    [String(Object.values(refused).reduce((total, number) => total + number, 0)), refusals || "refusals in 15 min"],
  ].map(([value, name]) => {
    const tile = make("div");
    tile.append(make("b", value), make("span", name));
    return tile;
  }));
  const time = name => series(history, end, point => point.total_ms ? point.total_ms[name] : null);
  chart($("latency"), end, [{points: time("p50"), tone: "one", name: "median"}, {points: time("p99"), tone: "two", name: "p99"}]);
  chart($("load"), end, [
    {points: series(history, end, point => point.answers / POINT_S), tone: "one", name: "answers/s"},
    {points: series(history, end, point => point.waiting), tone: "two", name: "queue"},
  ]);
  if (status.frames.length) {
    newest = status.frames[status.frames.length - 1].number;
    frames = [...status.frames.reverse(), ...frames].slice(0, MOST_FRAMES);
    $("frames").replaceChildren(...frames.map(entry => frame(entry, bundle.embodiments[entry.embodiment])));
  }
  const loading = `${bundle.identity} ${bundle.since}`;
  if (loading !== shownBundle) {
    $("loaded").replaceChildren(loaded(bundle));
    shownBundle = loading;
  }
}

async function refresh() {
  try {
    const answer = await fetch(`status.json?since=${newest}`, {cache: "no-store"});
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    $("lost").hidden = true;
  } catch (error) {
    $("state").textContent = "lost";
    $("state").dataset.state = "lost";
    $("lost").hidden = false;
    $("lost").textContent = `The server does not answer (${error.message}). What stands below is old.`;
  } finally {
    setTimeout(refresh, REFRESH_MS);
  }
}

refresh();
