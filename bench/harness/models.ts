// Model files with random weights in the 135 M Llama shape, as people download them: written once into the cache folder. Their vocabulary has
// real sizes (49,152 tokens, 48,895 merges) and invented content.
import { existsSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { allocateDecoder, saveDecoder } from "../../src/models/decoder/checkpoint.ts";
import { decoderConfig } from "../../src/models/decoder/config.ts";
import { decoderPresets } from "../../src/models/decoder/presets.ts";
import { initializeParameters } from "../../src/nn/parameter.ts";
import { convertModel } from "../../src/recipes/text-model/convert-model.ts";
import type { TrainedBpe } from "../../src/text/bpe-trainer.ts";
import { byteCharacters } from "../../src/text/byte-alphabet.ts";
import { saveTokenizer } from "../../src/text/tokenizer-json.ts";

export const benchConfig = decoderConfig({ ...decoderPresets["smollm2-135m"].options, vocabSize: 49_152 });

export const fileFormats = ["f32", "bf16", "q8_0", "q4_0"] as const;
export type FileFormat = (typeof fileFormats)[number];

export interface BenchModel {
  /** What a user names. */
  readonly path: string;
  /** The file that holds the weights. */
  readonly weightsFile: string;
  readonly bytes: number;
}

/** The model in a format: a folder with safetensors (f32, bf16) or a GGUF file (q8_0, q4_0). */
export async function benchModel(cacheFolder: string, format: FileFormat): Promise<BenchModel> {
  const original = join(cacheFolder, "first-token-f32");
  if (!existsSync(original)) {
    const half = `${original}.part`;
    rmSync(half, { recursive: true, force: true });
    mkdirSync(half, { recursive: true });
    const decoder = allocateDecoder(benchConfig);
    initializeParameters(decoder.specs as never, decoder.parameters, 0);
    saveDecoder(half, decoder);
    saveTokenizer(half, inventedVocabulary(benchConfig.vocabSize), { eosToken: "<|endoftext|>" });
    renameSync(half, original);
  }
  const isGguf = format.startsWith("q");
  const path = format === "f32" ? original : join(cacheFolder, `first-token-${format}${isGguf ? ".gguf" : ""}`);
  if (!existsSync(path)) await convertModel(original, path, { dtype: format });
  const weightsFile = isGguf ? path : join(path, "model.safetensors");
  return { path, weightsFile, bytes: statSync(weightsFile).size };
}

/** Bytes, all pairs of letters, and pairs of those. */
function inventedVocabulary(size: number): TrainedBpe {
  const specialTokens = ["<|endoftext|>"];
  const tokens = [...specialTokens, ...[...byteCharacters].sort()];
  const merges: [number, number][] = [];
  const merge = (left: readonly number[]): number[] => {
    const made: number[] = [];
    for (const a of left) {
      for (const b of left) {
        if (tokens.length === size) return made;
        made.push(tokens.length);
        merges.push([a, b]);
        tokens.push(tokens[a] + tokens[b]);
      }
    }
    return made;
  };
  merge(merge(Array.from("abcdefghijklmnopqrstuvwxyz", (letter) => tokens.indexOf(letter))));
  return { preTokenizer: "gpt2", tokens, specialTokens, merges, pairCounts: [] };
}
