// The front door: models of every format answer, keep what they have read, draft, converse; and what cannot be is refused.
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Drafter } from "../../decode/drafter.ts";
import { StepCosts } from "../../decode/step-costs.ts";
import { TreeShape } from "../../decode/token-tree.ts";
import { loadDecoder } from "../../models/decoder/checkpoint.ts";
import { createMedusa } from "../../models/heads/medusa.ts";
import { saveMedusa } from "../../models/heads/medusa-checkpoint.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { Conversation } from "./conversation.ts";
import { loadModel } from "./load-model.ts";
import { measurePerplexity } from "./perplexity.ts";
import { load, type TextModel } from "./text-model.ts";

const stories = "assets/stories260k/stories260K.bin";
const chatModel = "test/golden/checkpoints/smollm2";
const greedy = { sampling: { doSample: false } } as const;
let backend: Backend;
let folder: string;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  folder = mkdtempSync(join(tmpdir(), "longwave-model-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true });
});

async function textOf(pieces: AsyncIterable<string>): Promise<string> {
  let text = "";
  for await (const piece of pieces) text += piece;
  return text;
}

describe("a model", () => {
  test("streams the text that it completes", async () => {
    using model = await load(stories, { backend });
    const whole = await model.complete("Once upon a time", { ...greedy, maxNewTokens: 60 });
    expect(await textOf(model.generate("Once upon a time", { ...greedy, maxNewTokens: 60 }))).toBe(whole.text);
    expect(whole.text).toContain("Lily");
    expect(whole.ids.length).toBe(60);
  });

  test("keeps the space between a prompt and what follows", async () => {
    using model = await load(stories, { backend });
    const { text, ids } = await model.complete("Once upon a", { ...greedy, maxNewTokens: 8 });
    expect(`Once upon a${text}`).toBe(model.tokenizer.decode([...model.encode("Once upon a"), ...ids], { skipSpecialTokens: true }));
    expect(text.startsWith(" ")).toBe(true);
  });

  test("does not read again what it holds, and gives the same text", async () => {
    using model = await load(stories, { backend });
    const first = await model.complete("Once upon a time", { ...greedy, maxNewTokens: 30 });
    expect(first.cachedTokens).toBe(0);
    const longer = [...model.encode("Once upon a time"), ...first.ids, 13];
    const second = await model.complete(longer, { ...greedy, maxNewTokens: 20 });
    expect(second.cachedTokens).toBeGreaterThanOrEqual(longer.length - 2);
    using fresh = await load(stories, { backend });
    expect((await fresh.complete(longer, { ...greedy, maxNewTokens: 20 })).ids).toEqual(second.ids);
    // Another text shares only its beginning.
    expect((await model.complete("Once there was a cat", { ...greedy, maxNewTokens: 5 })).cachedTokens).toBeLessThan(4);
  });

  test("tells of an answer that was stopped, and forgets none before", async () => {
    using model = await load(chatModel, { backend, capacity: 128 });
    await model.complete("Hello", { ...greedy, maxNewTokens: 3 });
    const controller = new AbortController();
    let pieces = "";
    const stopped = (async () => {
      for await (const piece of model.generate("Hello there", {
        ...greedy,
        maxNewTokens: 100,
        eosTokenIds: [],
        signal: controller.signal,
      })) {
        pieces += piece;
        if (pieces.length > 5) controller.abort();
      }
    })();
    await expect(stopped).rejects.toThrow();
    const { lastResult } = model;
    expect(lastResult).toMatchObject({ reason: "aborted", text: pieces });
    expect(lastResult?.speed.newTokens).toBe(lastResult?.ids.length);
    // A prompt that is refused changes nothing.
    await expect(model.complete(new Array(200).fill(1), { maxNewTokens: 1 })).rejects.toThrow();
    expect(model.lastResult).toBe(lastResult);
    // Stopped before its first token.
    const early = model.generate("Hello", { signal: AbortSignal.abort() }).next();
    await expect(early).rejects.toThrow();
    expect(model.lastResult).toMatchObject({ reason: "aborted", ids: [], text: "" });
  });

  test("sees what others wrote into its cache", async () => {
    using model = await load(stories, { backend });
    const options = { ...greedy, maxNewTokens: 20 };
    const { ids } = await model.complete("Once upon a time", options);
    // Another text of at least that length, under the model's own feet.
    model.runner.reset(0);
    model.runner.append(0, [1, ...new Array(40).fill(300)]);
    const again = await model.complete("Once upon a time", options);
    expect(again.ids).toEqual(ids);
    expect(again.cachedTokens).toBe(1);
  });

  test("asks no hub for a draft model when it must not", async () => {
    const speculate = "draft:nobody/has-this-model";
    await expect(load(stories, { backend, offline: true, speculate })).rejects.toThrow("expected a whole copy in the cache");
  });

  test.each(["lookup", "suffix,adaptive=false", `draft:${stories}`, "lookup,numTokens=3"])("speculates with %s", async (speculate) => {
    using plain = await load(stories, { backend });
    using model = await load(stories, { backend, speculate });
    const options = { ...greedy, maxNewTokens: 100, eosTokenIds: [] };
    const [a, b] = [await plain.complete("Tom and Tom and", options), await model.complete("Tom and Tom and", options)];
    expect(b.text).toBe(a.text);
    expect(b.speculation?.numSteps).toBeLessThanOrEqual(100);
  });

  test("of another vocabulary drafts as well", async () => {
    using plain = await load(chatModel, { backend });
    using model = await load(chatModel, { backend, speculate: `draft:${stories},adaptive=false` });
    const options = { ...greedy, maxNewTokens: 12, eosTokenIds: [] };
    expect((await model.complete("Once upon a time", options)).ids).toEqual((await plain.complete("Once upon a time", options)).ids);
  });

  test("keeps to a schema, with and without drafts", async () => {
    const jsonSchema = {
      type: "object",
      properties: { name: { type: "string", maxLength: 8 }, good: { type: "boolean" } },
      required: ["name", "good"],
    };
    for (const speculate of ["none", "lookup"]) {
      using model = await load(stories, { backend, speculate });
      for (const sampling of [{ doSample: false }, { temperature: 1 }]) {
        const result = await model.complete("Once upon a time", { sampling, jsonSchema, maxNewTokens: 120 });
        const value = JSON.parse(result.text);
        expect(typeof value.name).toBe("string");
        expect(typeof value.good).toBe("boolean");
      }
    }
    using model = await load(stories, { backend });
    expect((await model.complete("Is it so?", { grammar: 'root ::= "yes" | "no"' })).text).toMatch(/^(yes|no)$/);
    await expect(model.complete("Once", { grammar: "root ::= (" })).rejects.toThrow(/expected/);
  });

  test("is told what is wrong with what it was asked for", async () => {
    await expect(load("no/such/folder/here", { backend })).rejects.toThrow("expected a checkpoint folder");
    await expect(load(stories, { backend, speculate: "lookop" })).rejects.toMatchObject({ hint: "Did you mean lookup?" });
    await expect(load(stories, { backend, speculate: "lookup,numTokkens=3" })).rejects.toMatchObject({ hint: "Did you mean numTokens?" });
    await expect(load(stories, { backend, speculate: "draft:" })).rejects.toThrow("no model");
    await expect(load(stories, { backend, speculate: "medusa:" })).rejects.toThrow("no folder");
    for (const [speculate, what] of [
      ["none,numTokens=1", "none, which takes none, got numTokens"],
      ["medusa:runs/heads,foo=1,bar=2", "medusa, which takes none, got foo, bar"],
      ["runs/heads,foo=1", "a folder of heads, which takes none, got foo"],
    ])
      await expect(load(stories, { backend, speculate })).rejects.toThrow(`expected no options after ${what}`);
    using model = await load(stories, { backend, capacity: 20 });
    for (const [options, hint] of [
      [{ doSample: false }, "sampling: { doSample"],
      [{ maxTokens: 4 }, "maxNewTokens"],
    ] as const)
      await expect(model.complete("Once", options as never)).rejects.toMatchObject({ hint: expect.stringContaining(hint) });
    await expect(model.complete("Once", { maxNewTokens: -3 })).rejects.toThrow("at least 0");
    await expect(load(stories, { backend, speculat: "lookup" } as never)).rejects.toMatchObject({ hint: "Did you mean speculate?" });
    expect(() => model.chatIds([{ role: "user", content: "Hi" }])).toThrow("chat template");
    await expect(model.complete("word ".repeat(40))).rejects.toThrow("shorter than the context");
    const pieces = model.generate("Once", { maxNewTokens: 10 });
    await pieces.next();
    await expect(model.complete("Once")).rejects.toThrow("one answer at a time");
    await pieces.return(undefined);
    expect((await model.complete("Once", { ...greedy, maxNewTokens: 3 })).ids.length).toBe(3);
  });
});

