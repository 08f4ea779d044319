// The page: choose or record a clip, send it, wait, show what comes back.

import { ask, Problem, send, setToken } from "./api.js";
import { canRecord, record } from "./recorder.js";
import { showResult } from "./result.js";

const part = (id) => document.getElementById(id);
const STAGES = { decoding: "Reading the clip", scoring: "Scoring" };
let model = null;
let file = null;
let recording = null;
let stopping = null; // of the request that is under way

async function begin() {
  try {
    model = await ask("api/model");
  } catch (problem) {
    if (problem.status === 401) {
      part("token").hidden = false;
      part("token-value").focus();
    } else {
      tell(problem.message);
    }
    return;
  }
  part("token").hidden = true;
  describe();
  ready();
}

function describe() {
  const reads = model.modalities.join(", ");
  const scale = model.range ? ` from ${model.range.join(" to ").replaceAll("-", "−")}` : "";
  const says = model.task === "classification" ? `one of ${model.classes.join(", ")}` : `a number${scale}`;
  const made = model.synthetic ? " It was trained on generated data." : "";
  part("about").textContent = `${model.model}, trained on ${model.dataset}, reads ${reads} and says ${says}.${made}`;
  const { upload_bytes: bytes, clip_seconds: seconds } = model.limits;
  part("bounds").textContent = `Up to ${Math.floor(bytes / 2 ** 20)} MiB and ${length(seconds)}.`;
  part("said").hidden = !model.reads_text;
  const boxes = model.modalities.map((name) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", name: "only", value: name, checked: true });
    label.append(box, name);
    return label;
  });
  part("modalities").replaceChildren(part("modalities").firstElementChild, ...boxes);
  for (const id of ["record-video", "record-audio"]) part(id).hidden = !canRecord();
}

function choose(chosen) {
  file = chosen;
  part("chosen").textContent = chosen ? `${chosen.name}, ${(chosen.size / 2 ** 20).toFixed(1)} MiB` : "Drop a video or a sound here.";
  const most = model?.limits.upload_bytes ?? Infinity;
  tell(chosen && chosen.size > most ? `The file is larger than ${Math.floor(most / 2 ** 20)} MiB.` : "");
  ready();
}

function ready() {
  const small = !file || file.size <= (model?.limits.upload_bytes ?? 0);
  const something = file !== null || part("text").value.trim() !== "";
  part("send").disabled = !model || stopping !== null || recording !== null || !something || !small;
}

async function score(event) {
  event.preventDefault();
  stopping = new AbortController();
  tell("");
  part("result").hidden = true;
  part("cancel").hidden = false;
  part("progress").hidden = false;
  ready();
  const sent = file;
  try {
    stage("Sending", 0);
    const job = await finished(await send(form(), (share) => stage("Sending", share), stopping.signal), stopping.signal);
    if (job.error) throw new Problem(422, job.error.message);
    showResult(job, sent, model);
    stage(`Done in ${job.seconds.whole.toFixed(1)} s.`);
    part("result-title").focus();
  } catch (problem) {
    stage("");
    if (!stopping.signal.aborted) tell(problem.message);
  } finally {
    stopping = null;
    part("cancel").hidden = true;
    part("progress").hidden = true;
    ready();
  }
}

function form() {
  const fields = new FormData();
  const boxes = [...document.querySelectorAll("input[name=only]")];
  const only = boxes.filter((box) => box.checked).map((box) => box.value);
  if (only.length < boxes.length) fields.append("only", only.join(","));
  if (part("text").value.trim() && model.reads_text) fields.append("text", part("text").value);
  if (model.reads_text) fields.append("words", "true");
  if (file && part("window").value) {
    fields.append("window", part("window").value);
    fields.append("hop", String(Number(part("window").value) / 2));
  }
  if (file) fields.append("clip", file, file.name);
  return fields;
}

async function finished(job, signal) {
  const since = performance.now();
  let known = job;
  signal.addEventListener("abort", () => ask(`api/clips/${job.id}`, { method: "DELETE" }).catch(() => {}));
  while (!["done", "failed"].includes(known.status)) {
    const passed = Math.round((performance.now() - since) / 1000);
    const before = known.position ? `, ${known.position} before it` : "";
    stage(`${STAGES[known.status] ?? `Waiting${before}`} … ${passed} s`);
    known = await ask(`api/clips/${job.id}?wait=1`, { signal });
  }
  return known;
}

function stage(text, share) {
  part("stage").textContent = share === undefined ? text : `${text} … ${Math.round(100 * share)} %`;
  if (share === undefined) part("bar").removeAttribute("value");
  else part("bar").value = share;
}

function tell(message) {
  part("problem").textContent = message;
}

function length(seconds) {
  return seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
}

async function startRecording(withVideo) {
  tell("");
  try {
    const seconds = model.limits.clip_seconds;
    recording = await record(withVideo, part("preview"), seconds, (passed) => {
      part("record-time").textContent = `${Math.floor(passed)} s`;
    });
  } catch (error) {
    tell(error.name === "NotAllowedError" ? "The browser was not allowed to record." : "There is nothing to record with.");
    return;
  }
  part("studio").hidden = false;
  part("record-stop").focus();
  ready();
  const made = await recording.file;
  recording = null;
  part("studio").hidden = true;
  const empty = made.size < 500; // a header alone
  choose(empty ? null : made);
  if (empty) tell("The browser recorded nothing.");
}

part("ask").addEventListener("submit", score);
part("cancel").addEventListener("click", () => stopping?.abort());
part("text").addEventListener("input", ready);
part("file").addEventListener("change", (event) => choose(event.target.files[0] ?? null));
part("record-video").addEventListener("click", () => startRecording(true));
part("record-audio").addEventListener("click", () => startRecording(false));
part("record-stop").addEventListener("click", () => recording?.stop());
part("token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(part("token-value").value);
  begin();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  part("drop").addEventListener(name, (event) => {
    event.preventDefault();
    part("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
}
begin();
