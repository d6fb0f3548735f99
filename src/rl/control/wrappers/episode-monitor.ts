// Returns and lengths of the last episodes of a batch: what training curves show.
import { CheckpointError, UsageError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import type { FinishedEpisode } from "../environment.ts";

/** Feed it `finishedEpisodes` after each step. Means are over the window. */
export class EpisodeMonitor {
  /** All episodes so far, also those that left the window. */
  numEpisodes = 0;
  readonly #returns: Float64Array;
  readonly #lengths: Float64Array;

  /** @param window episodes that means look back on; default 100, as in Stable-Baselines3. @throws UsageError unless a positive integer. */
  constructor(window = 100) {
    if (!Number.isInteger(window) || window < 1) throw new UsageError(`EpisodeMonitor: expected a positive integer window, got ${window}`);
    this.#returns = new Float64Array(window);
    this.#lengths = new Float64Array(window);
  }

  record(episodes: readonly FinishedEpisode[]): void {
    for (let i = 0; i < episodes.length; i++) {
      const at = this.numEpisodes % this.#returns.length;
      this.#returns[at] = episodes[i].return;
      this.#lengths[at] = episodes[i].length;
      this.numEpisodes++;
    }
  }

  get #count(): number {
    return Math.min(this.numEpisodes, this.#returns.length);
  }

  /** NaN before the first episode ends. */
  get meanReturn(): number {
    return meanOf(this.#returns, this.#count);
  }

  /** NaN before the first episode ends. */
  get meanLength(): number {
    return meanOf(this.#lengths, this.#count);
  }

  /** Of the window, oldest first. */
  get returns(): Float64Array {
    const [count, window] = [this.#count, this.#returns.length];
    return Float64Array.from({ length: count }, (_, i) => this.#returns[(this.numEpisodes - count + i) % window]);
  }

  saveState(): JsonRecord {
    return { numEpisodes: this.numEpisodes, returns: [...this.#returns], lengths: [...this.#lengths] };
  }

  /** @throws CheckpointError for the state of another window. */
  restoreState(state: JsonRecord): void {
    const { numEpisodes, returns, lengths } = state as { numEpisodes?: number; returns?: number[]; lengths?: number[] };
    const window = this.#returns.length;
    if (!Number.isSafeInteger(numEpisodes) || returns?.length !== window || lengths?.length !== window)
      throw new CheckpointError(`EpisodeMonitor: expected the state of a window of ${window}, got another`);
    this.numEpisodes = numEpisodes as number;
    this.#returns.set(returns);
    this.#lengths.set(lengths);
  }
}

function meanOf(values: Float64Array, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += values[i];
  return sum / count;
}