test("heads lie where commas say nothing of options", async () => {
  const heads = join(folder, "a,b=c");
  saveMedusa(heads, createMedusa(loadDecoder(stories), { heads: 2 }), {});
  for (const speculate of [heads, `medusa:${heads}`]) {
    using model = await load(stories, { backend, speculate });
    expect(model.drafter?.name).toBe("medusa");
  }
});

describe("drafters belong to who made them", () => {
  const stub = () => {
    const calls: string[] = [];
    const drafter: Drafter = {
      name: "stub",
      needs: {},
      begin() {},
      propose: ({ ids, numIds }) => ({ shape: TreeShape.chain(0), ids: ids.subarray(numIds - 1, numIds) }),
      observe() {},
      dispose: () => void calls.push("dispose"),
      [Symbol.dispose]: () => void calls.push("dispose"),
    };
    return { calls, drafter };
  };

  test("one that is handed in outlives its models", async () => {
    const { calls, drafter } = stub();
    for (let i = 0; i < 2; i++) {
      using model = await load(stories, { backend, speculate: drafter });
      expect((await model.complete("Once", { ...greedy, maxNewTokens: 3 })).ids.length).toBe(3);
      await model.complete("Once", { ...greedy, maxNewTokens: 3, grammar: 'root ::= "yes"' });
    }
    expect(calls).toEqual([]);
  });

  test("one that a model opened ends with it", async () => {
    const model = await load(stories, { backend, speculate: `draft:${stories}` });
    const drafter = model.drafter as Drafter;
    model.dispose();
    const context = { ids: Int32Array.of(1, 5), numIds: 2, promptLength: 2, maxNodes: 9, maxDepth: 8, costs: new StepCosts() };
    drafter.begin({ config: model.config });
    expect(() => drafter.propose(context as never)).toThrow("disposed");
  });
});

