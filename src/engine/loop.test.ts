import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AbortedError, CheckpointError, NotFiniteError, UsageError } from "../base/errors.ts";
import { readCheckpoint } from "./checkpoint-manifest.ts";
import { CheckpointStore } from "./checkpoints.ts";
import { collectEvents, type RunEvent } from "./events.ts";
import { type LoopOptions, runLoop } from "./loop.ts";
import { createJsonlSink } from "./sinks/jsonl.ts";
import { withSinks } from "./sinks/sink.ts";
import { ToyTrainable } from "./testing/toy-trainable.ts";
import type { StepResult, Trainable } from "./trainable.ts";

let directory: string;
let checkpoints: CheckpointStore;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "longwave-loop-"));
  checkpoints = new CheckpointStore(directory);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** All events up to the end or the error. */
async function play(trainable: Trainable, options: LoopOptions, signal?: AbortSignal): Promise<{ events: RunEvent[]; error: unknown }> {
  const events: RunEvent[] = [];
  try {
    for await (const event of runLoop(trainable, options, signal)) events.push(event);
    return { events, error: undefined };
  } catch (error) {
    return { events, error };
  }
}

const told = (events: RunEvent[]): string[] => events.map(({ kind, step }) => `${kind} ${step}`);
const ofKind = <K extends RunEvent["kind"]>(events: RunEvent[], kind: K) =>
  events.filter((event): event is Extract<RunEvent, { kind: K }> => event.kind === kind);

/** What events say about learning: everything but times and places. */
const learned = (events: RunEvent[]): string[] =>
  events
    .filter(({ kind }) => kind === "step" || kind === "evaluation" || kind === "sample")
    .map((event) => JSON.stringify(event, (key, value) => (/seconds|time/i.test(key) ? undefined : value)));

