import { expect, test } from "vitest";
import { UsageError } from "../base/errors.ts";
import { deriveSeed, seedStreams } from "./seeds.ts";

test("streams are fixed by their names alone", () => {
  const a = seedStreams(1);
  const b = seedStreams(1);
  a.stream("dropout");
  expect(a.stream("data")).toBe(b.stream("data"));
  expect(a.stream("data")).toBe(a.stream("data"));
  expect(a.stream("data")).not.toBe(a.stream("dropout"));
});

test("derived seeds are seeds, and differ by seed, name and index", () => {
  const seeds = [0, 1, 2 ** 53 - 1].flatMap((seed) =>
    ["environment", "initialisation"].flatMap((name) => Array.from({ length: 500 }, (_, i) => deriveSeed(seed, name, i))),
  );
  expect(new Set(seeds).size).toBe(3000);
  for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
  // Uniform on [0, 2^53): the mean of 3000 lies within 4 standard errors (0.29 / sqrt(3000) = 0.0053).
  const mean = seeds.reduce((sum, seed) => sum + seed / 2 ** 53, 0) / seeds.length;
  expect(Math.abs(mean - 0.5)).toBeLessThan(0.021);
  expect(seedStreams(7).derive("x", 3)).toBe(deriveSeed(7, "x", 3));
});

test("seeds that the generator cannot take are refused", () => {
  for (const seed of [-1, 0.5, Number.NaN, 2 ** 53]) expect(() => seedStreams(seed)).toThrow(UsageError);
});
