// Shows a run from its events: one live line on a terminal, a plain line every few seconds elsewhere.
// Time is taken from the events, so that the same events always give the same text.
import { type JsonRecord, type Metrics, type RunEvent, type StepEvent, tokensPerSecond } from "../../engine/events.ts";
import type { Output } from "../io.ts";
import { type CurveOptions, curve, labelledCurve } from "./curve.ts";
import { formatBytes, formatCount, formatDuration, formatMetric, printable } from "./format.ts";

export interface ProgressOptions {
  /** What `tokens` of the events counts, as the rate names it. Default `tok`. */
  unit?: string;
  /** What `step` of the events counts. Default `step`. */
  stepName?: string;
  /** Seconds between plain lines. Default 10. */
  everySeconds?: number;
  /** Metric of the curve. Default `loss`, or the first metric where there is none. */
  metric?: string;
  /** Metrics shown besides `metric`, in this order. Default: the first three others. */
  alsoShow?: readonly string[];
  /** Floating-point operations for one token (forward and backward); with `peakFlops` gives the model FLOP utilisation. */
  flopsPerToken?: number;
  /** Operations a second that this machine reaches on a large matrix product. */
  peakFlops?: number;
  charset?: CurveOptions["charset"];
  /** Puts messages and paths into the words of the command line. Default: as they are. */
  phrase?: (text: string) => string;
}

export interface Progress {
  handle(event: RunEvent): void;
  /** Leaves the cursor on a fresh line; call it also when the run threw. */
  close(): void;
}

/** Longer histories are halved by averaging neighbours. */
const maxHistory = 2048;
/** A curve of fewer characters says nothing; one with labels needs so many for them. */
const [leastCurve, labels] = [8, 14];
/** A terminal needs no more than ten pictures a second. */
const redrawMs = 100;
const clearLine = "\r\u001b[2K";

/** A consumer of run events that writes to `output`. */
export function createProgress(output: Output, options: ProgressOptions = {}): Progress {
  const { everySeconds = 10, charset = "braille", stepName = "step", phrase = (text) => text } = options;
  const { colors } = output;
  let history: number[] = [];
  // One value of `history` stands for this many steps.
  let stride = 1;
  let pending: number[] = [];
  let live = "";
  let lastLine = Number.NEGATIVE_INFINITY;

  const remember = (value: number): void => {
    if (!Number.isFinite(value)) return;
    pending.push(value);
    if (pending.length < stride) return;
    history.push(mean(pending));
    pending = [];
    if (history.length > maxHistory) {
      history = Array.from({ length: maxHistory / 2 }, (_, i) => mean(history.slice(2 * i, 2 * i + 2)));
      stride *= 2;
    }
  };
  /** A line that stays; the live line is redrawn below it. */
  const say = (text: string): void => {
    output.write(live === "" ? `${text}\n` : `${clearLine}${text}\n${live}`);
  };
  const redraw = (text: string): void => {
    live = text;
    output.write(`${clearLine}${text}`);
  };
  const close = (): void => {
    if (live !== "") output.write("\n");
    live = "";
  };

  const step = (event: StepEvent): void => {
    const shown = describeStep(event, options);
    remember(event.metrics[shown.metric] ?? Number.NaN);
    const isLast = event.step >= event.total;
    if (output.isTTY) {
      if (!isLast && event.time - lastLine < redrawMs) return;
      lastLine = event.time;
      const space = output.columns - shown.text.length - 3;
      const line = space >= leastCurve ? curve(history, { width: Math.min(space, 40), charset })[0] : "";
      redraw(`${shown.text.slice(0, output.columns - 1)}${line === "" ? "" : `  ${colors.cyan(line)}`}`);
      return;
    }
    if (!isLast && event.time - lastLine < everySeconds * 1000) return;
    lastLine = event.time;
    output.write(`${shown.text}\n`);
  };

  const handle = (event: RunEvent): void => {
    switch (event.kind) {
      case "stage":
        say(printable(event.message));
        break;
      case "run-start":
        say(
          `run: ${event.total} ${stepName}s${event.resumedFrom === undefined ? "" : `, resumed at ${stepName} ${event.step} from ${phrase(event.resumedFrom)}`}`,
        );
        break;
      case "step":
        step(event);
        break;
      case "evaluation":
        say(
          `${colors.bold("evaluation")} at ${stepName} ${event.step}: ${metricsText(event.metrics)}${event.best ? colors.green(" (best)") : ""}`,
        );
        break;
      case "checkpoint":
        say(colors.dim(`checkpoint ${phrase(event.path)} (${reasonText(event.reason)}, ${formatBytes(event.bytes)})`));
        break;
      case "sample": {
        const text = typeof event.sample === "string" ? event.sample : recordsText(event.sample);
        // What later ones are compared with.
        const untrained = event.step === 0 ? " (before training)" : "";
        say(`${colors.bold(`sample at ${stepName} ${event.step}${untrained}:`)}\n${printable(text).replace(/^/gm, "  ")}`);
        break;
      }
      case "warning":
        say(`${colors.yellow("warning:")} ${printable(phrase(sentences(event.message, event.hint)))}`);
        break;
      case "run-end":
        close();
        if (output.isTTY && history.length > 2 && output.columns >= leastCurve + labels) {
          const lines = labelledCurve(history, { width: Math.min(output.columns - labels, 60), height: 5, charset });
          output.write(lines.map((line) => `${line}\n`).join(""));
        }
        output.write(`${endText(event, options)}\n`);
        break;
    }
  };
  return { handle, close };
}

