// Steps of native environments leave nothing for the garbage collector. Alone in its file, so that types of other tests do not count.
import { expect, test } from "vitest";
import { CartPole } from "./environments/cart-pole.ts";
import { batchEnvironments } from "./vector.ts";

test("a step of CartPole allocates less than one number", () => {
  const n = 8;
  const batch = batchEnvironments(() => new CartPole(), n);
  batch.reset(0);
  const actions = new Int32Array(n);
  const play = (steps: number): void => {
    for (let step = 0; step < steps; step++) {
      // Keeps the poles up, so that few episodes end: those that do leave a record.
      for (let row = 0; row < n; row++) actions[row] = batch.observations[4 * row + 2] + batch.observations[4 * row + 3] > 0 ? 1 : 0;
      batch.step(actions);
    }
  };
  play(30_000);
  const bytes = Array.from({ length: 5 }, () => {
    const before = process.memoryUsage().heapUsed;
    play(10_000);
    return (process.memoryUsage().heapUsed - before) / (10_000 * n);
  });
  // The median: the collector may run in one of them. A boxed number takes 12 bytes.
  expect(bytes.sort((a, b) => a - b)[2]).toBeLessThan(6);
});