describe("order of events", () => {
  test("what is due after a step comes in one order, and run-end is last", async () => {
    const { events } = await play(new ToyTrainable(), {
      steps: 5,
      logEvery: 2,
      evaluateEvery: 2,
      evaluateFirst: true,
      sampleEvery: 2,
      checkpointEvery: 4,
      checkpoints,
      config: { seed: 1 },
    });
    expect(told(events)).toEqual([
      "run-start 0",
      "evaluation 0",
      "step 2",
      "evaluation 2",
      "sample 2",
      "step 4",
      "evaluation 4",
      "sample 4",
      "checkpoint 4",
      "step 5",
      "evaluation 5",
      "checkpoint 5",
      "run-end 5",
    ]);
    expect(events[0]).toMatchObject({ config: { seed: 1 }, total: 5 });
    expect(events.at(-1)).toMatchObject({ reason: "finished", totalTokens: 10 + 11 + 12 + 10 + 11, checkpoint: checkpoints.pathOf(5) });
    expect(ofKind(events, "step").map(({ tokens }) => tokens)).toEqual([21, 22, 11]);
    expect(ofKind(events, "step").at(-1)?.remainingSeconds).toBe(0);
    expect(ofKind(events, "checkpoint").map(({ reason }) => reason)).toEqual(["interval", "final"]);
  });

  test("steps that count for more than one do so in events, messages and checkpoints, also after a resume", async () => {
    const counted = { stepSize: 32, logEvery: 2, evaluateEvery: 3, keepBest: { metric: "loss" }, checkpoints } as const;
    const first = await play(new ToyTrainable(), { ...counted, steps: 5 });
    expect(told(first.events)).toEqual([
      "run-start 0",
      "step 64",
      "evaluation 96",
      "checkpoint 96",
      "step 128",
      "step 160",
      "evaluation 160",
      "checkpoint 160",
      "run-end 160",
    ]);
    expect(first.events.at(-1)).toMatchObject({ total: 160, best: { step: 160 } });
    expect(checkpoints.steps()).toEqual([96, 160]);
    const second = await play(new ToyTrainable(), { ...counted, steps: 7, resume: "latest" });
    expect(told(second.events)).toEqual([
      "run-start 160",
      "step 192",
      "evaluation 192",
      "checkpoint 192",
      "step 224",
      ...told(second.events).slice(5),
    ]);
    expect(learned([...first.events, ...second.events].filter(({ kind }) => kind === "step")).length).toBe(5);
    const wrong = await play(new ToyTrainable(), { ...counted, stepSize: 16, steps: 9, resume: "latest" });
    expect(wrong.error).toBeInstanceOf(CheckpointError);
    expect(String(wrong.error)).toMatch(/expected 32 counted steps/);
    const controller = new AbortController();
    controller.abort();
    const stopped = await play(new ToyTrainable(), { ...counted, steps: 9, resume: "latest" }, controller.signal);
    expect(String(stopped.error)).toMatch(/after step 224 of 288/);
  });

  test("a checkpoint that counts the loop's own steps is gone on with in larger ones", async () => {
    await play(new ToyTrainable(), { steps: 4, checkpoints });
    const { events } = await play(new ToyTrainable(), { steps: 6, stepSize: 10, checkpoints, resume: "latest" });
    expect(told(events)).toEqual(["run-start 40", "step 50", "step 60", "checkpoint 60", "run-end 60"]);
    expect(checkpoints.steps()).toEqual([4, 60]);
  });

  test("no steps at all is a run too", async () => {
    const { events, error } = await play(new ToyTrainable(), { steps: 0, checkpoints });
    expect(error).toBeUndefined();
    expect(told(events)).toEqual(["run-start 0", "checkpoint 0", "run-end 0"]);
  });

  test("a trainable may say that it is done", async () => {
    const tamper = (index: number, result: object) => ({ ...result, metrics: {}, done: index === 2 });
    const { events } = await play(new ToyTrainable({ tamper }), { steps: 100, checkpoints });
    expect(events.at(-1)).toMatchObject({ kind: "run-end", reason: "done", step: 3 });
    const again = await play(new ToyTrainable(), { steps: 100, checkpoints, resume: "latest" });
    expect(told(again.events)).toEqual(["run-start 3", "run-end 3"]);
  });

  test("asynchronous trainables", async () => {
    const toy = new ToyTrainable();
    const slow: Trainable = {
      step: async (index) => toy.step(index),
      evaluate: async () => toy.evaluate(),
      sample: async () => [{ prompt: "a", reward: 1 }],
      save: async (path) => toy.save(path),
      restore: async () => {},
    };
    const { events } = await play(slow, { steps: 2, evaluateEvery: 1, sampleEvery: 2, checkpoints });
    expect(told(events)).toEqual([
      "run-start 0",
      "step 1",
      "evaluation 1",
      "step 2",
      "evaluation 2",
      "sample 2",
      "checkpoint 2",
      "run-end 2",
    ]);
  });
});

