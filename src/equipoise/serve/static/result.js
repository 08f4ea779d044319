// Shows a score beside its clip.

import { drawBars, drawScale, drawTimeline, plain, signed } from "./charts.js";

const part = (id) => document.getElementById(id);
let follow = () => {};
let address = null;
let saved = null;

export function showResult(job, file, model) {
  const score = job.score;
  part("name").textContent = job.name === "text" && !file ? "" : job.name;
  showMedia(file);
  showScore(score, model);
  showContributions(score, model);
  showTimeline(job.timeline, score, model);
  showTranscript(score, model);
  fill("missing", Object.entries(score.missing).map(([name, why]) => `${name} is not used: ${why}`));
  fill("notes", score.notes);
  if (saved) URL.revokeObjectURL(saved);
  saved = URL.createObjectURL(new Blob([JSON.stringify(job, null, 1)], { type: "application/json" }));
  part("json").href = saved;
  part("json").download = `${job.name.replace(/\.[^.]*$/, "")}.json`;
  const nothing = part("player").hidden && part("unplayable").hidden && part("over-time").hidden;
  part("media").hidden = nothing;
  part("media").parentElement.classList.toggle("one", nothing);
  part("result").hidden = false;
}

function showMedia(file) {
  const player = part("player");
  player.removeAttribute("src");
  player.hidden = !file;
  part("unplayable").hidden = true;
  if (address) URL.revokeObjectURL(address);
  address = file ? URL.createObjectURL(file) : null;
  if (!file) {
    player.load();
    return;
  }
  player.onerror = () => {
    player.hidden = true;
    part("unplayable").hidden = false;
  };
  player.ontimeupdate = () => follow(player.currentTime);
  player.src = address;
}

// The output that a picture over time and the words speak of: the class that was found, or the first target.
function mainOutput(score) {
  return score.label ?? Object.keys(score.values)[0];
}

function showScore(score, model) {
  const place = part("said-score");
  place.replaceChildren();
  if (score.label !== null) {
    place.append(paragraph(score.label, "value"));
    const rows = Object.entries(score.values).sort((one, other) => other[1] - one[1]);
    const bars = rows.map(([name, value]) => ({ name, value, text: percent(value) }));
    place.append(drawBars(bars, "Probability of each class"));
    if (score.likely) {
      place.append(paragraph(`With ${percent(score.level)} certainty one of: ${score.likely.join(", ")}.`, "quiet"));
    }
    return;
  }
  for (const [name, value] of Object.entries(score.values)) {
    const interval = score.interval?.[name];
    if (Object.keys(score.values).length > 1) place.append(paragraph(name, "quiet"));
    place.append(paragraph(plain(value), "value"));
    place.append(drawScale(value, interval, model.range));
    if (interval) {
      const [low, high] = interval.map(plain);
      place.append(paragraph(`With ${percent(score.level)} certainty between ${low} and ${high}.`, "quiet"));
    }
  }
}

function showContributions(score) {
  const output = mainOutput(score);
  const kind = score.label === null ? signed : (value) => `${value < 0 ? "−" : "+"}${percent(Math.abs(value))}`;
  const rows = Object.entries(score.contributions).map(([name, found]) => {
    return { name, value: found[output], text: kind(found[output]) };
  });
  const base = score.label === null ? plain(score.baseline[output]) : percent(score.baseline[output]);
  const of = score.label === null ? "" : ` of ${output}`;
  const place = part("contributions");
  place.replaceChildren(drawBars(rows, "What each modality adds"));
  place.append(paragraph(`Shapley values, on top of ${base}${of} without any modality.`, "quiet"));
}

function showTimeline(timeline, score, model) {
  follow = () => {};
  const pieces = timeline.filter((piece) => !piece.error);
  part("over-time").hidden = pieces.length < 2;
  if (pieces.length < 2) return;
  const output = mainOutput(score);
  const seconds = Math.max(score.end, ...timeline.map((piece) => piece.end)) - score.start;
  const points = pieces.map((piece) => {
    return { time: (piece.start + piece.end) / 2 - score.start, value: piece.values[output] };
  });
  const range = score.label === null ? model.range : [0, 1];
  const player = part("player");
  const drawn = drawTimeline(points, range, seconds, (time) => {
    drawn.move(time);
    if (!player.hidden) player.currentTime = time + score.start;
  });
  part("timeline").replaceChildren(drawn.svg);
  part("over-time-text").textContent = `${drawn.said}${score.label === null ? "" : ` (probability of ${output})`}.`;
  follow = (time) => drawn.move(Math.max(0, time - score.start));
}

function showTranscript(score) {
  const words = score.words;
  const text = score.transcript?.text ?? "";
  part("transcript-part").hidden = !text;
  const place = part("transcript");
  place.replaceChildren();
  part("transcript-text").textContent = "";
  if (!words) {
    place.textContent = text;
    return;
  }
  const output = mainOutput(score);
  const weights = words.map((word) => word.weights[output]);
  const most = Math.max(1e-9, ...weights.map(Math.abs));
  words.forEach((word, i) => {
    const shown = document.createElement("span");
    shown.className = `word ${weights[i] < 0 ? "down" : "up"}`;
    shown.style.setProperty("--weight", `${Math.round((100 * Math.abs(weights[i])) / most)}%`);
    shown.textContent = word.text;
    shown.title = signed(weights[i]);
    place.append(shown, " ");
  });
  const bare = (text) => text.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "") || text;
  const ranked = words.map((word, i) => ({ text: bare(word.text), weight: weights[i] }));
  ranked.sort((one, other) => Math.abs(other.weight) - Math.abs(one.weight));
  const first = ranked.slice(0, 5).map((word) => `${word.text} ${signed(word.weight)}`);
  const of = score.label === null ? "the score" : `the probability of ${output}`;
  part("transcript-text").textContent =
    `The line below a word is what ${of} loses without it: single for more, double for less. ` +
    `The heaviest: ${first.join(", ")}.`;
}

function fill(id, lines) {
  part(id).replaceChildren(
    ...lines.map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    }),
  );
}

function paragraph(text, kind) {
  const made = document.createElement("p");
  made.className = kind;
  made.textContent = text;
  return made;
}

function percent(value) {
  return `${Math.round(100 * value)} %`;
}
