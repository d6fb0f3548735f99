// Rotary positions whose frequencies depend on how long a sequence is. The runner computes cosines and sines of the new tokens on the host
// and, where a sequence grows out of the length that its keys were rotated for, computes it again. The length is that of plain decoding, in
// whatever calls tokens come: all tokens of a prompt have the length of the prompt, every other one that of the sequence up to itself.
// - longrope: one list of divisors up to the original length, another beyond it, for all positions; so the cache starts anew in between
//   (transformers drops it as well). A call has one list: drafts end where plain decoding would change it.
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
  /** By row of the batch: those of `#lengths`. */
  readonly #frequencies: Float64Array<ArrayBuffer>[];
  /** By row of the batch: the length that the tokens of the next call have at least. */
  readonly #lengths: Int32Array;

  private constructor(options: RotaryOptions, batch: number) {
    this.#options = options;
    this.half = options.width / 2;
    this.#attentionFactor = attentionFactorOf(options.scaling);
    this.#frequencies = Array.from({ length: batch }, () => inverseFrequencies(options));
    this.#lengths = new Int32Array(batch);
  }

  /** Undefined where fixed tables serve every length. */
  static of(config: DecoderConfig, batch: number): RotaryRows | undefined {
    if (!readsRotary(config)) return undefined;
    const layer = config.layerTypes.findIndex((_, i) => usesRotary(config, i) && dependsOnLength(rotaryOptions(config, i).scaling));
    return new RotaryRows({ ...rotaryOptions(config, layer), width: rotaryWidth(config) }, batch);
  }

  /**
   * Prepares a row for new tokens.
   * @param length of the prompt that they belong to, or of the sequence with the first of them.
   * @returns the tokens that it holds, where they have to be computed again; the row is empty then.
   * @throws UsageError when these are not known.
   */
  settle(cache: KVCache, row: number, length: number): Int32Array | undefined {
    const held = cache.lengths[row];
    const { scaling } = this.#options;
    const stage = this.#stageOf(length);
    const before = cache.stages[row];
    if (length !== this.#lengths[row]) this.#frequencies[row] = inverseFrequencies(this.#options, length);
    this.#lengths[row] = length;
    if (scaling?.kind === "dynamic") {
      // What grows token by token has within the original length the keys of any text, whatever comes behind.
      if (held === 0 || (stage === 2 && length > held + 1)) cache.stages[row] = stage;
      return undefined;
    }
    cache.stages[row] = stage;
    if (held === 0 || before === stage) return undefined;
    const tokens = cache.tokensOf(row).slice(0, held);
    if (tokens.some((id) => id < 0))
      throw new UsageError("cache: expected the tokens of a restored sequence, which has to be computed again, got rows alone", {
        hint: "Start the sequence from its tokens.",
      });
    cache.truncate(row, 0);
    return tokens;
  }

  /** Whether keys that a row holds are those that a prompt of this length would give anew. */
  isReusable(cache: KVCache, row: number, length: number): boolean {
    const stage = this.#stageOf(length);
    // Every length beyond the original one has a base of its own.
    return cache.stages[row] === stage && !(stage === 2 && this.#options.scaling?.kind === "dynamic");
  }

  /** How deep a tree may be whose root makes a sequence of this length: frequencies that change would change for the root as well. */
  maxDepth(length: number): number {
    const { scaling } = this.#options;
    return scaling?.kind === "longrope" && length <= scaling.originalLength ? scaling.originalLength - length : Number.POSITIVE_INFINITY;
  }

  /** 1 within the original length, 2 beyond it. */
  #stageOf(length: number): number {
    const { scaling } = this.#options;
    return (scaling?.kind === "longrope" || scaling?.kind === "dynamic") && length > scaling.originalLength ? 2 : 1;
  }

  /** Memory for `batch` rows of `time` tokens. */
  allocate(batch: number, time: number): RotaryMemory {
    const shape = [batch, time, this.half];
    return { cosines: allocate("f32", shape), sines: allocate("f32", shape) };
  }

  /** Writes the tables of tokens at `positions` of a row, from row `at` of the memory on. */
  write({ cosines, sines }: RotaryMemory, at: number, row: number, positions: ArrayLike<number>): void {
    const tables = { cosines: cosines.data, sines: sines.data };
    const length = this.#lengths[row];
    const isOne =
      this.#options.scaling?.kind !== "dynamic" || Array.prototype.every.call(positions, (position: number) => position < length);
    if (isOne) {
      fillRotary(tables, at, positions, this.#frequencies[row], this.#attentionFactor);
      return;
    }
    // Drafts: each has the length that it would make.
    for (let i = 0; i < positions.length; i++) {
      const own = positions[i] < length ? this.#frequencies[row] : inverseFrequencies(this.#options, positions[i] + 1);
      fillRotary(tables, at + i, [positions[i]], own, this.#attentionFactor);
    }
  }
}
