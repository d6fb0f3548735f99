import { expect, test } from "vitest";
import { Random } from "../../runtime/rng.ts";
import { remaxAdvantages, tokenGae } from "./token-advantages.ts";

const random = new Random(3);
const draw = (count: number): number[] => Array.from({ length: count }, () => random.uniform() - 0.5);

test("tokens outside the mask might as well not be there", () => {
  const [rewards, values] = [draw(9), draw(9)];
  const mask = [1, 1, 0, 1, 0, 0, 1, 1, 0];
  const kept = <T>(all: ArrayLike<T>): T[] => Array.from(all).filter((_, i) => mask[i] === 1);
  const options = { gamma: 0.97, lambda: 0.8 };
  const whole = tokenGae(rewards, values, mask, { length: 9, ...options });
  const alone = tokenGae(kept(rewards), kept(values), [1, 1, 1, 1, 1], { length: 5, ...options });
  expect(kept(whole.advantages)).toEqual([...alone.advantages]);
  expect(kept(whole.returns)).toEqual([...alone.returns]);
  expect([...whole.advantages].filter((_, i) => mask[i] === 0)).toEqual([0, 0, 0, 0]);
});

test("with λ = γ = 1 an advantage is the reward to come less the value, with λ = 0 the residual; rows do not meet", () => {
  const [rewards, values, mask] = [draw(6), draw(6), new Array(6).fill(1)];
  const far = tokenGae(rewards, values, mask, { length: 3, lambda: 1 });
  const near = tokenGae(rewards, values, mask, { length: 3, gamma: 0.9, lambda: 0 });
  for (let i = 0; i < 6; i++) {
    const end = i < 3 ? 3 : 6;
    const toCome = rewards.slice(i, end).reduce((sum, reward) => sum + reward, 0);
    expect(far.returns[i]).toBeCloseTo(toCome, 12);
    expect(far.advantages[i]).toBeCloseTo(toCome - values[i], 12);
    expect(near.advantages[i]).toBeCloseTo(rewards[i] + (i + 1 < end ? 0.9 * values[i + 1] : 0) - values[i], 12);
  }
});

test("ReMax takes the greedy reward off what is to come", () => {
  const { advantages, returns } = remaxAdvantages([1, 2, 3, 4], [1, 1, 0, 1], [2, 5], 2);
  expect([...returns]).toEqual([3, 2, 4, 4]);
  expect([...advantages]).toEqual([1, 0, 4, -1]);
});
