"use strict";
// Asks the JSON API every few seconds and draws what it says. Only text is ever set: names come from users.

const EVERY_MS = 5000;
const COLOURS = 8; // further users are drawn together, as "others"
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const percent = (part) => (part === null || part === undefined ? "" : `${(100 * part).toFixed(1)} %`);

function length(seconds) {
  const s = Math.max(0, seconds);
  if (s < 120) return `${s.toFixed(0)} s`;
  return s < 7200 ? `${(s / 60).toFixed(0)} min` : `${(s / 3600).toFixed(1)} h`;
}

function drawn(name, attributes, parent) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (parent) parent.append(one);
  return one;
}

function row(body, cells) {
  const line = document.createElement("tr");
  for (const [content, kind] of cells) {
    const cell = document.createElement("td");
    if (kind) cell.className = kind;
    cell.append(content); // a string becomes a text node
    line.append(cell);
  }
  body.append(line);
}

function bar(held, entitled, most) {
  const svg = drawn("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" });
  drawn("rect", { class: "rest", x: 0, y: 0, width: 100, height: 10 }, svg);
  drawn("rect", { class: "held", x: 0, y: 0, width: (100 * held) / most, height: 10 }, svg);
  const at = Math.min(99.5, (100 * entitled) / most);
  drawn("line", { class: "entitled", x1: at, x2: at, y1: 0, y2: 10, "vector-effect": "non-scaling-stroke" }, svg);
  drawn("title", {}, svg).textContent = `holds ${percent(held)}, entitled to ${percent(entitled)}`;
  return svg;
}

function tellUsers(flows) {
  const body = byId("flows");
  body.replaceChildren();
  const most = Math.max(1e-9, ...flows.map((one) => Math.max(one.held, one.entitled)));
  for (const one of [...flows].sort((a, b) => b.received - a.received)) {
    const counts = [[String(one.running), "n"], [String(one.waiting), "n"]];
    const shares = [[percent(one.entitled), "n"], [percent(one.received_share), "n"]];
    row(body, [[one.user], [String(one.weight), "n"], [bar(one.held, one.entitled, most)], ...shares, ...counts]);
  }
}

function start(expected, now) {
  if (!expected) return "";
  if (expected.p50_s === null) {
    return expected.later_than_s === null ? "later" : `later than in ${length(expected.later_than_s - now)}`;
  }
  const middle = `in ${length(expected.p50_s - now)}`;
  if (expected.p10_s === null) return middle;
  if (expected.p90_s !== null && expected.p90_s <= now) return "at any moment";
  const latest = expected.p90_s === null ? "?" : length(expected.p90_s - now);
  return `${middle} (${length(expected.p10_s - now)} to ${latest})`;
}

function tellGangs(queue) {
  const waiting = queue.gangs.filter((gang) => !["running", "opening"].includes(gang.state));
  const body = byId("gangs");
  const now = Date.now() / 1000;
  body.replaceChildren();
  for (const gang of waiting.slice(0, 100)) {
    const name = gang.pods.length === 1 ? gang.pods[0] : gang.uid;
    const takes = gang.estimate.p50_s === null ? "" : length(gang.estimate.p50_s);
    row(body, [[gang.position === null ? "" : String(gang.position), "n"], [name], [gang.user],
      [String(gang.pods.length), "n"], [takes, "n"], [start(gang.expected_start, now)], [gang.why]]);
  }
  byId("waiting-about").textContent = waiting.length
    ? `The next first; ${Math.min(100, waiting.length)} of ${Math.max(queue.waiting, waiting.length)}.`
    : "Nothing waits.";
}

function tellModels(placement) {
  const body = byId("models");
  const models = Object.entries(placement.models || {});
  body.replaceChildren();
  for (const [name, one] of models) {
    const error = `× ${Math.exp(one.mean_abs_log_error).toFixed(2)}`;
    const bias = one.mean_log_error > 0.02 ? "too short" : one.mean_log_error < -0.02 ? "too long" : "even";
    row(body, [[name || "analytic prior"], [String(one.judged), "n"], [error, "n"], [bias, "n"],
      [percent(one.inside_interval), "n"]]);
  }
  byId("models-none").hidden = models.length > 0;
  byId("models-none").textContent = placement.failure || "No pod that was placed by a prediction has ended yet.";
}

