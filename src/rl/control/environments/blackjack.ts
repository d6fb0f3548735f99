// Blackjack (Sutton and Barto, example 5.1): draw cards up to 21 against a dealer who stops at 17, from an endless deck.
// Rules as in Gymnasium's Blackjack-v1.
import { z } from "zod";
import { CheckpointError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import { type Drawing, rectangle, type Shape, text } from "../drawing.ts";
import { Discrete, MultiDiscrete } from "../spaces.ts";
import { NativeEnvironment, settingsOf } from "./native-environment.ts";

export const blackjackSchema = z.object({
  natural: z.boolean().default(false).describe("Pays 1.5 for winning with an ace and a ten"),
  sab: z.boolean().default(false).describe("Rules of Sutton and Barto: an ace and a ten win at once unless the dealer has them too"),
});

/** An ace counts 1 here; jack, queen and king count 10. */
const deck = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10];

/** Observation: the player's sum (below 32), the dealer's open card (below 11), 1 with an ace that counts 11. Actions: 0 stick, 1 hit. */
export class Blackjack extends NativeEnvironment<Uint8Array, number> {
  readonly actionSpace = Discrete(2);
  readonly observationSpace = MultiDiscrete([32, 11, 2]);
  readonly #natural: boolean;
  readonly #sab: boolean;
  readonly #drawCard: () => number;
  #dealer: number[] = [1, 1];
  #player: number[] = [1, 1];
  readonly #observation = new Uint8Array(3);
  readonly #result = { observation: this.#observation, reward: 0.5, terminated: false, truncated: false };

  /** @param drawCard where cards come from (1 to 10; dealer two, player two, then as they are taken). Default: the environment's randomness. */
  constructor(options?: z.input<typeof blackjackSchema>, drawCard?: () => number) {
    super();
    const { natural, sab } = settingsOf(blackjackSchema, options);
    this.#natural = natural;
    this.#sab = sab;
    this.#drawCard = drawCard ?? (() => deck[this.random.integer(deck.length)]);
  }

  protected start(): void {
    this.#dealer = [this.#drawCard(), this.#drawCard()];
    this.#player = [this.#drawCard(), this.#drawCard()];
    this.#result.terminated = false;
  }

  step(action: number): { observation: Uint8Array; reward: number; terminated: boolean; truncated: boolean } {
    const result = this.#result;
    if (this.choice(action, 2) === 1) {
      this.#player.push(this.#drawCard());
      result.terminated = total(this.#player) > 21;
      result.reward = result.terminated ? -1 : 0;
    } else {
      while (total(this.#dealer) < 17) this.#dealer.push(this.#drawCard());
      result.terminated = true;
      result.reward = this.#settle();
    }
    this.observe();
    return result;
  }

  #settle(): number {
    const outcome = Math.sign(score(this.#player) - score(this.#dealer));
    if (!isNatural(this.#player)) return outcome;
    if (this.#sab) return isNatural(this.#dealer) ? outcome : 1;
    return this.#natural && outcome === 1 ? 1.5 : outcome;
  }

  protected observe(): Uint8Array {
    this.#observation[0] = total(this.#player);
    this.#observation[1] = this.#dealer[0];
    this.#observation[2] = hasUsableAce(this.#player) ? 1 : 0;
    return this.#observation;
  }

  protected pack(): JsonRecord {
    return { dealer: [...this.#dealer], player: [...this.#player], isOver: this.#result.terminated };
  }

  protected unpack(state: JsonRecord): void {
    this.#dealer = savedHand(state, "dealer");
    this.#player = savedHand(state, "player");
    this.#result.terminated = state.isOver === true;
  }

  drawing(): Drawing {
    const shapes: Shape[] = [];
    const show = (hand: readonly number[], y: number, title: string): void => {
      shapes.push(text([0.5, y + 0.28], title, "muted"));
      const width = Math.min(0.14, 0.9 / hand.length);
      const left = 0.5 - (width * hand.length) / 2;
      for (const [i, card] of hand.entries()) {
        shapes.push(rectangle([left + i * width + 0.005, y], width - 0.01, 0.22, "surface"));
        shapes.push(text([left + (i + 0.5) * width, y + 0.11], card === 1 ? "A" : String(card), "ink", width * 0.5));
      }
    };
    // The second card of the dealer lies face down until the player sticks.
    const open = this.#result.terminated ? this.#dealer : this.#dealer.slice(0, 1);
    show(open, 0.58, `Dealer ${total(open)}`);
    show(this.#player, 0.1, `Player ${total(this.#player)}`);
    return { shapes };
  }
}

const sum = (hand: readonly number[]): number => hand.reduce((total, card) => total + card, 0);
const hasUsableAce = (hand: readonly number[]): boolean => hand.includes(1) && sum(hand) + 10 <= 21;
const total = (hand: readonly number[]): number => sum(hand) + (hasUsableAce(hand) ? 10 : 0);
/** 0 beyond 21. */
const score = (hand: readonly number[]): number => (total(hand) > 21 ? 0 : total(hand));
const isNatural = (hand: readonly number[]): boolean => hand.length === 2 && hand.includes(1) && hand.includes(10);

function savedHand(state: JsonRecord, name: string): number[] {
  const hand = state[name];
  const isCard = (card: unknown): boolean => Number.isInteger(card) && (card as number) >= 1 && (card as number) <= 10;
  if (!Array.isArray(hand) || hand.length < 2 || hand.length > 64 || !hand.every(isCard))
    throw new CheckpointError(`environment: expected cards in \`${name}\` of its state, got ${JSON.stringify(hand) ?? "nothing"}`);
  return [...hand] as number[];
}
