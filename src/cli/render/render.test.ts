import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { RunEvent, StepEvent } from "../../engine/events.ts";
import { bufferedOutput, wantsColor } from "../io.ts";
import { charsetFor, curve, labelledCurve, resample } from "./curve.ts";
import { formatBytes, formatCount, formatDuration, formatMetric, printable } from "./format.ts";
import { createLiveLine } from "./live-line.ts";
import { createProgress } from "./progress.ts";
import { table } from "./table.ts";

describe("formats", () => {
  it.each([
    [0, "0"],
    [999, "999"],
    [1000, "1.00 k"],
    [999_999, "1.00 M"],
    [1_234_567, "1.23 M"],
    [12_345_678, "12.3 M"],
    [165e9, "165 G"],
    [0.5, "0.500"],
  ])("count %d is %s", (value, text) => expect(formatCount(value)).toBe(text));

  it.each([
    [0, "0 B"],
    [1536, "1.5 KiB"],
    [2 ** 30 * 135, "135 GiB"],
  ])("%d bytes are %s", (value, text) => expect(formatBytes(value)).toBe(text));

  it.each([
    [0.04, "0.0s"],
    [42, "42s"],
    [59.7, "1m00s"],
    [192, "3m12s"],
    [3599.6, "1h00m"],
    [7500, "2h05m"],
    [4 * 86_400 + 3 * 3600, "4d03h"],
    [Number.POSITIVE_INFINITY, "?"],
  ])("%d seconds are %s", (value, text) => expect(formatDuration(value)).toBe(text));

  it.each([
    [2.314159, "2.314"],
    [0.0123456, "0.01235"],
    [3e-4, "3.00e-4"],
    [12, "12"],
    [Number.NaN, "NaN"],
  ])("metric %d is %s", (value, text) => expect(formatMetric(value)).toBe(text));

  it("disarms escape sequences and direction overrides in foreign text", () => {
    expect(printable("a\u001b[2Jb\u202ec\n\td\r")).toBe("a\ufffd[2Jb\ufffdc\n\td\ufffd");
  });
});

describe("table", () => {
  it("aligns columns and leaves no spaces at line ends", () => {
    const text = table(
      [
        ["wte", "512 x 64", "131072"],
        ["b", "", "7"],
      ],
      { header: ["name", "shape", "bytes"], align: "llr", indent: 2 },
    );
    expect(text).toBe("  name  shape      bytes\n  wte   512 x 64  131072\n  b                    7\n");
  });

  it("prints an empty table as nothing", () => expect(table([])).toBe(""));
});

describe("curve", () => {
  it("puts a rising line from the lower left to the upper right dot", () => {
    // Four points over two cells: levels 0, 1, 2, 3 of one line of braille.
    const [line] = curve([0, 1, 2, 3], { width: 2 });
    expect([...line].map((cell) => (cell.codePointAt(0) ?? 0) - 0x2800)).toEqual([0x40 | 0x20, 0x02 | 0x08]);
  });

  it("handles nothing, one value, equal values and values that are not finite", () => {
    expect(curve([])).toEqual([""]);
    expect(curve([1])).toEqual(["\u2840"]);
    expect(curve([5, 5], { height: 2 })).toEqual(["", "\u28c0"]);
    expect(curve([Number.NaN, 1, Number.POSITIVE_INFINITY])).toEqual(["\u2840"]);
    expect(labelledCurve([Number.NaN])).toEqual([]);
  });

  it("never exceeds its width, and every column has a dot", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ noNaN: true, min: -1e6, max: 1e6 }), { minLength: 1, maxLength: 300 }),
        fc.integer({ min: 1, max: 30 }),
        (values, width) => {
          const lines = curve(values, { width, height: 3 });
          const columns = Math.ceil(Math.min(values.length, width * 2) / 2);
          expect(Math.max(...lines.map((line) => [...line].length))).toBe(columns);
        },
      ),
    );
  });

  it("keeps the mean when it averages into bins of equal length", () => {
    expect(resample([1, 3, 5, 7], 2)).toEqual([2, 6]);
    expect(resample([1, 3], 5)).toEqual([1, 3]);
  });

  it("chooses the character set by the terminal", () => {
    expect(charsetFor({ LANG: "en_US.UTF-8" }, "linux")).toBe("braille");
    expect(charsetFor({ LANG: "C" }, "linux")).toBe("ascii");
    expect(charsetFor({ LANG: "en_US.UTF-8", TERM: "linux" }, "linux")).toBe("ascii");
    expect(curve([0, 1], { charset: "ascii", height: 2, width: 4 })).toEqual([" *", "*"]);
  });
});

