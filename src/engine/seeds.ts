// One seed, many independent random streams: every consumer of randomness asks for its own by name ("data", "dropout", "sampling"),
// so that adding one never shifts the numbers of another. The numbers come from the counter-based generator of the runtime.
import { invariant, UsageError } from "../base/errors.ts";
import { randomUniform, streamId } from "../runtime/rng.ts";

/** Position that no draw uses, so that derived seeds and random numbers never meet. */
const derivation = 0xffffffff;

/**
 * A seed in [0, 2^53) derived from another one, for a part that takes one seed and no stream: `deriveSeed(seed, "environment", 3)`.
 * @param index tells apart many of the same name; integer in [0, 2^32), default 0.
 * @throws UsageError unless the seed is an integer in [0, 2^53).
 */
export function deriveSeed(seed: number, name: string, index = 0): number {
  checkSeed(seed);
  return randomUniform(seed, streamId(name), index, derivation, 0) * 2 ** 53;
}

export interface SeedStreams {
  readonly seed: number;
  /** Number of the named stream, for the functions of the runtime that take (seed, stream, ...). The same name gives the same number. */
  stream(name: string): number;
  /** {@link deriveSeed} of this seed. */
  derive(name: string, index?: number): number;
}

/** The named streams of one run. @throws UsageError unless the seed is an integer in [0, 2^53). */
export function seedStreams(seed: number): SeedStreams {
  checkSeed(seed);
  const names = new Map<number, string>();
  return {
    seed,
    stream(name) {
      const id = streamId(name);
      const holder = names.get(id);
      // A few dozen names meet with a chance of about 1e-7; then one of them must be renamed.
      invariant(holder === undefined || holder === name, `the random streams "${holder}" and "${name}" have the same number`);
      names.set(id, name);
      return id;
    },
    derive: (name, index) => deriveSeed(seed, name, index),
  };
}

function checkSeed(seed: number): void {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new UsageError(`seed: expected an integer from 0 to 2^53 - 1, got ${seed}`);
}
