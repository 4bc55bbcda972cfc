"use strict";
import { Chart } from "./charts.js";
import { Loudspeaker, Microphone } from "./sound.js";

const at = (id) => document.getElementById(id);
const STALE = 3; // seconds of age from which a picture that differs from the camera's is called stale
const QUIET = -60; // dB

const charts = {
  levels: new Chart(at("levels"), ["#5af", "#fb6"], 1),
  gate: new Chart(at("gate"), ["#ffa600"], 1),
  distance: new Chart(at("distance"), ["#6c8"], 0.3),
  frame: new Chart(at("frame"), ["#8ad", "#e6a"], 100, [80, "80 ms"]),
};
const loudspeaker = new Loudspeaker();
let socket = null;
let ahead = 0; // the node's clock minus ours, seconds
const clock = () => performance.now() / 1000 + ahead;
const send = (message) => {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(message);
};
const wish = (fields) => send(JSON.stringify(fields));
const microphone = new Microphone(send);

// What comes from the robot, by kind

const told = { sight: "", lines: {}, health: {}, left: 0 };

const kinds = {
  hello(event) {
    ahead = event.t - performance.now() / 1000;
    at("transcript").replaceChildren();
    told.lines = {};
  },
  level(event) {
    const decibel = 20 * Math.log10(Math.max(event.rms, 1e-6));
    charts.levels.add(event.side === "user" ? 0 : 1, event.t, Math.max(0, 1 - decibel / QUIET));
  },
  gate(event) {
    charts.gate.add(0, event.t, event.value);
    at("gatenow").textContent = event.value.toFixed(2);
  },
  sight(event) {
    charts.distance.add(0, event.t, event.distance);
    at("distancenow").textContent = event.distance.toFixed(3);
    const decided = `${event.decision} ${event.reason} ${event.stamp}`;
    if (decided !== told.sight) {
      told.sight = decided;
      charts.gate.mark(event.t, event.decision, event.reason);
      charts.distance.mark(event.t, event.decision, event.reason);
      const cost = event.decision === "refresh" ? ` (encoded in ${event.encode_ms.toFixed(0)} ms)` : "";
      at("decision").textContent = `${event.decision}: ${event.reason}${cost}`;
    }
    document.querySelector("[data-do=freeze]").classList.toggle("on", event.reason === "frozen");
    at("age").dataset.since = event.stamp ? event.t - event.age : "";
    at("cachedview").classList.toggle("stale", event.age > STALE && event.distance > 0.03);
  },
  said(event) {
    const key = `${event.speaker} ${event.utterance}`;
    let line = told.lines[key];
    if (!line) {
      line = told.lines[key] = document.createElement("p");
      const who = document.createElement("b");
      who.className = who.textContent = event.speaker;
      line.append(who);
      at("transcript").append(line);
    }
    if (event.final) delete told.lines[key]; // a new conversation counts from 0 again
    if (event.speaker === "user") line.replaceChildren(line.firstChild); // each part is a new guess at all of it
    else if (event.final && line.childElementCount > 1) return;
    const word = document.createElement("span");
    word.textContent = event.text;
    word.style.background = event.shade;
    word.title = `gate ${event.gate.toFixed(2)}`;
    line.append(word);
    at("transcript").scrollTop = at("transcript").scrollHeight;
  },
  diagnostics(event) {
    told.health[event.name] = event;
    const values = event.values;
    if (Number(values["frame time p99 (ms)"])) {
      charts.frame.add(0, event.t, Number(values["frame time p50 (ms)"]));
      charts.frame.add(1, event.t, Number(values["frame time p99 (ms)"]));
      at("framenow").textContent = `p50 ${values["frame time p50 (ms)"]}, p99 ${values["frame time p99 (ms)"]} of 80 ms`;
    }
    health();
  },
  speaking(event) {
    at("states").textContent = ["robot", "user"].filter((who) => event[who]).map((who) => `${who} speaks`).concat(
      ["muted", "asleep"].filter((state) => event[state])).join(", ");
    document.querySelector("[data-do=mute]").classList.toggle("on", event.muted);
    document.querySelector("[data-do=sleep]").classList.toggle("on", event.asleep);
  },
  able(event) {
    for (const button of document.querySelectorAll("button[data-do]")) {
      const there = event.do.includes(button.dataset.do);
      button.disabled = !there;
      button.hidden = !there && !["refresh", "freeze", "mute", "sleep", "reset"].includes(button.dataset.do);
    }
    const loading = (told.health["talk engine"] || { words: "" }).words.startsWith("loading");
    document.querySelector("[data-do=cancel_loading]").hidden = !loading;
    at("tell").hidden = !event.do.includes("say") && !event.do.includes("ask");
    for (const button of at("tell").querySelectorAll("button")) button.hidden = !event.do.includes(button.value);
  },
  behind(event) {
    told.left = event.count;
    health();
  },
  flush() {
    loudspeaker.flush();
  },
  answer(event) {
    at("answer").textContent = event.words;
    at("answer").className = event.done ? "" : "bad";
    if (event.do === "head" && !event.done) release();
    const button = document.querySelector(`[data-do=${event.do}][data-switch]`);
    if (button && !event.done) button.classList.toggle("on");
  },
};