describe("interruption and resume", () => {
  const options: LoopOptions = {
    steps: 60,
    logEvery: 3,
    evaluateEvery: 5,
    sampleEvery: 7,
    checkpointEvery: 9,
    keepBest: { metric: "loss" },
    earlyStopping: { metric: "loss", patience: 50 },
    config: { seed: 1 },
  };

  test("aborts at random steps leave no trace in what was learned", async () => {
    const whole = new ToyTrainable();
    const reference = learned((await play(whole, options)).events);
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(fc.integer({ min: 0, max: 59 }), { minLength: 1, maxLength: 4 }), async (stops) => {
        rmSync(checkpoints.directory, { recursive: true, force: true });
        const events: RunEvent[] = [];
        for (const stop of [...stops.sort((a, b) => a - b), undefined]) {
          const controller = new AbortController();
          const trainable = new ToyTrainable({
            tamper: (index, result) => {
              if (index === stop) controller.abort();
              return result;
            },
          });
          const part = await play(trainable, { ...options, checkpoints, resume: "auto" }, controller.signal);
          events.push(...part.events);
          if (stop === undefined) {
            expect(part.error).toBeUndefined();
            expect(trainable.weights).toEqual(whole.weights);
            expect(trainable.momentum).toEqual(whole.momentum);
          } else {
            expect(part.error).toBeInstanceOf(AbortedError);
            expect(part.events.at(-1)).toMatchObject({ kind: "run-end", reason: "aborted", step: stop + 1 });
          }
        }
        expect(learned(events)).toEqual(reference);
      }),
      { numRuns: 12 },
    );
  });

  test("a trainable that forgets a part of its state does leave one", async () => {
    class Forgetful extends ToyTrainable {
      override restore(path: string, state: { position?: number; evaluations?: number }): void {
        super.restore(path, state);
        this.momentum.fill(0);
      }
    }
    const whole = new Forgetful();
    await play(whole, options);
    const controller = new AbortController();
    const abort = (index: number, result: StepResult): StepResult => {
      if (index === 30) controller.abort();
      return result;
    };
    await play(new Forgetful({ tamper: abort }), { ...options, checkpoints }, controller.signal);
    const resumed = new Forgetful();
    await play(resumed, { ...options, checkpoints, resume: "latest" });
    expect(resumed.weights).not.toEqual(whole.weights);
  });

  test("an error in a step passes through and leaves the last checkpoint to resume from", async () => {
    const defect = new Error("a defect");
    const failing = new ToyTrainable({
      tamper: (index, result) => {
        if (index === 25) throw defect;
        return result;
      },
    });
    const { events, error } = await play(failing, { ...options, checkpoints });
    expect(error).toBe(defect);
    expect(events.at(-1)).toMatchObject({ kind: "run-end", reason: "failed", step: 25, checkpoint: checkpoints.resolve("latest").path });
    expect(checkpoints.resolve("latest").step).toBeGreaterThanOrEqual(18);
    const whole = new ToyTrainable();
    await play(whole, options);
    const resumed = new ToyTrainable();
    await play(resumed, { ...options, checkpoints, resume: "latest" });
    expect(resumed.weights).toEqual(whole.weights);
  });

  test("a resume with nothing left to do says so, in the units of the run", async () => {
    await play(new ToyTrainable(), { steps: 4, stepSize: 10, checkpoints });
    const { events } = await play(new ToyTrainable(), { steps: 3, stepSize: 10, checkpoints, resume: "latest" });
    expect(ofKind(events, "warning").map(({ code, message }) => [code, message])).toEqual([
      ["nothing-left", "nothing is left to train: the run is at step 40, and 30 were asked for"],
    ]);
    expect(ofKind(events, "step")).toEqual([]);
  });

  test("a truncated checkpoint is passed over with a warning that names the file", async () => {
    await play(new ToyTrainable(), { steps: 6, checkpointEvery: 2, checkpoints });
    truncateSync(join(checkpoints.pathOf(6), "optimiser.bin"), 100);
    const { events, error } = await play(new ToyTrainable(), { steps: 8, checkpoints, resume: "latest" });
    expect(error).toBeUndefined();
    expect(events[0]).toMatchObject({ kind: "run-start", step: 4, resumedFrom: checkpoints.pathOf(4) });
    const warnings = ofKind(events, "warning");
    expect(warnings.map(({ code }) => code)).toEqual(["checkpoint-unreadable", "checkpoints-abandoned"]);
    expect(warnings[0].message).toMatch(/step-00000006.optimiser\.bin: expected 128 bytes, got 100/);
    expect(checkpoints.steps()).toEqual([2, 4, 8]);
    expect(checkpoints.list()).toHaveLength(3);
  });

  test("content that the trainable refuses is passed over too, but not when the checkpoint was named", async () => {
    await play(new ToyTrainable(), { steps: 4, checkpointEvery: 2, checkpoints });
    writeFileSync(join(checkpoints.pathOf(4), "model.bin"), new Uint8Array(128).fill(0xff));
    const { events } = await play(new ToyTrainable(), { steps: 4, checkpoints, resume: "latest" });
    expect(events[0]).toMatchObject({ step: 2 });
    expect(checkpoints.list().map(({ step }) => step)).toEqual([2, 4]);
    truncateSync(join(checkpoints.pathOf(4), "model.bin"), 0);
    const { error } = await play(new ToyTrainable(), { steps: 4, checkpoints, resume: 4 });
    expect(error).toBeInstanceOf(CheckpointError);
  });

  test("going back to an earlier step gives up the later checkpoints, with a warning", async () => {
    await play(new ToyTrainable(), { steps: 8, checkpointEvery: 2, keepLast: 9, checkpoints });
    const { events } = await play(new ToyTrainable(), { steps: 8, checkpointEvery: 3, keepLast: 9, checkpoints, resume: 4 });
    expect(ofKind(events, "warning").map(({ message }) => message)[0]).toContain("steps 6, 8");
    expect(checkpoints.steps()).toEqual([2, 4, 6, 8]);
    expect(told(ofKind(events, "checkpoint"))).toEqual(["checkpoint 6", "checkpoint 8"]);
    // Nothing is lost: what was left stands beside them, also when it happens again.
    await play(new ToyTrainable(), { steps: 5, keepLast: 9, checkpoints, resume: 4 });
    expect(checkpoints.steps()).toEqual([2, 4, 5]);
    const left = readdirSync(checkpoints.directory).filter((name) => name.startsWith("left-"));
    expect(left.sort()).toEqual(["left-step-00000006", "left-step-00000006-2", "left-step-00000008", "left-step-00000008-2"]);
    for (const name of left) expect(readCheckpoint(join(checkpoints.directory, name)).step).toBe(Number(name.slice(10, 18)));
  });

  test("another configuration is refused, naming every key; settings of the loop may change", async () => {
    const config = { model: { numLayers: 2, width: 8 }, seed: 1, steps: 4 };
    await play(new ToyTrainable(), { steps: 4, checkpoints, config });
    const changed = { model: { numLayers: 3, width: 8 }, seed: 2, steps: 9 };
    const { error } = await play(new ToyTrainable(), { steps: 9, checkpoints, config: changed, resume: "latest" });
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toMatch(/: model\.numLayers \(saved 2, given 3\), seed \(saved 1, given 2\)$/);
    const { events } = await play(new ToyTrainable(), { steps: 9, checkpoints, config: { ...config, steps: 9 }, resume: "latest" });
    expect(ofKind(events, "warning")[0]).toMatchObject({
      code: "settings-changed",
      message: expect.stringContaining("steps (saved 4, given 9)"),
    });
    expect(events.at(-1)).toMatchObject({ step: 9, reason: "finished" });
  });

  test("resume without checkpoints: auto starts anew, latest is an error", async () => {
    expect((await play(new ToyTrainable(), { steps: 1, checkpoints, resume: "latest" })).error).toBeInstanceOf(CheckpointError);
    expect((await play(new ToyTrainable(), { steps: 1, checkpoints, resume: "auto" })).error).toBeUndefined();
    expect((await play(new ToyTrainable(), { steps: 1, resume: "auto" })).error).toBeInstanceOf(UsageError);
  });

  test("a new run among the checkpoints of another is refused", async () => {
    await play(new ToyTrainable(), { steps: 1, checkpoints });
    const { events, error } = await play(new ToyTrainable(), { steps: 1, checkpoints });
    expect(error).toBeInstanceOf(CheckpointError);
    expect(events).toEqual([]);
    const branch = new CheckpointStore(join(directory, "branch"));
    const branched = await play(new ToyTrainable(), { steps: 2, checkpoints: branch, resume: checkpoints.pathOf(1) });
    expect(told(branched.events)).toEqual(["run-start 1", "step 2", "checkpoint 2", "run-end 2"]);
    expect(checkpoints.steps()).toEqual([1]);
  });

  test("aborted before the first step: nothing is saved", async () => {
    const { events, error } = await play(new ToyTrainable(), { steps: 3, checkpoints }, AbortSignal.abort());
    expect(told(events)).toEqual(["run-start 0", "run-end 0"]);
    expect(error).toMatchObject({ exitCode: 130 });
    expect(existsSync(checkpoints.directory)).toBe(false);
  });

  test("timers and signals get their turn in a run of tiny steps", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 60);
    const { events, error } = await play(new ToyTrainable(), { steps: 1e9, logEvery: 1e9 }, controller.signal);
    expect(error).toBeInstanceOf(AbortedError);
    expect(events.at(-1)?.step).toBeGreaterThan(0);
  });
});

