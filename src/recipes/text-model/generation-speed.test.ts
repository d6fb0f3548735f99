import { expect, test } from "vitest";
import { SpeedMeter } from "./generation-speed.ts";

/** A clock that is set by hand. */
function setup(promptTokens: number, numRequests = 1) {
  let time = 1000;
  const meter = new SpeedMeter(promptTokens, numRequests, () => time);
  const token = (at: number, request = 0): void => {
    time = at;
    meter.see({ kind: "token", request, id: 1, text: "" });
  };
  return { meter, token, at: (value: number) => (time = value) };
}

test("reading and writing are told apart", () => {
  const { meter, token, at } = setup(50);
  for (const time of [1500, 1600, 1700, 1800, 1900]) token(time);
  at(9000);
  expect(meter.result()).toEqual({
    promptTokens: 50,
    promptSeconds: 0.5,
    promptTokensPerSecond: 100,
    firstTokenSeconds: 0.5,
    newTokens: 5,
    generationSeconds: 0.4,
    generationTokensPerSecond: 10,
  });
});

test("tokens that came with the first step of speculation are not counted as written after it", () => {
  const { meter, token } = setup(10);
  meter.onStep({ numAccepted: 2 });
  for (const time of [1100, 1100, 1100]) token(time);
  meter.onStep({ numAccepted: 3 });
  for (const time of [1200, 1200, 1200, 1200]) token(time);
  expect(meter.result()).toMatchObject({ newTokens: 7, promptTokensPerSecond: 100, generationTokensPerSecond: 40 });
});

test("several requests are read when each has its first token, or has ended without one", () => {
  const { meter, token, at } = setup(30, 3);
  token(1100, 0);
  token(1200, 1);
  at(1300);
  meter.see({ kind: "finish", request: 2, reason: "eos", ids: [], text: "" });
  token(1350, 0);
  token(1400, 1);
  expect(meter.result()).toMatchObject({ firstTokenSeconds: 0.1, promptSeconds: 0.3, promptTokensPerSecond: 100, newTokens: 4 });
  expect(meter.result().generationTokensPerSecond).toBeCloseTo(20, 9);
});

test("nothing and a single token have no speed of writing", () => {
  const { meter, token, at } = setup(4);
  at(1250);
  expect(meter.result()).toMatchObject({ newTokens: 0, promptTokensPerSecond: 0, generationTokensPerSecond: 0, firstTokenSeconds: 0.25 });
  token(1400);
  expect(meter.result()).toMatchObject({ newTokens: 1, promptTokensPerSecond: 10, generationTokensPerSecond: 0 });
});
