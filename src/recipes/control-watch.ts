// Plays episodes with a policy and writes them as one page: a canvas that draws what the environment says of itself, with play, pause,
// speed and a slider. The page needs no network and runs nothing but its own few lines.

import { UsageError } from "../base/errors.ts";
import type { Drawing } from "../rl/control/drawing.ts";
import type { Environment } from "../rl/control/environment.ts";
import type { ControlPolicy } from "../rl/control/policy-file.ts";
import { checkSpaces } from "../rl/control/policy-file.ts";
import { Predictor } from "../rl/control/predict.ts";
import type { Backend } from "../runtime/backend.ts";

export interface EpisodeFrame {
  readonly drawing: Drawing;
  /** Numbers of the action that followed; none in the last frame. */
  readonly action: readonly number[];
  /** Reward of that action. */
  readonly reward: number;
  /** What the value network expects from here: discounted, in units of the rewards of training, which may be normalised. */
  readonly value: number;
}

export interface RecordedEpisode {
  readonly return: number;
  readonly length: number;
  readonly end: "terminated" | "truncated" | "cut";
  readonly frames: readonly EpisodeFrame[];
}

export interface RecordOptions {
  /** Default true. */
  deterministic?: boolean;
  seed?: number;
  /** Longer episodes are cut here. Default 5,000. */
  maxSteps?: number;
}

/**
 * Plays one episode.
 * @throws UsageError for an environment with other spaces than the policy's, or one that cannot be drawn.
 */
export function recordEpisode(
  backend: Backend,
  control: ControlPolicy,
  environment: Environment,
  options: RecordOptions = {},
): RecordedEpisode {
  const { deterministic = true, seed = 0, maxSteps = 5000 } = options;
  checkSpaces(control, environment);
  if (!environment.drawing)
    throw new UsageError(`watch: expected an environment that can be drawn, got ${control.environment}`, {
      hint: "Give the environment a method drawing() that returns { shapes }.",
    });
  using predictor = new Predictor(backend, control, seed);
  const frames: EpisodeFrame[] = [];
  let observation = environment.reset({ seed });
  let [sum, end] = [0, "cut" as RecordedEpisode["end"]];
  while (frames.length < maxSteps && end === "cut") {
    const drawing = environment.drawing();
    const mask = environment.actionMask?.();
    const { action, value } = predictor.predict(observation, { deterministic, ...(mask ? { mask } : {}) });
    const step = environment.step(action);
    frames.push({ drawing, action: typeof action === "number" ? [action] : Array.from(action), reward: step.reward, value });
    sum += step.reward;
    observation = step.observation;
    if (step.terminated) end = "terminated";
    else if (step.truncated) end = "truncated";
  }
  const length = frames.length;
  frames.push({ drawing: environment.drawing(), action: [], reward: 0, value: 0 });
  return { return: sum, length, end, frames };
}

const escapeHtml = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
const round = (value: number): number => Number(value.toPrecision(4));