/** A message, which has no full stop, and what to do about it, which has. */
const sentences = (message: string, hint = ""): string =>
  hint === "" || /[.!?]$/.test(message) ? `${message} ${hint}`.trim() : `${message}. ${hint}`;

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Records shown of a sample; the metrics file has all of them. */
const shownRecords = 3;

/** Completions with their rewards in a line each, other records as they are. The first of each prompt comes first. */
function recordsText(records: readonly JsonRecord[]): string {
  const firsts = records.filter(({ prompt }, i) => records.findIndex((other) => other.prompt === prompt) === i);
  const chosen = (firsts.length >= shownRecords ? firsts : records).slice(0, shownRecords);
  const lines = chosen.map((record) => {
    const { prompt, completion, reward } = record;
    if (typeof prompt !== "string" || typeof completion !== "string") return JSON.stringify(record);
    return `${typeof reward === "number" ? `[${formatMetric(reward)}] ` : ""}${prompt}${completion}`.replaceAll("\n", " ");
  });
  const rest = records.length - chosen.length;
  return lines.join("\n") + (rest > 0 ? `\n(and ${rest} more in metrics.jsonl)` : "");
}

/** Extremes and parts of what is told anyway: for the report. */
const isDetail = (name: string): boolean => /\/(?:min|max)_|_terminated_/.test(name);

/** The first metrics; an evaluation with more has the most telling first. */
const metricsText = (metrics: Metrics): string =>
  Object.entries(metrics)
    .filter(([name]) => !isDetail(name))
    .slice(0, 9)
    .map(([name, value]) => `${name} ${formatMetric(value)}`)
    .join("  ");

/** One step in one line, and the name of its main metric. */
function describeStep(event: StepEvent, options: ProgressOptions): { text: string; metric: string } {
  const { unit = "tok", stepName = "step", flopsPerToken, peakFlops } = options;
  const names = Object.keys(event.metrics);
  const metric = options.metric ?? (names.includes("loss") ? "loss" : (names[0] ?? "loss"));
  const others = options.alsoShow ?? names.filter((name) => name !== metric).slice(0, 3);
  const parts = [`${stepName} ${event.step}/${event.total}`];
  for (const name of [metric, ...others]) {
    if (event.metrics[name] !== undefined) parts.push(`${name} ${formatMetric(event.metrics[name])}`);
  }
  const rate = tokensPerSecond(event);
  if (rate > 0) parts.push(`${formatCount(rate)} ${unit}/s`);
  if (rate > 0 && flopsPerToken !== undefined && peakFlops !== undefined && peakFlops > 0) {
    parts.push(`MFU ${((100 * rate * flopsPerToken) / peakFlops).toFixed(0)} %`);
  }
  if (event.step < event.total) parts.push(`ETA ${formatDuration(event.remainingSeconds)}`);
  return { text: parts.join("  "), metric };
}

const reasonText = (reason: string): string => (reason === "aborted" ? "interrupted" : reason);

function endText(
  event: Extract<RunEvent, { kind: "run-end" }>,
  { unit, stepName = "step", phrase = (text) => text }: ProgressOptions,
): string {
  // A run that is resumed with fewer steps than it has taken ends where it is.
  const isPast = event.reason === "finished" && event.step > event.total;
  const parts = [
    isPast
      ? `nothing to train: already at ${stepName} ${event.step}, more than the ${event.total} asked for`
      : `${reasonText(event.reason)} at ${stepName} ${event.step}/${event.total} after ${formatDuration(event.elapsedSeconds)}`,
  ];
  // Where steps are what is counted, they have been told.
  const isTold = event.totalTokens === event.step;
  if (event.totalTokens > 0 && !isTold) parts.push(`${formatCount(event.totalTokens)} ${unit === undefined ? "tokens" : `${unit}s`}`);
  if (event.best) parts.push(`best ${event.best.metric} ${formatMetric(event.best.value)} at ${stepName} ${event.best.step}`);
  if (event.checkpoint !== undefined) parts.push(`checkpoint ${phrase(event.checkpoint)}`);
  return parts.join(", ");
}
