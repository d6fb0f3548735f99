// How fast a text came: reading the prompt and writing are two speeds, which differ by an order of magnitude.
import type { GenerationEvent } from "../../decode/generate.ts";

export interface GenerationSpeed {
  /** Tokens of the prompts that were computed: those from the cache do not count. */
  readonly promptTokens: number;
  /** Seconds until every request had its first token. */
  readonly promptSeconds: number;
  /** 0 before there was a token. */
  readonly promptTokensPerSecond: number;
  /** Seconds until the very first token. */
  readonly firstTokenSeconds: number;
  /** All new tokens. */
  readonly newTokens: number;
  /** From the first token to the last. */
  readonly generationSeconds: number;
  /** Of the tokens after those that came with the first step; 0 where there are none. */
  readonly generationTokensPerSecond: number;
}

/** A clock beside a stream of events. It starts when it is made. */
export class SpeedMeter {
  readonly #promptTokens: number;
  readonly #numRequests: number;
  readonly #now: () => number;
  readonly #startedAt: number;
  readonly #begun = new Set<number>();
  #firstAt: number | undefined;
  #promptReadAt: number | undefined;
  #lastAt = 0;
  #numTokens = 0;
  /** Tokens that the end of the prompt brought along. */
  #numFirst = 0;
  #hasStepped = false;

  /** @param now milliseconds. */
  constructor(promptTokens: number, numRequests = 1, now: () => number = () => performance.now()) {
    this.#promptTokens = promptTokens;
    this.#numRequests = numRequests;
    this.#now = now;
    this.#startedAt = now();
  }

  /** For `onStep` of `generate`: with drafts the first step may bring several tokens. */
  readonly onStep = ({ numAccepted }: { readonly numAccepted: number }): void => {
    if (!this.#hasStepped) this.#numFirst = numAccepted + 1;
    this.#hasStepped = true;
  };

  see(event: GenerationEvent): void {
    if (event.kind === "text") return;
    const time = this.#now();
    this.#begun.add(event.request);
    if (event.kind === "token") {
      this.#firstAt ??= time;
      this.#lastAt = time;
      this.#numTokens++;
    }
    if (this.#promptReadAt !== undefined || this.#begun.size < this.#numRequests) return;
    this.#promptReadAt = time;
    if (!this.#hasStepped) this.#numFirst = this.#numTokens;
  }

  result(): GenerationSpeed {
    const seconds = (from: number, to: number): number => Math.max(0, (to - from) / 1000);
    const isRead = this.#promptReadAt !== undefined;
    const readAt = this.#promptReadAt ?? this.#now();
    const promptSeconds = seconds(this.#startedAt, readAt);
    const generationSeconds = isRead ? seconds(readAt, this.#lastAt) : 0;
    const later = Math.max(0, this.#numTokens - this.#numFirst);
    return {
      promptTokens: this.#promptTokens,
      promptSeconds,
      promptTokensPerSecond: isRead && promptSeconds > 0 ? this.#promptTokens / promptSeconds : 0,
      firstTokenSeconds: seconds(this.#startedAt, this.#firstAt ?? readAt),
      newTokens: this.#numTokens,
      generationSeconds,
      generationTokensPerSecond: later > 0 && generationSeconds > 0 ? later / generationSeconds : 0,
    };
  }
}