/** The page. @param title plain text. @param stepSeconds time of one frame at normal speed. */
export function episodePage(
  title: string,
  episodes: readonly RecordedEpisode[],
  { stepSeconds = 1 / 30 }: { stepSeconds?: number } = {},
): string {
  const data = episodes.map(({ return: sum, length, end, frames }) => ({
    return: round(sum),
    length,
    end,
    frames: frames.map(({ drawing, action, reward, value }) => ({
      shapes: drawing.shapes,
      action: action.map(round),
      reward: round(reward),
      value: round(value),
    })),
  }));
  // Inside a script element only "<" could end it.
  const json = JSON.stringify({ stepSeconds, episodes: data }).replaceAll("<", "\\u003c");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<canvas id="picture" width="960" height="960" role="img" aria-label="The environment at the chosen step"></canvas>
<div class="controls">
<button id="play" type="button">Pause</button>
<input id="place" type="range" min="0" value="0" aria-label="Step of the episode">
<label>Speed <select id="speed"><option value="0.25">¼</option><option value="0.5">½</option><option value="1" selected>1</option><option value="2">2</option><option value="4">4</option></select></label>
<label id="which">Episode <select id="episode"></select></label>
</div>
<p id="facts" aria-live="off"></p>
<canvas id="curve" width="960" height="160" role="img" aria-label="Reward so far and expected value, step by step"></canvas>
<p class="legend"><span class="reward">reward so far</span> <span class="value">value that the policy expects: discounted, in units of the rewards it was trained on</span></p>
</main>
<script id="data" type="application/json">${json}</script>
<script>${script}</script>
</body>
</html>
`;
}

const style = `
:root { color-scheme: light dark; --ink: #1d2433; --muted: #8b93a5; --surface: #eef0f4; --accent: #2563eb; --good: #15803d; --bad: #b91c1c; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9f0; --muted: #7d8597; --surface: #232938; --accent: #7aa7ff; --good: #4ade80; --bad: #f87171; --page: #131722; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 30rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.1rem; }
canvas { width: 100%; display: block; border-radius: 0.5rem; background: var(--surface); }
#curve { margin-top: 0.5rem; }
.controls { display: flex; flex-wrap: wrap; gap: 0.75rem; align-items: center; margin: 0.75rem 0; }
#place { flex: 1 1 10rem; }
button, select { font: inherit; padding: 0.2rem 0.7rem; }
#facts { font-variant-numeric: tabular-nums; margin: 0.25rem 0; min-height: 3em; }
.legend { font-size: 0.85rem; } .reward { color: var(--accent); } .value { color: var(--muted); margin-left: 1em; }
`;

const script = `
const { stepSeconds, episodes } = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const [picture, curve, play, place, speed, choice, facts] = ["picture", "curve", "play", "place", "speed", "episode", "facts"].map(element);
let episode = episodes[0], at = 0, playing = true, last = 0, rest = 0;
const color = (tone) => getComputedStyle(document.documentElement).getPropertyValue("--" + tone).trim();
function draw() {
  const size = picture.width, context = picture.getContext("2d"), frame = episode.frames[at];
  const x = (value) => value * size, y = (value) => (1 - value) * size;
  context.clearRect(0, 0, size, size);
  context.lineCap = "round";
  for (const shape of frame.shapes) {
    context.fillStyle = context.strokeStyle = color(shape.tone);
    context.beginPath();
    if (shape.kind === "line") {
      context.lineWidth = Math.max(1, shape.width * size);
      context.moveTo(x(shape.from[0]), y(shape.from[1]));
      context.lineTo(x(shape.to[0]), y(shape.to[1]));
      context.stroke();
    } else if (shape.kind === "circle") {
      context.arc(x(shape.center[0]), y(shape.center[1]), shape.radius * size, 0, 7);
      context.fill();
    } else if (shape.kind === "polygon") {
      for (const [i, [px, py]] of shape.points.entries()) i === 0 ? context.moveTo(x(px), y(py)) : context.lineTo(x(px), y(py));
      context.closePath();
      context.fill();
    } else if (shape.kind === "text") {
      context.font = Math.round(shape.size * size * 1.4) + "px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(shape.text, x(shape.at[0]), y(shape.at[1]));
    }
  }
  let sum = 0;
  for (let i = 0; i < at; i++) sum += episode.frames[i].reward;
  const isEnd = at === episode.length;
  facts.textContent = "Step " + at + " of " + episode.length + ", reward so far " + sum.toPrecision(4) +
    (isEnd ? ". The episode " + (episode.end === "terminated" ? "ended" : "was cut") + ": return " + episode.return
           : ", value " + frame.value + ", action " + frame.action.join(", "));
  place.value = at;
  drawCurve();
}
function drawCurve() {
  const { width, height } = curve, context = curve.getContext("2d"), n = episode.length;
  let sum = 0;
  const sums = [0, ...episode.frames.slice(0, n).map(({ reward }) => (sum += reward))], values = episode.frames.slice(0, n).map(({ value }) => value);
  context.clearRect(0, 0, width, height);
  const line = (series, tone) => {
    const low = Math.min(...series), high = Math.max(...series), span = high - low || 1;
    context.strokeStyle = color(tone);
    context.lineWidth = 3;
    context.beginPath();
    for (const [i, value] of series.entries()) {
      const px = (i / Math.max(1, n)) * width, py = height - 8 - ((value - low) / span) * (height - 16);
      i === 0 ? context.moveTo(px, py) : context.lineTo(px, py);
    }
    context.stroke();
  };
  line(values, "muted");
  line(sums, "accent");
  context.fillStyle = color("ink");
  context.fillRect((at / Math.max(1, n)) * width - 1, 0, 2, height);
}
function setPlaying(value) { playing = value; play.textContent = playing ? "Pause" : "Play"; rest = 0; }
function tick(now) {
  if (playing) {
    rest += ((now - last) / 1000) * Number(speed.value) / stepSeconds;
    const steps = Math.floor(rest);
    if (steps > 0) {
      rest -= steps;
      at = Math.min(episode.length, at + steps);
      draw();
      if (at === episode.length) setPlaying(false);
    }
  }
  last = now;
  requestAnimationFrame(tick);
}
function start(index) { episode = episodes[index]; at = 0; place.max = episode.length; setPlaying(true); draw(); }
play.addEventListener("click", () => { if (!playing && at === episode.length) at = 0; setPlaying(!playing); draw(); });
place.addEventListener("input", () => { setPlaying(false); at = Number(place.value); draw(); });
document.addEventListener("keydown", (event) => {
  if (event.target !== document.body) return;
  if (event.key === " ") { event.preventDefault(); play.click(); }
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (move) { setPlaying(false); at = Math.min(episode.length, Math.max(0, at + move)); draw(); }
});
for (const [i, { return: sum }] of episodes.entries()) choice.add(new Option((i + 1) + " (return " + sum + ")", i));
element("which").hidden = episodes.length < 2;
choice.addEventListener("change", () => start(Number(choice.value)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
start(0);
requestAnimationFrame((now) => { last = now; tick(now); });
`;
