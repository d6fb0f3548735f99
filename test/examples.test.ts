// Every example runs, at a small size, and does what it says.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { main as customEnvironment } from "../examples/custom-environment.ts";
import { main as generateStories } from "../examples/generate-stories.ts";
import { main as gridWorld } from "../examples/grid-world.ts";
import { main as learnFromReward } from "../examples/learn-from-reward.ts";
import { main as linearRegression } from "../examples/linear-regression.ts";
import { main as ownModel } from "../examples/own-model.ts";
import { main as ownOperator } from "../examples/own-operator.ts";
import { main as secondDerivatives } from "../examples/second-derivatives.ts";
import { main as trainDecoder } from "../examples/train-decoder.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-examples-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const print = () => undefined;

test("linear regression finds the line", () => {
  const { weight, bias } = linearRegression({ samples: 64, print });
  expect(weight[0]).toBeCloseTo(2, 1);
  expect(weight[1]).toBeCloseTo(-3, 1);
  expect(bias).toBeCloseTo(1, 1);
});

test("PPO learns to walk to a goal, and the policy is exported", async () => {
  const path = join(folder, "room.onnx");
  const { action, mean } = await learnFromReward({ steps: 12_000, path, print });
  expect(action).toBe(0);
  // Straight ways from random starts give about 0.88.
  expect(mean).toBeGreaterThan(0.75);
  expect(existsSync(path)).toBe(true);
});

test("second derivatives equal the formula, and Newton's method converges quadratically", () => {
  const { error, gradientNorms } = secondDerivatives({ print });
  expect(error).toBeLessThan(1e-14);
  expect(gradientNorms.at(-1)).toBeLessThan(1e-13);
  const i = gradientNorms.findIndex((norm) => norm < 1e-3);
  expect(gradientNorms[i + 1]).toBeLessThan(50 * gradientNorms[i] ** 2);
});

test("an operator of one's own has the derivatives of its function", () => {
  const { points, y, largestError, singleError } = ownOperator({ print });
  for (const [i, x] of points.entries()) expect(y[i]).toBeCloseTo(x / (1 + Math.abs(x)), 12);
  expect(largestError).toBeLessThan(1e-8);
  expect(singleError).toBeLessThan(1e-6);
});

test("a recurrent model learns letters", async () => {
  const { losses, invented } = await ownModel({ steps: 60, batch: 64, width: 48, maxLength: 9, print });
  // Before training every letter is about as probable as any other.
  expect(losses[0]).toBeGreaterThan(3);
  expect(losses[0]).toBeLessThan(Math.log(27) + 0.2);
  expect(losses.at(-1)).toBeLessThan(2.7);
  for (const word of invented) expect(word).toMatch(/^[a-z]*$/);
});

test("a decoder learns a text, saves itself and writes on", async () => {
  const paragraphs = Array.from(
    { length: 60 },
    (_, i) => `The people of town ${i} met in the hall. They spoke of the roads and of the ${i} bridges.`,
  );
  const path = join(folder, "text.txt");
  writeFileSync(path, paragraphs.join("\n\n"));
  const { losses, checkpoint, text } = await trainDecoder({ path, runs: folder, vocabSize: 300, length: 16, width: 32, steps: 40, print });
  expect(losses.at(-1)).toBeLessThan(losses[0]);
  for (const file of ["config.json", "model.safetensors", "tokenizer.json", "trainer.json"])
    expect(existsSync(join(checkpoint, file))).toBe(true);
  expect(text.startsWith("The people")).toBe(true);
});

test("stories260K writes what the reference implementation writes", async () => {
  const written: string[] = [];
  const { stories, perplexities } = await generateStories({ maxNewTokens: 40, write: (text) => void written.push(text) });
  const { cases } = JSON.parse(readFileSync("test/golden/stories260k/expected.json", "utf8")) as {
    cases: { prompt: string; text: string }[];
  };
  const golden = cases.find(({ prompt }) => prompt === "Once upon a time");
  expect(golden?.text.trimStart().startsWith(stories[0])).toBe(true);
  expect(written.join("").startsWith(stories[0])).toBe(true);
  expect(perplexities[0]).toBeLessThan(perplexities[1]);
});

test("an environment of one's own runs, and a rule lands what chance crashes", () => {
  const { atRandom, byRule } = customEnvironment({ print });
  // Landing at rest without fuel would give 10.
  expect(byRule).toBeGreaterThan(5);
  expect(byRule).toBeLessThan(10);
  expect(atRandom).toBeLessThan(byRule - 5);
});

test("the list of examples is complete", () => {
  const listed = readFileSync("examples/README.md", "utf8");
  for (const file of readdirSync("examples").filter((name) => name.endsWith(".ts"))) expect(listed).toContain(`(${file})`);
});

test("policy gradients, exact and sampled, find the way through a grid world", () => {
  const picture = join(folder, "grid-world.svg");
  const { best, exact, plain, baseline } = gridWorld({ picture, print });
  expect(exact).toBeGreaterThan(best - 0.05);
  expect(baseline).toBeGreaterThan(best - 0.1);
  expect(plain).toBeLessThan(baseline);
  expect(readFileSync(picture, "utf8")).toContain("<line");
});
