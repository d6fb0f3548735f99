import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { collectEvents, type RunEvent } from "../events.ts";
import { createJsonlSink, readMetrics } from "./jsonl.ts";
import { type Sink, withSinks } from "./sink.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "longwave-sinks-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const base = { total: 9, time: 0 };
const step = (n: number, loss = n / 10): RunEvent => ({
  ...base,
  kind: "step",
  step: n,
  metrics: { loss },
  seconds: 0,
  tokens: 0,
  elapsedSeconds: 0,
  totalTokens: 0,
  remainingSeconds: 0,
});
const start = (n: number): RunEvent => ({ ...base, kind: "run-start", step: n, ...(n > 0 && { resumedFrom: "x" }) });
const end: RunEvent = { ...base, kind: "run-end", step: 9, reason: "finished", elapsedSeconds: 0, totalTokens: 0 };

function write(path: string, events: RunEvent[]): void {
  const sink = createJsonlSink(path);
  for (const event of events) sink.write(event);
  sink.close();
}

const told = (path: string): string[] => [...readMetrics(path)].map(({ kind, step }) => `${kind} ${step}`);

test("events come back as they were, numbers that are not finite too", () => {
  const path = join(directory, "metrics.jsonl");
  const events = [start(0), step(1, Number.NaN), step(2, -Infinity), step(3, 1 / 3), end];
  write(path, events);
  expect([...readMetrics(path)]).toEqual(events);
});

test("a resume cuts the file back to its step; a new run empties it", () => {
  const path = join(directory, "metrics.jsonl");
  write(path, [start(0), ...[1, 2, 3, 4, 5].map((n) => step(n))]);
  write(path, [start(3), step(4)]);
  expect(told(path)).toEqual(["run-start 0", "step 1", "step 2", "step 3", "run-start 3", "step 4"]);
  write(path, [start(0)]);
  expect(told(path)).toEqual(["run-start 0"]);
});

test("what a sink wrote ahead of the start stays, what others wrote before does not", () => {
  const path = join(directory, "metrics.jsonl");
  const stage: RunEvent = { ...base, kind: "stage", step: 0, name: "model", message: "1 parameter" };
  write(path, [start(0), step(1), step(2)]);
  writeFileSync(path, `${readFileSync(path, "utf8")}{"kind":"st`);
  write(path, [stage, start(1), step(2)]);
  expect(told(path)).toEqual(["run-start 0", "step 1", "stage 0", "run-start 1", "step 2"]);
  write(path, [stage, start(0)]);
  expect(told(path)).toEqual(["stage 0", "run-start 0"]);
  write(path, [start(0), step(1), start(0)]);
  expect(told(path)).toEqual(["run-start 0"]);
});

test("half a line at the end, or damage in the middle, is cut off at a resume", () => {
  const path = join(directory, "metrics.jsonl");
  write(path, [start(0), step(1)]);
  const whole = readFileSync(path, "utf8");
  for (const damage of ['{"kind":"step","st', "\0\0\0\0\n", "null\n", "{}\n"]) {
    writeFileSync(path, whole);
    appendFileSync(path, damage);
    expect(told(path)).toEqual(["run-start 0", "step 1"]);
    write(path, [start(5), step(6)]);
    expect(told(path)).toEqual(["run-start 0", "step 1", "run-start 5", "step 6"]);
  }
});

test("lines longer than a read", () => {
  const path = join(directory, "metrics.jsonl");
  const long: RunEvent = { ...base, kind: "sample", step: 1, sample: "ä".repeat(200_000) };
  write(path, [start(0), long, step(2), step(3)]);
  write(path, [start(2)]);
  expect([...readMetrics(path)][1]).toEqual(long);
  expect(told(path)).toEqual(["run-start 0", "sample 1", "step 2", "run-start 2"]);
});

async function* stream(events: RunEvent[]): AsyncGenerator<RunEvent> {
  yield* events;
}

function failingSink(at: number): Sink & { seen: number; closed: number } {
  return {
    name: "memory",
    seen: 0,
    closed: 0,
    write() {
      if (++this.seen >= at) throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
    },
    close() {
      this.closed++;
    },
  };
}

test("a sink that fails is left out after one warning, which the others see", async () => {
  const failing = failingSink(3);
  const path = join(directory, "metrics.jsonl");
  const events = await collectEvents(withSinks(stream([start(0), step(1), step(2), step(3), end]), [failing, createJsonlSink(path)]));
  expect(events.map(({ kind, step }) => `${kind} ${step}`)).toEqual([
    "run-start 0",
    "step 1",
    "step 2",
    "warning 2",
    "step 3",
    "run-end 9",
  ]);
  expect(events[3]).toMatchObject({
    code: "sink-failed",
    message: expect.stringContaining("memory: cannot be written any more: ENOSPC"),
    hint: expect.stringContaining("Free some space"),
  });
  expect([failing.seen, failing.closed]).toEqual([3, 1]);
  expect(told(path).filter((line) => line.startsWith("warning"))).toEqual(["warning 2"]);
});

test("run-end stays the last event; all sinks failing does no harm", async () => {
  const events = await collectEvents(withSinks(stream([start(0), end]), [failingSink(2), failingSink(1), failingSink(2)]));
  expect(events.map(({ kind }) => kind)).toEqual(["run-start", "warning", "warning", "warning", "run-end"]);
});

test("sinks are closed when the consumer stops early", async () => {
  const sink = failingSink(100);
  for await (const _ of withSinks(stream([start(0), step(1)]), [sink])) break;
  expect(sink.closed).toBe(1);
});
