// Which charts a run gets, from the metrics that it recorded. Pure: a list of chart specifications, the important ones apart.
import { canonicalName, type MetricInfo, metricInfo } from "./metric-catalogue.ts";
import type { RunRecord, Series } from "./run-record.ts";
import { at, evenly, extremes, smooth } from "./series.ts";

export interface Line extends Series {
  readonly name: string;
  /** main: the line to look at; faint: raw values behind it; points: measured now and then; second, third: dashed companions. */
  readonly look: "main" | "faint" | "points" | "second" | "third";
  /** Edges of a band around the line, one pair per value. */
  readonly band?: { readonly name: string; readonly low: readonly number[]; readonly high: readonly number[] };
}

export interface ChartSpec {
  readonly title: string;
  readonly unit: string;
  /** What the horizontal axis counts. */
  readonly axis: string;
  readonly lines: readonly Line[];
  readonly fromZero: boolean;
  /** Steps whose value was not finite. */
  readonly notFinite: readonly number[];
}

const maxPoints = 360;
const maxSmoothPoints = 180;

/**
 * In this order; a name that ends in `*` stands for every metric that begins so. Learning from reward is recognised by
 * `reward`, in environments by the return of episodes.
 */
const order = {
  text: ["loss", "learningRate", "gradientNorm", "tokensPerSecond"],
  reward: [
    "reward",
    "rewards/*",
    "kl",
    "entropy",
    "completions/mean_length",
    "clip_ratio",
    "learningRate",
    "gradientNorm",
    "tokensPerSecond",
  ],
  control: [
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "approx_kl",
    "kl_divergence_loss",
    "entropy_loss",
    "std",
    "valueLoss",
    "explained_variance",
    "learningRate",
    "time/fps",
  ],
};

/** Drawn within the chart of another metric, so they need none of their own. */
const companions = /^(?:reward_std|rewards\/.+\/std|completions\/(?:min|max)_length|clip_ratio\/(?:low|high)_mean)$/;

export function chartsOf(run: RunRecord): { main: ChartSpec[]; more: ChartSpec[] } {
  const steps = named(run.metrics);
  const evaluations = named(run.evaluations);
  const names = [...new Set([...steps.keys(), ...evaluations.keys()])];
  const isControl = steps.has("rollout/ep_rew_mean");
  const main = (isControl ? order.control : steps.has("reward") ? order.reward : order.text).flatMap((pattern) =>
    pattern.endsWith("*")
      ? names.filter((name) => name.startsWith(pattern.slice(0, -1)) && !companions.test(name)).sort()
      : names.filter((name) => name === pattern),
  );
  const shown = new Set(main);
  const rest = names.filter((name) => !shown.has(name) && !(companions.test(name) && steps.has(hostOf(name)))).sort();
  const chart = (name: string): ChartSpec => chartOf(name, steps, evaluations);
  return { main: main.map(chart), more: rest.map(chart) };
}

const hostOf = (name: string): string =>
  name === "reward_std"
    ? "reward"
    : name.startsWith("clip_ratio/")
      ? "clip_ratio"
      : name.startsWith("completions/")
        ? "completions/mean_length"
        : name.replace(/\/std$/, "/mean");

const named = (metrics: ReadonlyMap<string, Series>): Map<string, Series> =>
  new Map([...metrics].map(([name, series]) => [canonicalName(name), series]));

function chartOf(name: string, steps: ReadonlyMap<string, Series>, evaluations: ReadonlyMap<string, Series>): ChartSpec {
  const isPolicyLoss = name === "loss" && steps.has("reward");
  const info: MetricInfo = isPolicyLoss ? metricInfo("policyLoss") : metricInfo(name);
  const scaled = (series: Series | undefined): Series | undefined =>
    series && info.factor !== undefined ? { steps: series.steps, values: series.values.map((value) => value * info.factor!) } : series;
  const raw = scaled(steps.get(name));
  const evaluated = scaled(evaluations.get(name));
  const lines: Line[] = [];
  if (raw) lines.push(...trainingLines(name, raw, steps, scaled));
  if (evaluated) {
    const kept = at(evaluated, evenly(evaluated.values.length, maxPoints));
    lines.push({ name: name === "loss" ? "validation" : "evaluation", look: "points", ...kept });
  }
  const notFinite = [raw, evaluated].flatMap((series) => series?.steps.filter((_, i) => !Number.isFinite(series.values[i])) ?? []);
  return { title: info.title, unit: info.unit, axis: "step", lines, fromZero: info.fromZero ?? false, notFinite };
}

type Scaled = (series: Series | undefined) => Series | undefined;

function trainingLines(name: string, raw: Series, steps: ReadonlyMap<string, Series>, scaled: Scaled): Line[] {
  const label = name === "loss" && !steps.has("reward") ? "training" : "each step";
  const spread = steps.get(name === "reward" ? "reward_std" : name.replace(/\/mean$/, "/std"));
  if (spread && spread !== steps.get(name)) return [{ ...banded(raw, (i) => deviation(spread, raw.steps[i]), "± 1 std"), name: "mean" }];
  if (name === "completions/mean_length") {
    const [low, high] = [steps.get("completions/min_length"), steps.get("completions/max_length")];
    if (low && high) return [{ ...between(raw, low, high), name: "mean" }];
  }
  if (name === "clip_ratio") {
    const parts = [
      ["low side", "second", scaled(steps.get("clip_ratio/low_mean"))],
      ["high side", "third", scaled(steps.get("clip_ratio/high_mean"))],
    ] as const;
    const drawn = parts.flatMap(([side, look, series]): Line[] => (series ? [{ name: side, look, ...thin(series) }] : []));
    return [{ name: "all", look: "main", ...thin(raw) }, ...drawn];
  }
  // A schedule is exact: smoothing would falsify it.
  const smoothed = name === "learningRate" || name === "epoch" ? undefined : smooth(raw, maxSmoothPoints);
  if (!smoothed) return [{ name: label, look: "main", ...thin(raw) }];
  return [
    { name: label, look: "faint", ...thin(raw) },
    { name: "smoothed", look: "main", ...smoothed },
  ];
}

const thin = (series: Series): Series => at(series, extremes(series.values, maxPoints));

/** Values at the same step of another series, NaN where it has none. */
function deviation({ steps, values }: Series, step: number): number {
  let [low, high] = [0, steps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1;
    else high = middle;
  }
  return steps[low] === step ? values[low] : Number.NaN;
}

function banded(series: Series, width: (index: number) => number, name: string): Omit<Line, "name"> {
  const indices = evenly(series.values.length, maxSmoothPoints);
  const low = indices.map((i) => series.values[i] - width(i));
  const high = indices.map((i) => series.values[i] + width(i));
  return { look: "main", ...at(series, indices), band: { name, low, high } };
}

function between(series: Series, low: Series, high: Series): Omit<Line, "name"> {
  const indices = evenly(series.values.length, maxSmoothPoints);
  const edge = (other: Series): number[] => indices.map((i) => deviation(other, series.steps[i]));
  return { look: "main", ...at(series, indices), band: { name: "shortest to longest", low: edge(low), high: edge(high) } };
}
