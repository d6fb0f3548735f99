// Rotary positions whose frequencies depend on how long a sequence is. The runner computes cosines and sines of the new tokens on the host
// and, where a sequence grows out of the length that its keys were rotated for, computes it again:
// - longrope: one list of divisors up to the original length, another beyond it, for all positions; so the cache starts anew in between
//   (transformers drops it as well). All tokens of one call take the divisors of the longest of them.
// - dynamic: a base for each length. Keys stay as they were rotated when they were new, as in transformers' cached generation.
import { UsageError } from "../base/errors.ts";
import { readsRotary } from "../models/decoder/cached.ts";
import { type DecoderConfig, rotaryOptions, rotaryWidth } from "../models/decoder/config.ts";
import { usesRotary } from "../models/decoder/decoder.ts";
import { attentionFactorOf, dependsOnLength, fillRotary, inverseFrequencies, type RotaryOptions } from "../nn/rotary.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import type { KVCache } from "../runtime/kv-cache.ts";

/** Inputs [B, S, half] of a call. */
export interface RotaryMemory {
  cosines: TensorBuffer<"f32">;
  sines: TensorBuffer<"f32">;
}

export class RotaryRows {
  /** Pairs of rotated features. */
  readonly half: number;
  readonly #options: RotaryOptions;
  readonly #attentionFactor: number;
  /** By row of the batch. */
  readonly #frequencies: Float64Array<ArrayBuffer>[];

  private constructor(options: RotaryOptions, batch: number) {
    this.#options = options;
    this.half = options.width / 2;
    this.#attentionFactor = attentionFactorOf(options.scaling);
    this.#frequencies = Array.from({ length: batch }, () => inverseFrequencies(options));
  }

  /** Undefined where fixed tables serve every length. */
  static of(config: DecoderConfig, batch: number): RotaryRows | undefined {
    if (!readsRotary(config)) return undefined;
    const layer = config.layerTypes.findIndex((_, i) => usesRotary(config, i) && dependsOnLength(rotaryOptions(config, i).scaling));
    return new RotaryRows({ ...rotaryOptions(config, layer), width: rotaryWidth(config) }, batch);
  }

  /**
   * Prepares a row for tokens up to `length`.
   * @returns the tokens that it holds, where they have to be computed again; the row is empty then.
   * @throws UsageError when these are not known.
   */
  settle(cache: KVCache, row: number, length: number): Int32Array | undefined {
    const held = cache.lengths[row];
    const { scaling } = this.#options;
    if (scaling?.kind === "dynamic") {
      this.#frequencies[row] = inverseFrequencies(this.#options, length);
      return undefined;
    }
    const stage = scaling?.kind === "longrope" && length > scaling.originalLength ? 2 : 1;
    const before = cache.stages[row];
    cache.stages[row] = stage;
    this.#frequencies[row] = inverseFrequencies(this.#options, length);
    if (held === 0 || before === stage) return undefined;
    const tokens = cache.tokensOf(row).slice(0, held);
    if (tokens.some((id) => id < 0))
      throw new UsageError("cache: expected the tokens of a restored sequence, which has to be computed again, got rows alone", {
        hint: "Start the sequence from its tokens.",
      });
    cache.truncate(row, 0);
    return tokens;
  }

  /** Memory for `batch` rows of `time` tokens. */
  allocate(batch: number, time: number): RotaryMemory {
    const shape = [batch, time, this.half];
    return { cosines: allocate("f32", shape), sines: allocate("f32", shape) };
  }

  /** Writes the tables of tokens at `positions` of a row, from row `at` of the memory on. */
  write({ cosines, sines }: RotaryMemory, at: number, row: number, positions: ArrayLike<number>): void {
    fillRotary({ cosines: cosines.data, sines: sines.data }, at, positions, this.#frequencies[row], this.#attentionFactor);
  }
}
