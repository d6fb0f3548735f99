import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UsageError } from "../../base/errors.ts";
import { openSafetensors } from "../../formats/safetensors.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { type ConversionPlan, checkConversion, planConversion } from "./conversion-plan.ts";
import { convertModel } from "./convert-model.ts";
import { load } from "./text-model.ts";

const chatModel = "test/golden/checkpoints/smollm2";
let folder: string;
let backend: Backend;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longwave-convert-"));
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true });
});

const answer = async (path: string): Promise<readonly number[]> => {
  using model = await load(path, { backend });
  const ids = model.chatIds([{ role: "user", content: "Hello, how are you?" }]);
  return [...ids, ...(await model.complete(ids, { sampling: { doSample: false }, maxNewTokens: 12, eosTokenIds: [] })).ids];
};

describe("a model in another format", () => {
  test("answers as it did: folder to GGUF and back", async () => {
    const expected = await answer(chatModel);
    const gguf = join(folder, "model.gguf");
    await convertModel(chatModel, gguf, { dtype: "f32" });
    expect(await answer(gguf)).toEqual(expected);
    const back = join(folder, "back");
    await convertModel(gguf, back);
    expect(await answer(back)).toEqual(expected);
    expect(readdirSync(back).sort()).toEqual(
      expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]),
    );
  });

  test("is smaller in fewer bits", async () => {
    const sizes = [];
    for (const dtype of ["f32", "q8_0", "q4_0"] as const)
      sizes.push((await convertModel(chatModel, join(folder, `${dtype}.gguf`), { dtype })).bytes);
    expect(sizes[1]).toBeLessThan(sizes[0] / 2);
    expect(sizes[2]).toBeLessThanOrEqual(sizes[1]);
  });

  test("is planned from the headers: bytes of what is written, to the byte", async () => {
    for (const dtype of ["f32", "f16", "q8_0", "q4_0"] as const) {
      const output = join(folder, `planned-${dtype}.gguf`);
      let plan: ConversionPlan | undefined;
      await convertModel(chatModel, output, { dtype, onPlan: (told) => (plan = told) });
      expect(plan).toMatchObject({ dtype, sourceTypes: ["f32"], quantisedTypes: [] });
      expect(plan?.bytes).toBe(planConversion(output, "f32").sourceBytes);
    }
    using source = openSafetensors(chatModel);
    const values = [...source.entries.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    expect(planConversion(chatModel, "q8_0").sourceBytes).toBe(4 * values);
  });

  test("is refused where it was quantised already or would not shrink, unless it is asked for", async () => {
    const eight = join(folder, "eight.gguf");
    await convertModel(chatModel, eight, { dtype: "q8_0" });
    const four = join(folder, "four.gguf");
    const refused = expect(convertModel(eight, four, { dtype: "q4_0" })).rejects;
    await refused.toThrow(UsageError);
    await expect(convertModel(eight, four, { dtype: "q8_0" })).rejects.toThrow(
      /expected float weights to make q8_0 of, got quantised ones \(q8_0; /,
    );
    expect(existsSync(four)).toBe(false);
    await convertModel(eight, four, { dtype: "q4_0", allowRequantize: true });
    // Back to floats loses nothing.
    await convertModel(eight, join(folder, "floats.gguf"), { dtype: "f16" });
    const same = { sourceBytes: 100, bytes: 100, sourceTypes: ["f16"], quantisedTypes: [], dtype: "q8_0" } as const;
    expect(() => checkConversion("m", same)).toThrow(/expected a model that q8_0 makes smaller/);
    expect(() => checkConversion("m", { ...same, bytes: 99 })).not.toThrow();
    expect(() => checkConversion("m", { ...same, dtype: "f32" })).not.toThrow();
  });

  test("does not take the place of what is there, and half of it is never left", async () => {
    const output = join(folder, "taken.gguf");
    writeFileSync(output, "mine");
    await expect(convertModel(chatModel, output)).rejects.toThrow("expected nothing there");
    await convertModel(chatModel, output, { overwrite: true });
    await expect(convertModel(chatModel, join(folder, "q"), { dtype: "q8_0" })).rejects.toThrow("for a folder");
    await expect(convertModel("assets/stories260k/stories260K.bin", join(folder, "s.gguf"))).rejects.toThrow("tokenizer.json for a GGUF");
    expect(existsSync(join(folder, "s.gguf"))).toBe(false);
  });

  test("takes the place of a checkpoint, its own source too, but of no other folder", async () => {
    const model = join(folder, "own");
    cpSync(chatModel, model, { recursive: true });
    const expected = await answer(model);
    await convertModel(model, model, { overwrite: true });
    expect(await answer(model)).toEqual(expected);
    // A conversion that fails leaves what was there.
    await expect(convertModel("no/such/model/here", model, { overwrite: true })).rejects.toThrow("expected a checkpoint folder");
    await expect(convertModel(model, model, { overwrite: true, tokenizer: join(folder, "none.json") })).rejects.toThrow();
    expect(await answer(model)).toEqual(expected);
    const other = join(folder, "documents");
    mkdirSync(other);
    writeFileSync(join(other, "letter.txt"), "mine");
    await expect(convertModel(model, other, { overwrite: true })).rejects.toThrow("without config.json");
    expect(readdirSync(other)).toEqual(["letter.txt"]);
  });
});