describe("evaluations", () => {
  test("the last k and the best stay", async () => {
    const trainable = new ToyTrainable({ losses: [5, 3, 4, 6, 7, 8, 9] });
    const { events } = await play(trainable, {
      steps: 7,
      evaluateEvery: 1,
      checkpointEvery: 1,
      keepLast: 2,
      keepBest: { metric: "loss" },
      checkpoints,
    });
    expect(checkpoints.steps()).toEqual([2, 6, 7]);
    expect(checkpoints.resolve("best").step).toBe(2);
    expect(events.at(-1)).toMatchObject({ best: { step: 2, metric: "loss", value: 3 } });
    expect(JSON.parse(readFileSync(join(checkpoints.directory, "index.json"), "utf8"))).toEqual({
      latest: "step-00000007",
      best: { step: 2, metric: "loss", value: 3, path: "step-00000002" },
    });
    expect(ofKind(events, "evaluation").map(({ best }) => best)).toEqual([true, true, false, false, false, false, false]);
  });

  test("a best evaluation is saved even between checkpoints; the mode decides which is best", async () => {
    const trainable = new ToyTrainable({ losses: [1, 2, Number.NaN, Number.POSITIVE_INFINITY, 1.5] });
    const { events } = await play(trainable, {
      steps: 5,
      evaluateEvery: 1,
      keepLast: 1,
      keepBest: { metric: "loss", mode: "max" },
      checkpoints,
    });
    expect(ofKind(events, "checkpoint").map(({ step, reason }) => [step, reason])).toEqual([
      [1, "best"],
      [2, "best"],
      [5, "final"],
    ]);
    expect(checkpoints.steps()).toEqual([2, 5]);
  });

  test("early stopping counts evaluations without an improvement of minDelta", async () => {
    const losses = [5, 4, 3.95, 3.92, 3, 2.99, 2.98, 2.97, 1];
    const options: LoopOptions = {
      steps: 20,
      evaluateEvery: 2,
      earlyStopping: { metric: "loss", patience: 3, minDelta: 0.1 },
      checkpoints,
    };
    const { events } = await play(new ToyTrainable({ losses }), options);
    expect(events.at(-1)).toMatchObject({ reason: "early-stopping", step: 16 });
    expect(checkpoints.steps()).toEqual([16]);
    const again = await play(new ToyTrainable({ losses }), { ...options, resume: "latest" });
    expect(told(again.events)).toEqual(["run-start 16", "run-end 16"]);
    const patient = await play(new ToyTrainable({ losses }), {
      ...options,
      earlyStopping: { metric: "loss", patience: 4, minDelta: 0.1 },
      resume: "latest",
    });
    expect(patient.events.at(-1)).toMatchObject({ reason: "finished", step: 20 });
  });

  test("a metric that is not there, or no evaluations at all, is a mistake", async () => {
    const missing = await play(new ToyTrainable(), { steps: 2, evaluateEvery: 1, keepBest: { metric: "accuracy" } });
    expect(missing.error).toBeInstanceOf(UsageError);
    expect((missing.error as Error).message).toBe('keepBest.metric: expected one of loss, norm, got "accuracy"');
    expect((await play(new ToyTrainable(), { steps: 2, earlyStopping: { metric: "loss" } })).error).toBeInstanceOf(UsageError);
    const unknown = await play(new ToyTrainable(), { steps: 2, evalEvery: 1 } as LoopOptions);
    expect(unknown.error).toMatchObject({ message: expect.stringContaining("`evalEvery`") });
  });
});

