// What a report knows of one run, gathered from its events. Everything may be missing: runs break.
import type { Json, JsonRecord } from "../engine/index.ts";
import { asFinite, asList, asNumber, asText, isRecord } from "./json.ts";

/** Values of one metric by step, in rising order of steps. Not-finite values are kept: the charts tell where they are. */
export interface Series {
  readonly steps: number[];
  readonly values: number[];
}

export interface Sample {
  readonly step: number;
  readonly text?: string;
  readonly records?: readonly JsonRecord[];
}

export interface Artifact {
  readonly step: number;
  readonly name: string;
  readonly data: JsonRecord;
}

/** An event that is shown as a line of the list. */
export interface LogEntry {
  readonly kind: "stage" | "start" | "resume" | "evaluation" | "checkpoint" | "warning" | "end";
  readonly step: number;
  /** Milliseconds since 1970; undefined when the event had none. */
  readonly time: number | undefined;
  readonly message: string;
  readonly hint?: string;
}

export interface RunRecord {
  /** Name of the folder. */
  readonly id: string;
  /** As it was given, for commands. */
  readonly path: string;
  readonly config: JsonRecord | undefined;
  /** `config.json` of the newest checkpoint and the size of its weights. */
  readonly checkpoint?: { readonly config?: JsonRecord; readonly parameters?: number };
  readonly metrics: ReadonlyMap<string, Series>;
  readonly evaluations: ReadonlyMap<string, Series>;
  /** Numbers of the preparation: `model.parameters` and such. */
  readonly stageMetrics: ReadonlyMap<string, number>;
  readonly samples: readonly Sample[];
  readonly artifacts: readonly Artifact[];
  readonly log: readonly LogEntry[];
  readonly started: number | undefined;
  readonly lastTime: number | undefined;
  readonly step: number;
  readonly total: number;
  readonly elapsedSeconds: number | undefined;
  readonly tokens: number | undefined;
  /** Undefined while the run goes on, and when it was killed. */
  readonly endReason: string | undefined;
  /** What is missing or damaged, one sentence each. */
  readonly notes: readonly string[];
}

/** Samples beyond this are thinned: the first and the last stay, of the others every second one. */
const maxSamples = 400;
const maxLogEntries = 2000;
/** Different names; a run that makes up a name a step must not eat the memory. */
const maxMetrics = 500;

/** Gathers events one by one. Fields of a wrong type are left out, as if they had not been written. */
export class RunGatherer {
  readonly metrics = new Map<string, Series>();
  readonly evaluations = new Map<string, Series>();
  readonly stageMetrics = new Map<string, number>();
  samples: Sample[] = [];
  artifacts: Artifact[] = [];
  log: LogEntry[] = [];
  config: JsonRecord | undefined;
  started: number | undefined;
  lastTime: number | undefined;
  step = 0;
  total = 0;
  elapsedSeconds: number | undefined;
  tokens: number | undefined;
  endReason: string | undefined;
  numEvents = 0;
  numLogLeftOut = 0;
  numMetricsLeftOut = 0;

  /** @returns false when the value is no event. */
  add(event: unknown): boolean {
    if (!isRecord(event)) return false;
    const step = asFinite(event.step);
    const kind = asText(event.kind);
    if (step === undefined || kind === undefined) return false;
    const time = asFinite(event.time);
    this.numEvents++;
    if (kind === "run-start") this.#start(event, step, time);
    this.started ??= time;
    this.lastTime = time ?? this.lastTime;
    this.step = Math.max(this.step, step);
    this.total = Math.max(this.total, asFinite(event.total) ?? 0);
    switch (kind) {
      case "stage":
        this.#addStage(event, step, time);
        break;
      case "step":
        this.#addStep(event, step);
        break;
      case "evaluation":
        this.#addMetrics(this.evaluations, step, event.metrics);
        if (event.best === true) this.#note("evaluation", step, time, "best evaluation so far");
        break;
      case "sample":
        this.#addSample(step, event.sample);
        break;
      case "artifact": {
        const name = asText(event.name);
        if (name !== undefined && isRecord(event.data)) this.artifacts.push({ step, name, data: event.data });
        break;
      }
      case "checkpoint":
        this.#note("checkpoint", step, time, checkpointText(event));
        break;
      case "warning":
        this.#note("warning", step, time, asText(event.message) ?? "(no message)", asText(event.hint));
        break;
      case "run-end":
        this.endReason = asText(event.reason) ?? "unknown";
        this.#addTotals(event);
        this.#note("end", step, time, `ended: ${this.endReason}`);
        break;
    }
    return true;
  }

