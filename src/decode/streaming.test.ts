// A stream loses nothing: the texts of the events before `finish`, put together, are the text of `finish`, whatever was held back.
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { loadTokenizer } from "../text/index.ts";
import { type FinishEvent, type GenerateOptions, type GenerationRequest, generate } from "./generate.ts";
import { DecoderRunner } from "./runner.ts";

const model = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const ids = [...tokenizer.encode("Once upon a time")];
let backend: Backend;
let runner: DecoderRunner;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  runner = new DecoderRunner(backend, model, {});
});
afterAll(() => backend.dispose());

async function stream(
  request: Partial<GenerationRequest>,
  options: GenerateOptions = { tokenizer },
): Promise<{ texts: string[]; kinds: string[]; end: FinishEvent }> {
  const [texts, kinds]: string[][] = [[], []];
  for await (const event of generate(runner, [{ ids, sampling: { doSample: false }, eosTokenIds: [], ...request }], options)) {
    if (event.kind === "finish") return { texts, kinds, end: event };
    texts.push(event.text);
    kinds.push(event.kind);
  }
  throw new Error("no end");
}

test("text that could have become a stop string comes before the end", async () => {
  const { end: whole } = await stream({ maxNewTokens: 20 });
  for (let maxNewTokens = 1; maxNewTokens <= 20; maxNewTokens++) {
    const { text } = (await stream({ maxNewTokens })).end;
    const { texts, kinds, end } = await stream({ maxNewTokens, stop: [`${text.slice(-3)}~`] });
    expect(texts.join("")).toBe(text);
    expect(end).toMatchObject({ text, reason: "length", ids: whole.ids.slice(0, maxNewTokens) });
    expect(kinds).toEqual([...new Array(maxNewTokens).fill("token"), "text"]);
  }
});

test("at an end token too", async () => {
  const { end: whole } = await stream({ maxNewTokens: 20 });
  const cut = whole.ids.findIndex((id, i) => i > 5 && whole.ids.indexOf(id) === i);
  const { texts, kinds, end } = await stream({
    maxNewTokens: 20,
    eosTokenIds: [whole.ids[cut]],
    stop: [`${tokenizer.decode([whole.ids[cut - 1]]).slice(-1)}~`],
  });
  expect(end.reason).toBe("eos");
  expect(texts.join("")).toBe(end.text);
  expect(whole.text.startsWith(end.text)).toBe(true);
  expect(kinds.at(-1)).toBe("text");
});

/** A tokenizer whose last character is never whole. */
const halting = (rest: string): GenerateOptions["tokenizer"] => ({
  specialIds: tokenizer.specialIds,
  stream: () => ({ push: () => "a", end: () => rest }),
});

test("what is left of a character comes as the last text", async () => {
  const { texts, end } = await stream({ maxNewTokens: 3 }, { tokenizer: halting("\ufffd") });
  expect(texts).toEqual(["a", "a", "a", "\ufffd"]);
  expect(end.text).toBe("aaa\ufffd");
});

test("and may complete a stop string, of which nothing is told", async () => {
  const { texts, end } = await stream({ maxNewTokens: 3, stop: ["a\ufffd"] }, { tokenizer: halting("\ufffd") });
  expect(texts.join("")).toBe("aa");
  expect(end).toMatchObject({ text: "aa", reason: "stop" });
});

test("a complete stop string leaves no text event, and neither does an end without anything held back", async () => {
  const { end: whole } = await stream({ maxNewTokens: 20 });
  const stopped = await stream({ maxNewTokens: 20, stop: [whole.text.slice(10, 13)] });
  expect(stopped.kinds).not.toContain("text");
  expect(stopped.end).toMatchObject({ reason: "stop", text: whole.text.slice(0, whole.text.indexOf(whole.text.slice(10, 13))) });
  expect(stopped.texts.join("")).toBe(stopped.end.text);
  expect((await stream({ maxNewTokens: 5 })).kinds).toEqual(new Array(5).fill("token"));
});