describe("numbers that are not finite", () => {
  const broken = (steps: readonly number[], name: string, skipped: boolean) =>
    new ToyTrainable({
      tamper: (index, result) =>
        steps.includes(index) ? { ...result, skipped, metrics: { ...result.metrics, [name]: Number.NaN } } : result,
    });

  test("end the run and leave a record", async () => {
    for (const name of ["loss", "gradientNorm"]) {
      rmSync(directory, { recursive: true, force: true });
      const { events, error } = await play(broken([3], name, false), { steps: 9, checkpointEvery: 2, checkpoints });
      expect(error).toBeInstanceOf(NotFiniteError);
      expect((error as Error).message).toBe(`step 4: expected finite numbers, got ${name} NaN`);
      expect((error as NotFiniteError).hint).toContain("nan-step-4");
      expect(told(events.slice(-2))).toEqual(["step 4", "run-end 4"]);
      expect(events.at(-1)).toMatchObject({ reason: "not-finite" });
      expect(readdirSync(join(directory, "nan-step-4")).sort()).toEqual(["metrics.json", "weights.txt"]);
      expect(JSON.parse(readFileSync(join(directory, "nan-step-4", "metrics.json"), "utf8")).metrics[name]).toBe("NaN");
      expect(checkpoints.steps()).toEqual([2]);
    }
  });

  test("are skipped when the step left the weights alone, up to a limit in a row", async () => {
    const skip: LoopOptions = { steps: 9, onNotFinite: "skip", skipLimit: 3 };
    const fine = await play(broken([1, 2, 4, 5], "loss", true), skip);
    expect(fine.error).toBeUndefined();
    expect(told(ofKind(fine.events, "warning"))).toEqual(["warning 2", "warning 3", "warning 5", "warning 6"]);
    const many = await play(broken([1, 2, 3], "loss", true), skip);
    expect((many.error as Error).message).toContain("in 3 steps in a row");
    const taken = await play(broken([1], "loss", false), skip);
    expect(taken.error).toBeInstanceOf(NotFiniteError);
  });

  test("in other metrics are none of the loop's business", async () => {
    expect((await play(broken([1], "perplexity", false), { steps: 3 })).error).toBeUndefined();
    expect((await play(broken([1], "perplexity", false), { steps: 3, watchedMetrics: ["perplexity"] })).error).toBeInstanceOf(
      NotFiniteError,
    );
  });
});