  /** A resumed run goes on from an earlier step; what an abandoned continuation left after it goes. */
  #start(event: JsonRecord, step: number, time: number | undefined): void {
    if (isRecord(event.config)) this.config = event.config;
    const from = asText(event.resumedFrom);
    this.endReason = undefined;
    if (from === undefined) {
      this.#note("start", step, time, `started: ${(asFinite(event.total) ?? 0).toLocaleString("en-US")} steps`);
      return;
    }
    for (const { steps, values } of [...this.metrics.values(), ...this.evaluations.values()])
      while (steps.length > 0 && steps[steps.length - 1] > step) {
        steps.pop();
        values.pop();
      }
    this.samples = this.samples.filter((sample) => sample.step <= step);
    this.artifacts = this.artifacts.filter((artifact) => artifact.step <= step);
    this.step = step;
    this.#note("resume", step, time, `resumed from ${from}`);
  }

  #addStage(event: JsonRecord, step: number, time: number | undefined): void {
    const name = asText(event.name) ?? "stage";
    for (const [key, value] of Object.entries(isRecord(event.metrics) ? event.metrics : {})) {
      const number = asFinite(value);
      if (number !== undefined) this.stageMetrics.set(`${name}.${key}`, number);
    }
    // Only the last word on a stage: the others are its progress.
    if (event.progress === undefined || event.progress === 1) this.#note("stage", step, time, asText(event.message) ?? name);
  }

  #addStep(event: JsonRecord, step: number): void {
    this.#addMetrics(this.metrics, step, event.metrics);
    this.#addTotals(event);
    const [seconds, tokens] = [asFinite(event.seconds) ?? 0, asFinite(event.tokens) ?? 0];
    if (seconds > 0 && tokens > 0) this.#push(this.metrics, "tokensPerSecond", step, tokens / seconds);
  }

  #addTotals(event: JsonRecord): void {
    this.elapsedSeconds = asFinite(event.elapsedSeconds) ?? this.elapsedSeconds;
    this.tokens = asFinite(event.totalTokens) ?? this.tokens;
  }

  #addMetrics(into: Map<string, Series>, step: number, metrics: Json | undefined): void {
    if (!isRecord(metrics)) return;
    for (const [name, value] of Object.entries(metrics)) {
      const number = asNumber(value);
      if (number !== undefined) this.#push(into, name, step, number);
    }
  }

  #push(into: Map<string, Series>, name: string, step: number, value: number): void {
    let series = into.get(name);
    if (!series) {
      if (into.size >= maxMetrics) {
        this.numMetricsLeftOut++;
        return;
      }
      into.set(name, (series = { steps: [], values: [] }));
    }
    const last = series.steps.length - 1;
    // One value a step, in order: a repeated step replaces, an earlier one is damage.
    if (last >= 0 && series.steps[last] === step) series.values[last] = value;
    else if (last < 0 || series.steps[last] < step) {
      series.steps.push(step);
      series.values.push(value);
    }
  }

  #addSample(step: number, sample: Json | undefined): void {
    if (typeof sample === "string") this.samples.push({ step, text: sample });
    else {
      const records = asList(sample).filter(isRecord);
      if (records.length > 0) this.samples.push({ step, records });
    }
    if (this.samples.length > maxSamples) this.samples = this.samples.filter((_, i) => i % 2 === 0 || i === this.samples.length - 1);
  }

  #note(kind: LogEntry["kind"], step: number, time: number | undefined, message: string, hint?: string): void {
    if (this.log.length >= maxLogEntries && kind !== "end") this.numLogLeftOut++;
    else this.log.push({ kind, step, time, message, ...(hint === undefined ? {} : { hint }) });
  }
}

function checkpointText(event: JsonRecord): string {
  const bytes = asFinite(event.bytes);
  const size = bytes === undefined ? "" : `, ${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return `checkpoint (${asText(event.reason) ?? "unknown reason"}${size}): ${asText(event.path) ?? "path not recorded"}`;
}