function health() {
  const counted = [];
  const lines = Object.values(told.health).map((event) => {
    for (const [name, value] of Object.entries(event.values)) {
      if (/dropped|lost|over 80 ms|underruns|xruns|skipped/.test(name) && Number(value)) counted.push(`${name}: ${value}`);
    }
    const line = document.createElement("p");
    line.className = ["good", "warn", "bad", "bad"][event.level] || "bad";
    line.textContent = `${event.name}: ${event.words}`;
    return line;
  });
  if (told.left) counted.push(`messages left out for this page: ${told.left}`);
  at("health").replaceChildren(...lines);
  at("drops").textContent = counted.length ? counted.join(", ") : "nothing dropped";
}

function picture(image, bytes) {
  if (image.src) URL.revokeObjectURL(image.src);
  if (bytes.byteLength) image.src = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  else image.removeAttribute("src");
}

function take(message) {
  if (typeof message.data === "string") {
    for (const event of JSON.parse(message.data)) kinds[event.kind](event);
    return;
  }
  const kind = String.fromCharCode(new Uint8Array(message.data, 0, 1)[0]);
  const rest = message.data.slice(1);
  if (kind === "L") picture(at("live"), rest);
  else if (kind === "C") picture(at("cached"), rest);
  else loudspeaker.play(new Int16Array(rest));
}

function connect() {
  const address = new URL("ws" + location.search, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onmessage = take;
  socket.onopen = () => {
    at("link").textContent = "connected";
    at("link").className = "good";
    if (at("hear").classList.contains("on")) wish({ do: "hear", on: true });
    if (microphone.node) wish({ do: "head" });
  };
  socket.onclose = () => {
    at("link").textContent = "no connection to the node";
    at("link").className = "bad";
    setTimeout(connect, 1000);
  };
}

// What goes to the robot

for (const button of document.querySelectorAll("button[data-do]")) {
  button.addEventListener("click", () => {
    const on = "switch" in button.dataset ? button.classList.toggle("on") : true;
    wish({ do: button.dataset.do, on });
  });
}

function hear(on) {
  at("hear").classList.toggle("on", on);
  if (on) loudspeaker.start();
  wish({ do: "hear", on });
}
at("hear").addEventListener("click", () => hear(!at("hear").classList.contains("on")));

at("tell").addEventListener("submit", (event) => {
  event.preventDefault();
  wish({ do: event.submitter.value, text: at("text").value });
  at("text").value = "";
});

let held = false;
async function hold() {
  held = true;
  at("hold").classList.add("on");
  if (!at("hear").classList.contains("on")) hear(true);
  try {
    wish({ do: "head" });
    await microphone.open();
    microphone.hold(held);
  } catch (error) {
    at("answer").textContent = error.message;
    at("answer").className = "bad";
    release();
  }
}
function release() {
  held = false;
  at("hold").classList.remove("on");
  microphone.hold(false);
}
at("hold").addEventListener("pointerdown", hold);
for (const over of ["pointerup", "pointercancel", "pointerleave"]) at("hold").addEventListener(over, release);
at("hold").addEventListener("contextmenu", (event) => event.preventDefault());

setInterval(() => {
  const now = clock();
  for (const chart of Object.values(charts)) chart.draw(now);
  const since = at("age").dataset.since;
  at("age").textContent = since ? `${Math.max(0, now - since).toFixed(1)} s old` : "nothing";
}, 200);
connect();