describe("a disk that cannot be written", () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC", syscall: "write" });
  const failingAt = (steps: readonly number[], losses?: readonly number[]): Trainable => {
    const toy = new ToyTrainable({ losses });
    let done = 0;
    return {
      step: (index) => {
        done = index + 1;
        return toy.step(index);
      },
      evaluate: () => toy.evaluate(),
      save: (path) => {
        toy.save(path);
        if (steps.includes(done)) throw full;
      },
      restore: (path, state) => toy.restore(path, state),
    };
  };

  test("is a warning between, while an older checkpoint is there", async () => {
    const { events, error } = await play(failingAt([4]), { steps: 6, checkpointEvery: 2, checkpoints });
    expect(error).toBeUndefined();
    expect(ofKind(events, "warning")).toMatchObject([
      { code: "checkpoint-failed", step: 4, message: expect.stringContaining("enough free space") },
    ]);
    expect(checkpoints.steps()).toEqual([2, 6]);
    expect(readdirSync(checkpoints.directory).sort()).toEqual(["index.json", "step-00000002", "step-00000006"]);
  });

  test("the best evaluation is the best one that was saved", async () => {
    const options: LoopOptions = { steps: 4, evaluateEvery: 1, keepBest: { metric: "loss" }, keepLast: 1, checkpoints };
    const { events } = await play(failingAt([2], [3, 1, 2, 4]), options);
    expect(events.at(-1)).toMatchObject({ best: { step: 3, value: 2 } });
    expect(checkpoints.steps()).toEqual([3, 4]);
    expect(checkpoints.resolve("best").step).toBe(3);
  });

  test("ends the run when nothing is saved, and when the end cannot be", async () => {
    const first = await play(failingAt([2]), { steps: 6, checkpointEvery: 2, checkpoints });
    expect(first.error).toBeInstanceOf(CheckpointError);
    expect(checkpoints.steps()).toEqual([]);
    const last = await play(failingAt([6]), { steps: 6, checkpointEvery: 2, checkpoints });
    expect(last.error).toBeInstanceOf(CheckpointError);
    expect(last.events.at(-1)).toMatchObject({ kind: "run-end", reason: "failed", checkpoint: checkpoints.pathOf(4) });
  });
});

test.skipIf(!existsSync("/dev/full"))("metrics that cannot be written do not end the run", async () => {
  const events = await collectEvents(withSinks(runLoop(new ToyTrainable(), { steps: 3, checkpoints }), [createJsonlSink("/dev/full")]));
  expect(told(events)).toEqual(["run-start 0", "warning 0", "step 1", "step 2", "step 3", "checkpoint 3", "run-end 3"]);
});

test("time between checkpoints", async () => {
  const { events } = await play(new ToyTrainable({ busyMs: 3 }), { steps: 10, checkpointSeconds: 1e-4, checkpoints });
  expect(ofKind(events, "checkpoint")).toHaveLength(10);
});

test("collectEvents reads to the end", async () => {
  expect(told(await collectEvents(runLoop(new ToyTrainable(), { steps: 1 })))).toEqual(["run-start 0", "step 1", "run-end 1"]);
});