describe("wantsColor", () => {
  it("follows NO_COLOR, FORCE_COLOR, TERM and the terminal", () => {
    expect(wantsColor(true, {})).toBe(true);
    expect(wantsColor(true, { NO_COLOR: "1" })).toBe(false);
    expect(wantsColor(true, { NO_COLOR: "" })).toBe(true);
    expect(wantsColor(true, { TERM: "dumb" })).toBe(false);
    expect(wantsColor(false, {})).toBe(false);
    expect(wantsColor(false, { FORCE_COLOR: "1" })).toBe(true);
  });
});

const step = (at: number, extra: Partial<StepEvent> = {}): StepEvent => ({
  kind: "step",
  step: at,
  total: 100,
  time: at * 1000,
  metrics: { loss: 5 - at / 50, learningRate: 3e-4 },
  seconds: 0.5,
  tokens: 1000,
  elapsedSeconds: at,
  totalTokens: at * 1000,
  remainingSeconds: 100 - at,
  ...extra,
});

const end: RunEvent = {
  kind: "run-end",
  step: 100,
  total: 100,
  time: 1e5,
  reason: "finished",
  elapsedSeconds: 100,
  totalTokens: 100_000,
  checkpoint: "runs/a",
};

describe("createProgress", () => {
  it("writes plain lines without a terminal, one each few seconds, and always the last step", () => {
    const output = bufferedOutput();
    const progress = createProgress(output, { everySeconds: 40, flopsPerToken: 1e6, peakFlops: 4e9 });
    for (let at = 1; at <= 100; at++) progress.handle(step(at));
    progress.handle(end);
    progress.close();
    const lines = output.text().trimEnd().split("\n");
    expect(lines.map((line) => line.split("  ")[0])).toEqual(["step 1/100", "step 41/100", "step 81/100", "step 100/100", lines[4]]);
    expect(lines[0]).toBe("step 1/100  loss 4.980  learningRate 3.00e-4  2.00 k tok/s  MFU 50 %  ETA 1m39s");
    expect(lines[4]).toBe("finished at step 100/100 after 1m40s, 100 k tokens, checkpoint runs/a");
    expect(output.text()).not.toContain("\u001b");
  });

  it("says of a run with fewer steps than it has taken that there was nothing to train", () => {
    const output = bufferedOutput();
    createProgress(output).handle({ ...end, step: 120 } as RunEvent);
    expect(output.text()).toMatch(/^nothing to train: already at step 120, more than the 100 asked for, /);
  });

  it("keeps one live line on a terminal, within its width, and other events above it", () => {
    const output = bufferedOutput({ isTTY: true, columns: 100 });
    const progress = createProgress(output);
    for (let at = 1; at <= 50; at++) progress.handle(step(at));
    progress.handle({ kind: "warning", step: 50, total: 100, time: 0, code: "other", message: "the disk is slow" });
    progress.handle(step(51));
    progress.handle(end);
    const text = output.text();
    for (const line of text.split(/\n|\r/)) expect([...line.replace("\u001b[2K", "")].length).toBeLessThanOrEqual(100);
    expect(text).toContain("\u001b[2Kwarning: the disk is slow\nstep 50/100");
    expect(text).toMatch(/[\u2801-\u28ff]/);
    expect(text.split("\n").filter((line) => line.includes("step 50/100"))).toHaveLength(2);
  });

  it.each([1, 10, 21, 22])("does without a curve on a terminal of few columns (%d)", (columns) => {
    const output = bufferedOutput({ isTTY: true, columns });
    const progress = createProgress(output);
    for (let at = 1; at <= 50; at++) progress.handle(step(at));
    progress.handle(end);
    expect(/[\u2801-\u28ff]/.test(output.text())).toBe(columns >= 22);
    expect(output.text()).toContain("finished at step");
  });

  it("shows evaluations, checkpoints and samples; a sample cannot command the terminal", () => {
    const output = bufferedOutput();
    const progress = createProgress(output);
    const base = { step: 5, total: 100, time: 0 };
    progress.handle({ kind: "run-start", ...base, resumedFrom: "runs/a/5" });
    progress.handle({ kind: "evaluation", ...base, metrics: { loss: 2 }, seconds: 1, best: true });
    progress.handle({ kind: "checkpoint", ...base, path: "runs/a/5", reason: "best", bytes: 2048, seconds: 1 });
    progress.handle({ kind: "sample", ...base, sample: "once\u001b[2J\nupon" });
    expect(output.text()).toBe(
      "run: 100 steps, resumed at step 5 from runs/a/5\nevaluation at step 5: loss 2 (best)\ncheckpoint runs/a/5 (best, 2.0 KiB)\nsample at step 5:\n  once\ufffd[2J\n  upon\n",
    );
  });

  it("leaves extremes of an evaluation to the report, and says that weights are untrained", () => {
    const output = bufferedOutput();
    const progress = createProgress(output);
    const base = { step: 0, total: 9, time: 0, seconds: 1, best: false };
    const metrics = { reward: 1, "completions/mean_length": 8, "completions/min_length": 1, "completions/mean_terminated_length": 7 };
    progress.handle({ kind: "evaluation", ...base, metrics });
    progress.handle({ kind: "sample", ...base, sample: "once" });
    expect(output.text()).toBe("evaluation at step 0: reward 1  completions/mean_length 8\nsample at step 0 (before training):\n  once\n");
  });

  it("makes sentences of a warning and its hint, in the words of the command line", () => {
    const output = bufferedOutput();
    const progress = createProgress(output, { phrase: (text) => text.replace("splitBy", "--split-by") });
    const base = { kind: "warning", step: 0, total: 9, time: 0, code: "other" } as const;
    progress.handle({ ...base, message: "too few documents", hint: "splitBy sets what one is." });
    progress.handle({ ...base, message: "The disk is slow." });
    expect(output.text()).toBe("warning: too few documents. --split-by sets what one is.\nwarning: The disk is slow.\n");
  });

  it("survives losses that are not finite and long histories", () => {
    const output = bufferedOutput({ isTTY: true, columns: 100 });
    const progress = createProgress(output);
    for (let at = 1; at <= 5000; at++) progress.handle(step(at, { total: 5000, metrics: { loss: at === 7 ? Number.NaN : 1 / at } }));
    progress.close();
    expect(output.text().endsWith("\n")).toBe(true);
  });
});

describe("createLiveLine", () => {
  const told = (isTTY: boolean): string => {
    const output = bufferedOutput({ isTTY, columns: 20 });
    let time = 0;
    const line = createLiveLine(output, { everySeconds: 5, now: () => time });
    for (; time < 12_000; time += 50) line.update(() => `${time} ms of a long wait`);
    line.clear();
    return output.text();
  };

  it("is a plain line every few seconds without a terminal", () => {
    expect(told(false)).toBe("5000 ms of a long wait\n10000 ms of a long wait\n");
  });

  it("is redrawn within the width of a terminal, and taken away", () => {
    const text = told(true);
    expect(text.split("\r\u001b[2K").length - 1).toBe(121);
    expect(text).toContain("\r\u001b[2K100 ms of a long wa\r");
    expect(text.endsWith("\r\u001b[2K")).toBe(true);
  });
});
