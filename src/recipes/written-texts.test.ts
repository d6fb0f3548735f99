// A text does not depend on what its row held before: where positions depend on the length of a prompt, what is held of it is read again.
import { afterAll, beforeAll, expect, test } from "vitest";
import { DecoderRunner } from "../decode/runner.ts";
import { allocateDecoder } from "../models/decoder/checkpoint.ts";
import { decoderConfig } from "../models/decoder/config.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { writeTexts } from "./written-texts.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const sizes = { vocabSize: 80, width: 32, layers: 2, heads: 2, mlpWidth: 48, contextLength: 160, initStd: 0.3 };

test.each([undefined, { kind: "dynamic", originalLength: 20, factor: 4 } as const])("rotary scaling %o", async (rotaryScaling) => {
  const model = allocateDecoder(decoderConfig({ ...sizes, ...(rotaryScaling ? { rotaryScaling } : {}) }));
  initializeParameters(model.specs as never, model.parameters, 3);
  const beginning = Array.from({ length: 60 }, (_, i) => (i * 31 + 7 * i * i) % 80);
  // Odd texts have a shorter prompt with the same beginning.
  const promptOf = (index: number) => [...beginning, ...(index % 2 === 0 ? beginning.slice(0, 12) : [5])];
  const textAfter = async (indices: readonly number[], wanted: number): Promise<readonly number[] | undefined> => {
    using runner = new DecoderRunner(backend, model, { batch: 2, capacity: 160 });
    const settings = { answerTokens: 20, temperature: 1, eosTokenIds: [], seed: 1, top: 1 };
    const planOf = (index: number) => ({ start: [], openingTokens: 0, promptOf: () => promptOf(index) });
    let ids: readonly number[] | undefined;
    for await (const text of writeTexts(runner, { ...settings, planOf, indices: indices.values() }))
      if (text.index === wanted) ids = text.ids;
    return ids;
  };
  const alone = await textAfter([5], 5);
  expect(alone?.length).toBe(61 + 20);
  expect(await textAfter([0, 2, 5], 5)).toEqual(alone);
});