describe("a conversation", () => {
  const open = (capacity?: number): Promise<TextModel> => load(chatModel, { backend, ...(capacity === undefined ? {} : { capacity }) });
  const options = { ...greedy, maxNewTokens: 6, eosTokenIds: [] };

  test("remembers, and can take back", async () => {
    using model = await open();
    const talk = new Conversation(model, { system: "Be brief." });
    const answer = await textOf(talk.ask("Hello", options));
    expect(talk.messages.map(({ role }) => role)).toEqual(["system", "user", "assistant"]);
    expect(talk.messages[2].content).toBe(answer.trimEnd());
    await textOf(talk.ask("And now?", options));
    // All but what the answer's own tokens decode to differently was held.
    expect(talk.lastResult?.cachedTokens).toBeGreaterThan(5);
    expect(talk.undo()).toBe(true);
    expect(talk.messages.length).toBe(3);
    talk.reset();
    expect(talk.messages).toEqual([{ role: "system", content: "Be brief." }]);
    talk.setSystem("");
    expect(talk.messages).toEqual([]);
    expect(talk.undo()).toBe(false);
  });

  test("lets the oldest go when the context is full, or says that it is", async () => {
    using model = await open(90);
    const talk = new Conversation(model, { system: "Be brief.", reserve: 10 });
    for (let i = 0; i < 8; i++) await textOf(talk.ask(`Question number ${i}`, options));
    expect(talk.numDropped).toBeGreaterThan(0);
    expect(talk.messages[0].role).toBe("system");
    expect(talk.messages[1].role).toBe("user");
    const strict = new Conversation(model, { whenFull: "stop", reserve: 10 });
    const asked = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) await textOf(strict.ask(`Question number ${i}`, options));
    };
    await expect(asked()).rejects.toMatchObject({ hint: expect.stringContaining("/reset") });
    expect(strict.messages.at(-1)?.role).toBe("assistant");
    const before = { messages: [...talk.messages], numDropped: talk.numDropped };
    await expect(textOf(talk.ask("word ".repeat(200), options))).rejects.toThrow("tokens of conversation");
    expect({ messages: talk.messages, numDropped: talk.numDropped }).toEqual(before);
  });

  test("keeps the part of an answer that was written before it was stopped", async () => {
    using model = await open();
    const talk = new Conversation(model);
    const controller = new AbortController();
    const stopped = async (): Promise<void> => {
      let pieces = 0;
      for await (const _ of talk.ask("Hello", { ...options, maxNewTokens: 200, signal: controller.signal }))
        if (++pieces === 3) controller.abort(new Error("stop"));
    };
    await expect(stopped()).rejects.toThrow("stop");
    expect(talk.messages.at(-1)?.role).toBe("assistant");
    await textOf(talk.ask("Go on", options));
    expect(talk.messages.length).toBe(4);
  });
});

describe("weights", () => {
  test("quantised at load are smaller, and nearly as good", async () => {
    const ids = (await loadModel(stories)).tokenizer.encode(
      "Once upon a time there was a little girl named Lily. She loved to play outside in the park. ".repeat(3),
    );
    const [f32, q8] = [await loadModel(stories), await loadModel(stories, { weights: "q8" })];
    expect(q8.bytes).toBeLessThan(f32.bytes);
    expect(q8.decoder).toBeUndefined();
    const [a, b] = [await measurePerplexity(backend, f32.model, ids), await measurePerplexity(backend, q8.model, ids, { window: 64 })];
    expect(a.tokens).toBe(ids.length - 1);
    expect(b.loss).toBeLessThan(a.loss + 0.6);
    // Teacher-forced by one call a token: the same number.
    using model = await load(stories, { backend });
    let total = 0;
    for (let i = 0; i < 40; i++) {
      const logits = model.runner.append(0, [ids[i]]);
      const top = Math.max(...logits);
      total -= logits[ids[i + 1]] - top - Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
    }
    const windowed = await measurePerplexity(backend, f32.model, ids.subarray(0, 41));
    expect(windowed.loss).toBeCloseTo(total / 40, 4);
  });

  test("another model's tokenizer is refused; end tokens are those that the checkpoint names", async () => {
    const copy = join(folder, "mixed");
    cpSync(chatModel, copy, { recursive: true });
    await expect(loadModel(copy, { tokenizer: "assets/stories260k/tok512.bin" })).rejects.toThrow("expected at most 400 tokens");
    writeFileSync(join(copy, "generation_config.json"), '{"eos_token_id": [3, 4]}');
    expect((await loadModel(copy)).eosTokenIds).toEqual(expect.arrayContaining([3, 4]));
  });
});