// What each drawn user held at each time: the largest by name, the others together.
function series(shares) {
  const users = Object.entries(shares.users).map(([user, held]) => ({
    user, held, sum: held.reduce((a, b) => a + b, 0) }));
  users.sort((a, b) => b.sum - a.sum);
  const named = users.slice(0, COLOURS);
  const rest = users.slice(COLOURS);
  if (rest.length) {
    named.push({ user: `${rest.length} others`, held: shares.at_s.map((_, i) => rest.reduce((a, b) => a + b.held[i], 0)) });
  }
  return named;
}

function grid(svg, x0, y0, width, height, begin, end) {
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const y = y0 + height * (1 - part);
    drawn("line", { class: "grid", x1: x0, x2: x0 + width, y1: y, y2: y }, svg);
    drawn("text", { x: x0 - 6, y: y + 4, "text-anchor": "end" }, svg).textContent = `${100 * part} %`;
  }
  for (const part of [0, 0.5, 1]) {
    const when = new Date(1000 * (begin + part * (end - begin)));
    const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
    const label = drawn("text", { x: x0 + part * width, y: y0 + height + 18, "text-anchor": anchor }, svg);
    label.textContent = when.toLocaleTimeString();
  }
}

function tellShares(shares) {
  const svg = byId("chart");
  const [x0, y0, width, height] = [48, 8, 844, 200];
  svg.replaceChildren();
  byId("legend").replaceChildren();
  if (shares.at_s.length < 2) {
    drawn("text", { x: 60, y: 110 }, svg).textContent = "Noted since the controller leads; wait a moment.";
    return;
  }
  const [begin, end] = [shares.at_s[0], shares.at_s[shares.at_s.length - 1]];
  const x = (at) => x0 + (width * (at - begin)) / (end - begin);
  const y = (part) => y0 + height * (1 - Math.min(1, part));
  drawn("rect", { class: "rest", x: x0, y: y0, width, height }, svg);
  let below = shares.at_s.map(() => 0);
  series(shares).forEach(({ user, held }, number) => {
    const above = below.map((part, i) => part + held[i]);
    const up = shares.at_s.map((at, i) => `${x(at).toFixed(1)},${y(above[i]).toFixed(1)}`);
    const down = shares.at_s.map((at, i) => `${x(at).toFixed(1)},${y(below[i]).toFixed(1)}`).reverse();
    const area = drawn("polygon", { class: `c${number}`, points: [...up, ...down].join(" ") }, svg);
    drawn("title", {}, area).textContent = user;
    const item = document.createElement("li");
    const swatch = drawn("svg", { viewBox: "0 0 10 10" });
    drawn("rect", { class: `c${number}`, width: 10, height: 10 }, swatch);
    item.append(swatch, user);
    byId("legend").append(item);
    below = above;
  });
  grid(svg, x0, y0, width, height, begin, end);
}

async function asked(path) {
  // by the origin: no browser fetches relative to an address with a password in it
  const answer = await fetch(location.origin + path, { cache: "no-store" });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || `${path} answered ${answer.status}`);
  return told;
}

function tellSummary(queue) {
  const paused = queue.paused ? " — PAUSED: nothing is released" : "";
  const parts = [`${queue.waiting} waiting`, `${queue.running} running on ${percent(queue.held)} of the capacity`];
  if (queue.incomplete) parts.push(`${queue.incomplete} incomplete`);
  if (queue.infeasible) parts.push(`${queue.infeasible} infeasible`);
  byId("summary").textContent = `Queue ${queue.queue}: ${parts.join(", ")}${paused}. ${new Date().toLocaleTimeString()}`;
  byId("trouble").hidden = queue.complaints.length === 0;
  byId("trouble").textContent = queue.complaints.map((one) => `FairQueue: ${one}.`).join(" ");
}

async function refresh() {
  try {
    const [queue, shares, placement] = await Promise.all(
      [asked("/v1/queue?limit=1000"), asked("/v1/shares"), asked("/v1/placement")]);
    tellSummary(queue);
    tellUsers(queue.flows);
    tellGangs(queue);
    tellShares(shares);
    tellModels(placement);
    document.body.dataset.told = String(Date.now());
  } catch (error) {
    byId("trouble").hidden = false;
    byId("trouble").textContent = `What is shown is old: ${error.message}`;
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
