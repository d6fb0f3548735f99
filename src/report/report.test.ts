import { appendFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CheckpointError } from "../base/errors.ts";
import type { JsonRecord, RunEvent } from "../engine/index.ts";
import { readRuns, renderReport, writeReport } from "./index.ts";
import { alignConfig, alignEvents, trainConfig, trainEvents, writeRun, writeTour } from "./testing/synthetic-runs.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "longwave-report-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const page = async (path: string): Promise<string> => readFileSync((await writeReport(path)).path, "utf8");
const embedded = (text: string, id: string) => JSON.parse(new RegExp(`id="${id}">(.*?)</script>`, "s").exec(text)![1]);
/** What a reader sees: without style, scripts and tags. */
const visible = (text: string): string =>
  text
    .replace(/<(style|script)\b[^>]*>.*?<\/\1>/gs, "")
    .replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ");

describe("a tour", () => {
  it("has a section for each run, with every figure and its unit", async () => {
    writeTour(folder);
    const written = await writeReport(folder, { title: "20260131-120000-tour" });
    expect(written).toMatchObject({ path: join(folder, "report.html"), runs: ["train", "align", "accelerate"], notes: [] });
    expect(written.bytes).toBeLessThan(500_000);
    const text = visible(readFileSync(written.path, "utf8"));
    for (const shown of [
      "2,163,456 (2.16 M)",
      "Intel Xeon Platinum 8481C",
      "1 min 12 s",
      "614,400",
      "Loss nats/token",
      "Learning rate per step",
      "Gradient norm L2 norm",
      "Throughput tokens/s",
      "Reward score",
      "Reward: animal score",
      "KL to the start model nats/token",
      "Entropy nats/token",
      "Completion length tokens",
      "Clipped ratios %",
      "± 1 std",
      "More metrics (5)",
      "Before and after",
      "Completions and rewards by step",
      "1.56 × plain decoding",
      "2.41 tokens/step",
      "Acceptance by position % of steps",
      "Cost of a step, v(n) ms",
      "19 drafted tokens, 4 accepted",
      "longwave train-drafter stories260K --kind medusa --steps 120",
      "Configuration (16 settings)",
      "Events (11)",
    ])
      expect(text).toContain(shown);
  });

  it("is self-contained", async () => {
    writeTour(folder);
    const text = await page(folder);
    for (const [, target] of text.matchAll(/\b(?:src|href|action|poster|srcset)\s*=\s*["']?([^"'\s>]*)/g))
      expect(target).toMatch(/^(#|data:,$)/);
    expect([...text.matchAll(/https?:\/\/[^"'\s)]*/g)].map(([url]) => url).filter((url) => url !== "http://www.w3.org/2000/svg")).toEqual(
      [],
    );
    expect(text).not.toMatch(/@import|url\(|fetch\(|XMLHttpRequest|sendBeacon|import\(/);
  });

  it("is the same page from the same files, wherever they lie", async () => {
    writeTour(join(folder, "a"));
    cpSync(join(folder, "a"), join(folder, "b"), { recursive: true });
    const title = "tour";
    expect(renderReport(readRuns(join(folder, "a")), { title })).toBe(renderReport(readRuns(join(folder, "b")), { title }));
  });

  it("shows the table of the last step without a script, and embeds the others", async () => {
    writeRun(folder, alignConfig, alignEvents());
    const text = await page(folder);
    const { columns, decimals, steps } = embedded(text, "rollout-data").run1;
    expect(columns).toEqual(["animal", "ending", "reward", "advantage"]);
    expect(decimals).toEqual([0, 0, 2, 3]);
    expect(steps.map(({ step }: { step: number }) => step)).toEqual([1, 10, 20, 30, 40, 50, 60]);
    const table = /<tbody>(.*?)<\/tbody>/s.exec(text.slice(text.indexOf('class="rollouts"')))![1];
    expect(table.match(/<tr>/g)).toHaveLength(16);
    expect(table).toContain("&lt;b&gt;now&lt;/b&gt; &amp; always!&quot;");
    // A reward that does not apply is no zero.
    expect(steps[0].rows[3][2][1]).toBeNull();
  });
});

describe("hostile text", () => {
  it("is shown as text, everywhere", async () => {
    const evil = "</script></style><img src=x onerror=alert(1)><!--\"'&\u0000\u202e\ud800";
    const at = { step: 1, total: 1, time: 0 };
    const events: RunEvent[] = [
      { kind: "run-start", ...at, step: 0, resumedFrom: evil },
      {
        kind: "step",
        ...at,
        metrics: { [evil]: 1, reward: 1, [`rewards/${evil}/mean`]: 1 },
        seconds: 1,
        tokens: 1,
        elapsedSeconds: 1,
        totalTokens: 1,
        remainingSeconds: 0,
      },
      { kind: "sample", ...at, sample: [{ prompt: evil, completion: evil, rewards: { [evil]: 1 }, reward: 1, advantage: 0 }] },
      { kind: "sample", ...at, sample: evil },
      { kind: "artifact", ...at, name: "token-tree", data: { title: evil, nodes: [{ id: evil, parent: null, text: evil }] } },
      { kind: "artifact", ...at, name: "speculation", data: { drafter: evil, verifier: evil, acceptanceByPosition: [1] } },
      { kind: "artifact", ...at, name: "texts", data: { pairs: [{ prompt: evil, before: evil, after: evil }] } },
      { kind: "artifact", ...at, name: "machine", data: { cpu: evil } },
      { kind: "artifact", ...at, name: "commands", data: { commands: [evil] } },
      { kind: "warning", ...at, code: "other", message: evil, hint: evil },
      { kind: "stage", ...at, name: evil, message: evil },
      { kind: "checkpoint", ...at, path: evil, reason: "final", bytes: 1, seconds: 0 },
    ];
    writeRun(folder, { [evil]: evil, nested: { [evil]: [evil] } }, events);
    const text = readFileSync((await writeReport(folder, { title: evil })).path, "utf8");
    expect(text).not.toContain("<img");
    expect(text).not.toContain("<!--");
    expect(text.match(/<script/g)).toHaveLength(3);
    expect(text.match(/<\/script/g)).toHaveLength(3);
    expect(text.match(/<\/style/g)).toHaveLength(1);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    expect(text).not.toMatch(/[\u0000\u202e]/);
    expect(embedded(text, "rollout-data").run1.steps[0].rows[0][1]).toContain("<img src=x onerror=alert(1)>");
  });

  it("in names that objects have already is a name like any other", async () => {
    const names = ["constructor", "__proto__", "toString", "rewards/constructor/mean"];
    const metrics = JSON.parse(`{${names.map((name) => `"${name}": 1`).join()}}`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "metrics.jsonl"), `${JSON.stringify({ kind: "step", step: 1, total: 1, time: 0, metrics })}\n`);
    const text = await page(folder);
    for (const name of names.slice(0, 3)) expect(text).toContain(`<h4>${name}</h4>`);
  });
});

describe("a broken or unfinished run", () => {
  const notesOf = (): readonly string[] => readRuns(folder)[0].notes;
  const metrics = (): string => join(folder, "metrics.jsonl");

  it("whose last line is cut short shows the rest and says so", async () => {
    writeRun(folder, trainConfig, trainEvents(60).slice(0, -1));
    truncateSync(metrics(), readFileSync(metrics()).length - 40);
    expect(notesOf()).toEqual(
      [
        "The record stops at step 60 of 300 without an end: the run still goes on, or it was killed.".replace("300", "60"),
        "The last line of metrics.jsonl is cut short: it was being written when the run stopped.",
      ].toReversed(),
    );
    expect(visible(await page(folder))).toContain("Loss nats/token");
  });

  it("with damaged lines in the middle leaves them out and names them", () => {
    writeRun(folder, trainConfig, trainEvents(20));
    const lines = readFileSync(metrics(), "utf8").split("\n");
    lines[5] = lines[5].slice(0, 30);
    lines[7] = "\u0000\u0000\u0000";
    lines[9] = '{"kind":"step","metrics":{}}';
    writeFileSync(metrics(), lines.join("\n"));
    expect(notesOf()).toEqual(["Damaged lines of metrics.jsonl are left out: 6, 8, 10."]);
    expect(readRuns(folder)[0].metrics.get("loss")?.values).toHaveLength(17);
  });

  it("without steps, without metrics.jsonl, without config.json says what is missing", async () => {
    writeRun(folder, trainConfig, [{ kind: "run-start", step: 0, total: 5, time: 0 }]);
    expect(notesOf()).toEqual([
      "The run recorded no step: there are no curves to show.",
      "The record stops at step 0 of 5 without an end: the run still goes on, or it was killed.",
    ]);
    rmSync(metrics());
    expect(notesOf()).toEqual(["metrics.jsonl is missing: the run recorded nothing, or the file was taken away."]);
    expect(visible(await page(folder))).toContain("Configuration (16 settings)");
    writeRun(folder, trainConfig, trainEvents(20));
    rmSync(join(folder, "config.json"));
    expect(notesOf()).toEqual(["config.json is missing; the configuration is the one in metrics.jsonl, if any."]);
    expect(readRuns(folder)[0].config).toEqual(trainConfig);
    writeFileSync(join(folder, "config.json"), "{");
    expect(notesOf()[0]).toMatch(/^config\.json cannot be read: /);
  });

  it("marks values that are not finite, as strings and as null, and draws the others", async () => {
    writeRun(folder, trainConfig, trainEvents(30));
    for (const value of ['"NaN"', '"Infinity"', "null"]) appendStep(31 + ['"NaN"', '"Infinity"', "null"].indexOf(value), value);
    const text = await page(folder);
    expect(visible(text)).toContain("× 3 values are not finite (step 31, 32, 33)");
    expect(text).not.toMatch(/ d="[^"]*(NaN|Infinity|undefined)/);
    expect(text).not.toMatch(/(?:x|y|cx|cy|width|height)="(?:NaN|-?Infinity|undefined)"/);
    const { lines } = embedded(text, "chart-data").chart1;
    expect(lines[0].values.slice(-3)).toEqual([null, null, null]);
  });

  it("in which nothing was ever finite still has a page", async () => {
    mkdirSync(folder, { recursive: true });
    for (const step of [1, 2, 3]) appendStep(step, '"NaN"');
    const text = await page(folder);
    expect(text).toContain("no finite value");
    expect(text).not.toMatch(/ d="[^"]*NaN/);
  });

  it("that was resumed shows one history", () => {
    writeRun(folder, trainConfig, trainEvents(20).slice(0, -1));
    appendFileSync(metrics(), `${JSON.stringify({ kind: "run-start", step: 10, total: 20, time: 9e12, resumedFrom: "x" })}\n`);
    appendStep(11, "1.5");
    const [run] = readRuns(folder);
    expect(run.metrics.get("loss")?.steps).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(run.step).toBe(11);
    expect(run.endReason).toBeUndefined();
  });

  it("with artifacts of any other shape does not fail", async () => {
    const at = { step: 1, total: 1, time: 0 };
    const shapes: JsonRecord[] = [
      {},
      { nodes: 3, pairs: "x", costCurve: [1, null], acceptanceByPosition: ["a", null, 2, -1], plain: "x", treeSize: null },
      {
        nodes: [{ id: 1, parent: 2 }, { id: 2, parent: 1 }, null, 4],
        pairs: [null, { before: 1 }],
        costCurve: [{ tokens: "NaN", milliseconds: 1 }],
      },
      {
        nodes: [
          { id: 0, parent: -1, text: "a" },
          { id: 1, parent: 0, text: "", probability: "NaN", accepted: 1 },
        ],
        costCurve: [{ tokens: 1, milliseconds: 0 }],
        treeSize: 1,
        tokensPerStep: 2,
      },
    ];
    const names = ["speculation", "token-tree", "texts", "machine", "commands", "other"];
    const events = shapes.flatMap((data) => names.map((name): RunEvent => ({ kind: "artifact", ...at, name, data })));
    for (const [i] of shapes.entries()) {
      writeRun(join(folder, String(i)), {}, events.slice(0, (i + 1) * names.length));
      expect(await page(join(folder, String(i)))).not.toMatch(/="[^"]*(NaN|undefined)/);
    }
  });

  it("of which nothing can be read is a typed error that says what to do", () => {
    const error = (path: string): CheckpointError => {
      try {
        readRuns(path);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(CheckpointError);
        return thrown as CheckpointError;
      }
      throw new Error("expected an error");
    };
    expect(error(join(folder, "none")).message).toContain("got no such folder");
    expect(error(folder).message).toContain("got a folder without config.json and metrics.jsonl");
    expect(error(folder).hint).toContain("run folder");
    writeFileSync(metrics(), "garbage\n");
    expect(error(folder).message).toContain("from which neither can be read");
    writeFileSync(join(folder, "notes.txt"), "");
    expect(error(join(folder, "notes.txt")).message).toContain("got a file");
  });

  it("may be named by its metrics.jsonl; a model's folder is no run, nor are many unrelated runs a tour", () => {
    writeRun(join(folder, "a"), trainConfig, trainEvents(20));
    mkdirSync(join(folder, "model"));
    writeFileSync(join(folder, "model", "config.json"), '{"model_type":"llama","architectures":["LlamaForCausalLM"]}');
    expect(readRuns(folder).map(({ id }) => id)).toEqual(["a"]);
    expect(readRuns(join(folder, "a", "metrics.jsonl"))[0].id).toBe("a");
    for (let i = 0; i < 13; i++) writeRun(join(folder, `run${i}`), {}, []);
    expect(() => readRuns(folder)).toThrow(/at most 12 that belong together, got 14/);
  });

  function appendStep(step: number, loss: string): void {
    appendFileSync(metrics(), `{"kind":"step","step":${step},"total":40,"time":0,"metrics":{"loss":${loss}},"seconds":1,"tokens":1}\n`);
  }
});

it("long runs and long texts are thinned, not left out silently", async () => {
  const steps = 2000;
  const rows = Array.from({ length: 70 }, (_, i) => ({ prompt: `p${i}`, completion: "word ".repeat(800), reward: i, advantage: 0 }));
  const at = (step: number) => ({ step, total: steps, time: step });
  const events = Array.from({ length: steps }, (_, i): RunEvent[] => [
    {
      kind: "step",
      ...at(i + 1),
      metrics: { loss: i === 1234 ? 99 : 1 },
      seconds: 1,
      tokens: 1,
      elapsedSeconds: i,
      totalTokens: i,
      remainingSeconds: 0,
    },
    ...(i % 100 === 0 ? [{ kind: "sample", ...at(i + 1), sample: rows } as const] : []),
  ]).flat();
  writeRun(folder, {}, events);
  const text = await page(folder);
  expect(text.length).toBeLessThan(2e6);
  const [raw] = embedded(text, "chart-data").chart1.lines;
  expect(raw.values.length).toBeLessThanOrEqual(360);
  expect(Math.max(...raw.values)).toBe(99);
  expect(visible(text)).toMatch(/\d+ of 20 recorded steps, evenly spaced/);
  expect(existsSync(join(folder, "report.html"))).toBe(true);
});
