// The head of a run: what ran, on what, how long, and the few numbers that it came to.
import { formatCount, formatDate, formatDuration, formatNumber } from "./format.ts";
import { html, type Markup } from "./html.ts";
import { asFinite, asText, isRecord } from "./json.ts";
import { canonicalName, metricInfo } from "./metric-catalogue.ts";
import type { RunRecord, Series } from "./run-record.ts";
import { firstFinite, lastFinite, median } from "./series.ts";
import { type Figure, speculationFigures, speculationNames } from "./speculation.ts";

/** Label and value, what is not recorded left out; the value carries its unit. */
export function factsOf(run: RunRecord): [string, string][] {
  const { config, checkpoint, started, step, total, tokens, endReason } = run;
  const parameters = run.stageMetrics.get("model.parameters") ?? asFinite(config?.parameters) ?? checkpoint?.parameters;
  const machine = run.artifacts.findLast(({ name }) => name === "machine")?.data ?? (isRecord(config?.machine) ? config.machine : {});
  const threads = asFinite(machine.threads) ?? asFinite(config?.threads) ?? asFinite(machine.hardwareThreads);
  const seconds = run.elapsedSeconds ?? (started !== undefined && run.lastTime !== undefined ? (run.lastTime - started) / 1000 : undefined);
  const facts: [string, string | undefined][] = [
    ["started", started === undefined ? undefined : formatDate(started)],
    ["duration", seconds === undefined ? undefined : formatDuration(seconds)],
    ["model", modelText(run)],
    ["parameters", parameters === undefined ? undefined : `${parameters.toLocaleString("en-US")} (${formatCount(parameters)})`],
    ["steps", total > 0 ? `${step.toLocaleString("en-US")} of ${total.toLocaleString("en-US")}` : undefined],
    [run.metrics.has("rollout/ep_rew_mean") ? "environment steps" : "tokens", tokens ? tokens.toLocaleString("en-US") : undefined],
    ["processor", asText(machine.cpu)],
    ["threads", threads === undefined ? undefined : String(threads)],
    [
      "memory",
      asFinite(machine.memoryBytes) === undefined ? undefined : `${formatNumber(asFinite(machine.memoryBytes)! / 2 ** 30, 3)} GiB`,
    ],
    ["software", softwareText(machine)],
    ["seed", asFinite(config?.seed) === undefined ? undefined : String(config?.seed)],
    ["outcome", endReason === undefined ? "no end recorded" : outcome(endReason)],
    ...run.artifacts
      .filter(({ name }) => name === "speculation")
      .slice(-1)
      .flatMap(speculationNames),
  ];
  return facts.filter((fact): fact is [string, string] => fact[1] !== undefined);
}

const outcomes: Readonly<Record<string, string>> = {
  finished: "finished",
  done: "finished: nothing left to learn",
  "early-stopping": "stopped early: no further improvement",
  aborted: "interrupted",
  "not-finite": "stopped: a value was not finite",
  failed: "failed",
};

const outcome = (reason: string): string => (Object.hasOwn(outcomes, reason) ? outcomes[reason] : reason);

function modelText({ config, checkpoint }: RunRecord): string | undefined {
  const { config: hf = {} } = checkpoint ?? {};
  const layers = asFinite(hf.num_hidden_layers) ?? asFinite(hf.n_layer);
  const width = asFinite(hf.hidden_size) ?? asFinite(hf.n_embd);
  const parts = [
    asText(config?.init) ?? asText(config?.model) ?? asText(config?.size),
    asText(hf.model_type),
    layers === undefined ? undefined : `${layers} layers`,
    width === undefined ? undefined : `width ${width}`,
  ].filter((part) => part !== undefined);
  return parts.length > 0 ? parts.join(", ") : undefined;
}

function softwareText(machine: Readonly<Record<string, unknown>>): string | undefined {
  const parts = [
    ["longwave", machine.longwave],
    ["Node", machine.node],
    ["ONNX Runtime", machine.onnxruntime],
    ["", machine.platform],
  ].flatMap(([name, value]) => (asText(value) === undefined ? [] : [`${name} ${value}`.trim()]));
  return parts.length > 0 ? parts.join(", ") : undefined;
}

/** The numbers to see first, at most seven: one row of a wide page. */
export function headline(run: RunRecord): Figure[] {
  const steps = byCanonicalName(run.metrics);
  const evaluations = byCanonicalName(run.evaluations);
  const speculation = run.artifacts.findLast(({ name }) => name === "speculation");
  const isReward = steps.has("reward");
  const isControl = steps.has("rollout/ep_rew_mean");
  const figures: (Figure | undefined)[] = [
    ...(speculation ? speculationFigures(speculation) : []),
    isReward ? change("Reward in training", steps.get("reward"), "reward") : undefined,
    change("Held-out reward", evaluations.get("reward"), "reward"),
    isControl ? change("Return in training", steps.get("rollout/ep_rew_mean"), "rollout/ep_rew_mean") : undefined,
    isControl ? change("Return in evaluation", evaluations.get("rollout/ep_rew_mean"), "rollout/ep_rew_mean") : undefined,
    isReward || isControl ? undefined : change("Training loss", steps.get("loss"), "loss"),
    isReward ? undefined : change("Validation loss", evaluations.get("loss"), "loss"),
    last("Bits per byte, validation", evaluations.get("bitsPerByte"), "bitsPerByte"),
    last("KL to the start model", steps.get("kl"), "kl"),
    isReward ? change("Entropy", steps.get("entropy"), "entropy") : undefined,
    isReward ? change("Completion length", steps.get("completions/mean_length"), "completions/mean_length") : undefined,
    isControl ? last("Pace", steps.get("time/fps"), "time/fps") : throughput(steps.get("tokensPerSecond")),
  ];
  return figures.filter((figure) => figure !== undefined).slice(0, 7);
}

const byCanonicalName = (metrics: ReadonlyMap<string, Series>): Map<string, Series> =>
  new Map([...metrics].map(([name, series]) => [canonicalName(name), series]));

function change(label: string, series: Series | undefined, name: string): Figure | undefined {
  const [first, final] = series ? [firstFinite(series), lastFinite(series)] : [];
  if (first === undefined || final === undefined) return undefined;
  const { unit } = metricInfo(name);
  return series!.values.length === 1
    ? { label, value: formatNumber(final, 3), unit }
    : { label, value: formatNumber(final, 3), unit, note: `from ${formatNumber(first, 3)}` };
}

function last(label: string, series: Series | undefined, name: string): Figure | undefined {
  const value = series && lastFinite(series);
  return value === undefined ? undefined : { label, value: formatNumber(value, 3), unit: metricInfo(name).unit };
}

function throughput(series: Series | undefined): Figure | undefined {
  const value = series && median(series.values);
  return value === undefined
    ? undefined
    : { label: "Throughput", value: formatNumber(value, 3), unit: "tokens/s", note: "median of the steps" };
}

export const figuresMarkup = (figures: readonly Figure[]): Markup | undefined =>
  figures.length === 0
    ? undefined
    : html`<dl class="figures">${figures.map(({ label, value, unit, note }) => html`<div><dt>${label}</dt><dd><b>${value}</b> <span class="unit">${unit}</span>${note && html`<small>${note}</small>`}</dd></div>`)}</dl>`;

export const factsMarkup = (facts: readonly [string, string][]): Markup =>
  html`<dl class="facts">${facts.map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
