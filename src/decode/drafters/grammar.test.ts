// Grammars under speculation, on a real model: the same text as without drafts, JSON whatever the model would say, and keys that are drafted.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadDecoder } from "../../models/decoder/checkpoint.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { loadTokenizer } from "../../text/index.ts";
import { complete, type FinishEvent, type GenerateOptions } from "../generate.ts";
import { constrain } from "../grammar/compile-grammar.ts";
import { Grammar } from "../grammar/grammar.ts";
import { DecoderRunner } from "../runner.ts";
import { rejectionVerifier } from "../verifiers/rejection.ts";
import { GrammarDrafter } from "./grammar.ts";

const stories = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const prompt = [...tokenizer.encode("Once upon a time")];
const grammar = Grammar.fromJsonSchema({
  type: "object",
  properties: {
    character: { type: "string", maxLength: 10 },
    temperature: { type: "integer", minimum: 1, maximum: 99 },
    ending: { enum: ["happy ever after", "sad"] },
  },
  required: ["character", "temperature", "ending"],
});

let backend: Backend;
let runner: DecoderRunner;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  runner = new DecoderRunner(backend, stories, { batch: 1, capacity: 256 });
});
afterAll(() => backend.dispose());

const run = (sampling: object, options: GenerateOptions = {}, seed = 1): Promise<FinishEvent> =>
  complete(runner, { ids: prompt, sampling, seed, maxNewTokens: 120, grammar: constrain(grammar, tokenizer) }, { tokenizer, ...options });

describe.each([
  ["greedy", { doSample: false }],
  ["sampled", { temperature: 1.5 }],
])("%s", (_, sampling) => {
  test("drafts of forced tokens change the time, not the text", async () => {
    let numDrafted = 0;
    for (let seed = 0; seed < 4; seed++) {
      const plain = await run(sampling, {}, seed);
      expect(plain.reason).toBe("eos");
      const value = JSON.parse(plain.text);
      expect(Object.keys(value)).toEqual(["character", "temperature", "ending"]);
      expect(value.temperature).toBeGreaterThan(0);
      const drafted = await run(sampling, { drafter: new GrammarDrafter() }, seed);
      expect(drafted.ids).toEqual(plain.ids);
      expect(drafted.text).toBe(plain.text);
      numDrafted += drafted.speculation?.numAcceptedTokens ?? 0;
    }
    expect(numDrafted).toBeGreaterThan(8);
  });
});

test("lossless verifiers see the grammar at every node", async () => {
  for (let seed = 0; seed < 4; seed++) {
    const { text, reason } = await run(
      { temperature: 1.2, topP: 0.9 },
      { drafter: new GrammarDrafter(), verifier: rejectionVerifier },
      seed,
    );
    expect(reason).toBe("eos");
    expect(Object.keys(JSON.parse(text))).toHaveLength(3);
  }
});

test("where nothing is forced another drafter proposes, which stays its maker's", async () => {
  const calls: string[] = [];
  const other = {
    name: "other",
    needs: { hidden: false },
    begin: () => calls.push("begin"),
    propose: () => {
      calls.push("propose");
      throw new Error("asked");
    },
    observe: () => calls.push("observe"),
    dispose: () => calls.push("dispose"),
    [Symbol.dispose]() {},
  };
  const drafter = new GrammarDrafter({ otherwise: other as never });
  expect(drafter.name).toBe("grammar, other");
  await expect(run({ doSample: false }, { drafter })).rejects.toThrow("asked");
  drafter.dispose();
  expect(calls[0]).toBe("begin");
  expect(calls).not.toContain("dispose");
});
